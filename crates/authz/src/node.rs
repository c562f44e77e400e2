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
    ("", "nodes", &["create", "update", "patch"]),
    ("", "nodes/status", &["update", "patch"]),
    ("", "events", &["create", "update", "patch"]),
    ("", "pods", &["create", "delete"]),
    ("", "pods/status", &["update", "patch"]),
    ("", "pods/eviction", &["create"]),
    ("authentication.k8s.io", "tokenreviews", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"]),
    ("authorization.k8s.io", "localsubjectaccessreviews", &["create"]),
    ("certificates.k8s.io", "certificatesigningrequests", &["create", "get", "list", "watch"]),
    ("certificates.k8s.io", "podcertificaterequests", &["create", "get", "list", "watch"]),
    ("certificates.k8s.io", "clustertrustbundles", &["get", "list", "watch"]),
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
        ("", "nodes") if is_read => own_node(node, &attributes.name),
        ("", "pods") if verb == "get" => by_relation(node, referred()),
        ("", "pods") if is_read => {
            if attributes.requires_field("spec.nodeName", node) {
                yes()
            } else if attributes.name.is_empty() {
                no("can only list/watch pods with spec.nodeName field selector")
            } else {
                by_relation(node, referred())
            }
        }
        ("resource.k8s.io", "resourceslices") => match verb {
            "create" => yes(),
            "list" | "watch" | "deletecollection" => {
                if attributes.requires_field("spec.nodeName", node) {
                    yes()
                } else {
                    no("can only list/watch/deletecollection resourceslices with spec.nodeName \
                        field selector")
                }
            }
            "get" | "update" | "patch" | "delete" => by_relation(node, referred()),
            _ => no("only the following verbs are allowed for a ResourceSlice: get, watch, list, \
                     create, update, patch, delete, deletecollection"),
        },
        _ => {
            let allowed = ALLOWED.iter().any(|(of, resource, verbs)| {
                *of == group && *resource == full && verbs.contains(&verb)
            });
            if allowed { yes() } else { no("") }
        }
    }
}

fn own_node(node: &str, name: &str) -> Decision {
    Decision::NoOpinion(match name {
        name if name == node => return yes(),
        "" => format!("node '{node}' cannot read all nodes, only its own Node object"),
        name => format!("node '{node}' cannot read '{name}', only its own Node object"),
    })
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
    fn a_kubelet_reads_its_own_node_and_the_pods_bound_to_it() {
        let groups = ["system:nodes".to_owned()];
        let subject = Subject { name: "system:node:n1", groups: &groups };
        let ask = |verb: &str, group: &str, resource: &str, name: &str, selector: &str| {
            let attributes = Attributes::resource(verb, group, resource, "", name);
            let attributes = attributes.with_field_selector(selector);
            let decision = authorize(&OneSecret, subject, &attributes);
            (decision.is_allowed(), decision.reason().to_owned())
        };
        let refused = |why: &str| (false, why.to_owned());
        assert!(ask("watch", "", "nodes", "n1", "metadata.name=n1").0);
        let why = "node 'n1' cannot read all nodes, only its own Node object";
        assert_eq!(ask("list", "", "nodes", "", ""), refused(why));
        let why = "node 'n1' cannot read 'n2', only its own Node object";
        assert_eq!(ask("get", "", "nodes", "n2", ""), refused(why));
        assert!(ask("watch", "", "pods", "", "spec.nodeName=n1").0);
        let why = "can only list/watch pods with spec.nodeName field selector";
        for selector in ["", "spec.nodeName=n2", "spec.nodeName!=n1", "spec.nodeName"] {
            assert_eq!(ask("list", "", "pods", "", selector), refused(why), "{selector}");
        }
        assert!(
            ask("deletecollection", "resource.k8s.io", "resourceslices", "", "spec.nodeName=n1").0
        );
        assert!(!ask("list", "resource.k8s.io", "resourceslices", "", "").0);
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
