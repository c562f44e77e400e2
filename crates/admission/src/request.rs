//! What a plugin is told about a write, and how it looks at other objects.

use std::sync::Arc;

use meta::{GroupResource, GroupVersionKind, Object};

/// The sort of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change.
    Update,
    /// A deletion.
    Delete,
    /// A connection, such as exec.
    Connect,
}

impl Operation {
    /// The word that webhooks and messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A write.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Create, update or delete.
    pub operation: Operation,
    /// Kind of the object.
    pub gvk: &'a GroupVersionKind,
    /// Resource of the object.
    pub resource: &'a GroupResource,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// Name; empty when it is still to be generated.
    pub name: &'a str,
    /// Who writes.
    pub user: authz::Subject<'a>,
    /// Whether nothing will be written.
    pub is_dry_run: bool,
}

impl Request<'_> {
    /// Whether this is about the resource itself, in a group.
    pub fn is_for(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty()
            && self.resource.group == group
            && self.resource.resource == resource
    }

    /// Whether this creates a pod.
    pub fn creates_pod(&self) -> bool {
        self.operation == Operation::Create && self.is_for("", "pods")
    }
}

/// The cluster as it is. Answers from memory.
pub trait View: Send + Sync {
    /// An object; the namespace is empty for cluster-scoped ones.
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>>;

    /// The objects of a namespace, or all when it is empty.
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Object>>;

    /// Whether somebody may do something; nobody may anything where nobody decides.
    fn may(&self, _user: authz::Subject<'_>, _asked: &authz::Attributes) -> bool {
        false
    }
}
