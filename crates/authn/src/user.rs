//! The identity of whoever makes a request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A user as the API shows it; field names are those of `authentication.k8s.io/v1 UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserInfo {
    /// Name, such as `system:serviceaccount:default:builder`.
    #[serde(rename = "username", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Uid, when the authenticator knows one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups in the order in which they were found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What else the authenticator tells.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// The name of unauthenticated requests.
    pub const ANONYMOUS: &str = "system:anonymous";
    /// The group of authenticated requests.
    pub const AUTHENTICATED: &str = "system:authenticated";
    /// The group of unauthenticated requests.
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";
    /// The group that may do everything.
    pub const MASTERS: &str = "system:masters";

    /// A user with a name and groups.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Whoever makes a request without credentials.
    pub fn anonymous() -> Self {
        Self::new(Self::ANONYMOUS, &[Self::UNAUTHENTICATED])
    }

    /// The identity of an in-process component, such as `system:kube-scheduler`.
    pub fn component(name: &str) -> Self {
        Self::new(name, &[Self::AUTHENTICATED])
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let in_namespace = format!("system:serviceaccounts:{namespace}");
        Self::new(
            format!("system:serviceaccount:{namespace}:{name}"),
            &["system:serviceaccounts", &in_namespace, Self::AUTHENTICATED],
        )
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|found| found == group)
    }

    /// Namespace and name, when the user is a service account.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// The node, when the user is a kubelet.
    pub fn as_node(&self) -> Option<&str> {
        if !self.is_in("system:nodes") {
            return None;
        }
        self.name.strip_prefix("system:node:").filter(|name| !name.is_empty())
    }
}
