//! NodeRestriction: a kubelet changes its own node and its own pods.
//!
//! Upstream: `plugin/pkg/admission/noderestriction`.

use meta::Status;
use serde_json::Value;

use crate::chain::Plugin;
use crate::refusal::forbidden;
use crate::request::{Operation, Request, View};

pub(crate) struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        _view: &dyn View,
    ) -> Result<(), Status> {
        if !request.user.is_in("system:nodes") {
            return Ok(());
        }
        let Some(node) = request.user.name.strip_prefix("system:node:") else { return Ok(()) };
        match (request.resource.group.as_str(), request.resource.resource.as_str()) {
            ("", "nodes") => check_node(request, node),
            ("", "pods") => check_pod(request, node, object, old),
            ("coordination.k8s.io", "leases") if request.namespace == "kube-node-lease" => {
                let is_own = request.name == node;
                let why = "can only access node lease with the same name as the requesting node";
                if is_own { Ok(()) } else { Err(forbidden(request, why)) }
            }
            _ => Ok(()),
        }
    }
}

fn check_node(request: &Request<'_>, node: &str) -> Result<(), Status> {
    if request.name == node && request.operation != Operation::Delete {
        return Ok(());
    }
    let why = format!("node {node:?} is not allowed to modify node {:?}", request.name);
    Err(forbidden(request, &why))
}

fn check_pod(
    request: &Request<'_>,
    node: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    let node_of = |pod: Option<&Value>| {
        pod.and_then(|pod| pod["spec"]["nodeName"].as_str()).unwrap_or_default().to_owned()
    };
    match (request.operation, request.subresource) {
        (Operation::Create, "") => {
            let is_mirror = object.is_some_and(|pod| {
                pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some()
            });
            if !is_mirror {
                let why = format!(
                    "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} \
                     can only create mirror pods"
                );
                return Err(forbidden(request, &why));
            }
            if node_of(object) != node {
                let why =
                    format!("node {node:?} can only create pods with spec.nodeName set to itself");
                return Err(forbidden(request, &why));
            }
            Ok(())
        }
        (Operation::Update, "status") | (Operation::Delete, _) if node_of(old) != node => {
            let what = match request.operation {
                Operation::Delete => "delete pods",
                _ => "update pod status for pods",
            };
            let why = format!("node {node:?} can only {what} with spec.nodeName set to itself");
            Err(forbidden(request, &why))
        }
        _ => Ok(()),
    }
}
