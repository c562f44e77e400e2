//! The node authorizer: a kubelet reaches its own node and what its pods refer to.
//!
//! Which node refers to which object is asked through [`NodeGraph`]; what kubelets may do whatever
//! the object is comes from RBAC (`system:node`) upstream and from [`ALLOWED`] here.

use crate::attributes::{Attributes, Subject};
use crate::authorizer::Decision;

/// Which node reaches which object through its pods. Must be quick.
pub trait NodeGraph: Send + Sync + 'static {
    /// Whether a pod on the node refers to the object.
    fn refers(&self, node: &str, group: &str, resource: &str, namespace: &str, name: &str) -> bool;
}

/// Group, resource with subresource, verbs: what every kubelet may do with any object. Its own
/// limits (only its own node, only its own pods) are NodeRestriction's to enforce.
const ALLOWED: &[(&str, &str, &[&str])] = &[
    ("", "services", &["get", "list", "watch"]),
    ("", "nodes", &["create", "get", "list", "watch", "update", "patch"]),
    ("", "nodes/status", &["update", "patch"]),
    ("", "events", &["create", "update", "patch"]),
    ("", "pods", &["get", "list", "watch", "create", "delete"]),
    ("", "pods/status", &["update", "patch"]),
    ("", "pods/eviction", &["create"]),
    ("authentication.k8s.io", "tokenreviews", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"]),
    ("authorization.k8s.io", "localsubjectaccessreviews", &["create"]),
    ("certificates.k8s.io", "certificatesigningrequests", &["create", "get", "list", "watch"]),
    ("node.k8s.io", "runtimeclasses", &["get", "list", "watch"]),
    ("storage.k8s.io", "csidrivers", &["get", "list", "watch"]),
];

pub(crate) fn authorize(
    graph: &dyn NodeGraph,
    subject: Subject<'_>,
    attributes: &Attributes,
) -> Decision {
    let no = |reason: &str| Decision::NoOpinion(reason.to_owned());
    if !subject.is_in("system:nodes") || !attributes.is_resource {
        return no("");
    }
    let Some(node) = subject.name.strip_prefix("system:node:").filter(|name| !name.is_empty())
    else {
        return no("");
    };
    let full = attributes.full_resource();
    let (verb, group) = (attributes.verb.as_str(), attributes.group.as_str());
    let is_read = matches!(verb, "get" | "list" | "watch");
    let referred = || {
        let Attributes { resource, namespace, name, .. } = attributes;
        !name.is_empty() && graph.refers(node, group, resource, namespace, name)
    };
    match (group, full.as_str()) {
        ("", "secrets" | "configmaps") if is_read => {
            if attributes.namespace.is_empty() || attributes.name.is_empty() {
                no("can only read namespaced object of this type")
            } else {
                by_relation(node, referred())
            }
        }
        ("", "persistentvolumeclaims" | "persistentvolumes") if verb == "get" => {
            by_relation(node, referred())
        }
        ("", "persistentvolumeclaims/status") if verb != "create" => by_relation(node, referred()),
        ("resource.k8s.io", "resourceclaims") if verb == "get" => by_relation(node, referred()),
        ("storage.k8s.io", "volumeattachments") if verb == "get" => by_relation(node, referred()),
        ("", "serviceaccounts/token") if verb == "create" => by_relation(node, referred()),
        ("", "serviceaccounts") if verb == "get" => by_relation(node, referred()),
        ("coordination.k8s.io", "leases") => {
            let is_own = attributes.namespace == "kube-node-lease"
                && (attributes.name == node || (verb == "create" && attributes.name.is_empty()));
            let allowed =
                is_own && matches!(verb, "get" | "create" | "update" | "patch" | "delete");
            if allowed {
                yes()
            } else {
                no("can only access node lease with the same name as the requesting node")
            }
        }
        ("storage.k8s.io", "csinodes") => {
            let is_own =
                attributes.name == node || (verb == "create" && attributes.name.is_empty());
            let allowed =
                is_own && matches!(verb, "get" | "create" | "update" | "patch" | "delete");
            if allowed {
                yes()
            } else {
                no("can only access CSINode with the same name as the requesting node")
            }
        }
        ("resource.k8s.io", "resourceslices") => yes(),
        _ => {
            let allowed = ALLOWED.iter().any(|(of, resource, verbs)| {
                *of == group && *resource == full && verbs.contains(&verb)
            });
            if allowed { yes() } else { no("") }
        }
    }
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

fn by_relation(node: &str, is_referred: bool) -> Decision {
    if is_referred {
        return yes();
    }
    Decision::NoOpinion(format!("no relationship found between node '{node}' and this object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OneSecret;

    impl NodeGraph for OneSecret {
        fn refers(&self, node: &str, _: &str, resource: &str, _: &str, name: &str) -> bool {
            (node, resource, name) == ("n1", "secrets", "s")
        }
    }

    fn may(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let groups = ["system:nodes".to_owned()];
        let subject = Subject { name: "system:node:n1", groups: &groups };
        let attributes = Attributes::resource(verb, group, resource, namespace, name);
        authorize(&OneSecret, subject, &attributes).is_allowed()
    }

    #[test]
    fn a_kubelet_reads_only_what_its_pods_refer_to() {
        assert!(may("get", "", "secrets", "ns", "s"));
        assert!(!may("get", "", "secrets", "ns", "other"));
        assert!(!may("list", "", "secrets", "ns", ""));
        assert!(!may("delete", "", "secrets", "ns", "s"));
        assert!(may("patch", "", "pods/status", "ns", "p"));
    }

    #[test]
    fn a_kubelet_renews_only_its_own_lease() {
        assert!(may("update", "coordination.k8s.io", "leases", "kube-node-lease", "n1"));
        assert!(!may("update", "coordination.k8s.io", "leases", "kube-node-lease", "n2"));
        assert!(!may("update", "coordination.k8s.io", "leases", "default", "n1"));
    }
}
