//! NodeDeclaredFeatureValidator: what a bound pod comes to need, its node must have.
//!
//! Upstream: `plugin/pkg/admission/nodedeclaredfeatures`. Of its rules this holds the one that the
//! node must be there; no feature that upstream infers from a change is declared by our kubelet as
//! optional.

use meta::Status;
use serde_json::Value;

use crate::chain::Plugin;
use crate::refusal::forbidden;
use crate::request::{Operation, Request, View};

pub(crate) struct NodeDeclaredFeatureValidator;

impl Plugin for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        let is_pod = request.resource.group.is_empty() && request.resource.resource == "pods";
        let (Some(object), Some(old)) = (object, old) else { return Ok(()) };
        let resizes = is_pod
            && request.subresource == "resize"
            && request.operation == Operation::Update
            && object["spec"] != old["spec"];
        let node = old["spec"]["nodeName"].as_str().unwrap_or_default();
        if !resizes || node.is_empty() || view.get("", "nodes", "", node).is_some() {
            return Ok(());
        }
        Err(forbidden(request, &format!("node {node:?} not found")))
    }
}
