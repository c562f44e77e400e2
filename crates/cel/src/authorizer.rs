//! Questions to an authorizer, as expressions build them step by step.
//!
//! Upstream: `apiserver/pkg/cel/library/authz.go`.

use std::fmt;
use std::sync::Arc;

/// Whether somebody may do something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// A service account, namespace and name, other than the user of the request.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource's.
    pub path: Option<String>,
    /// API group.
    pub group: String,
    /// Resource.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Field selector as text; it may be one that cannot be read.
    pub field_selector: Option<String>,
    /// Label selector as text.
    pub label_selector: Option<String>,
    /// Verb.
    pub verb: String,
}

/// An authorizer's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why, or why not.
    pub reason: String,
    /// What went wrong, when something did.
    pub error: Option<String>,
}

/// Who answers.
pub trait Authorizer: Sync {
    /// Whether the user of the request, or the service account of the check, may do it.
    fn authorize(&self, check: &Check) -> Decision;
}

/// A question on its way.
#[derive(Clone)]
pub enum Authorization<'a> {
    /// Nothing said so far.
    Authorizer(&'a dyn Authorizer, Check),
    /// A path was named.
    Path(&'a dyn Authorizer, Check),
    /// A group was named.
    Group(&'a dyn Authorizer, Check),
    /// A resource was named.
    Resource(&'a dyn Authorizer, Check),
    /// It was asked.
    Decision(Decision),
}

impl<'a> Authorization<'a> {
    /// The value of a variable `authorizer`.
    pub fn of(authorizer: &'a dyn Authorizer) -> Arc<Self> {
        Arc::new(Self::Authorizer(authorizer, Check::default()))
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Authorizer(..) => "kubernetes.authorization.Authorizer",
            Self::Path(..) => "kubernetes.authorization.PathCheck",
            Self::Group(..) => "kubernetes.authorization.GroupCheck",
            Self::Resource(..) => "kubernetes.authorization.ResourceCheck",
            Self::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}

impl fmt::Debug for Authorization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())
    }
}

impl<'a> crate::Value<'a> {
    /// The variable `authorizer`.
    pub fn authorizer(authorizer: &'a dyn Authorizer) -> Self {
        Self::Authorization(Authorization::of(authorizer))
    }

    /// A variable such as `authorizer.requestResource`: everything but the verb is said.
    pub fn resource_check(authorizer: &'a dyn Authorizer, check: Check) -> Self {
        Self::Authorization(Arc::new(Authorization::Resource(authorizer, check)))
    }
}
