//! PodTopologyLabels: pods get the zone and the region of their node.
//!
//! Upstream: `plugin/pkg/admission/podtopologylabels`.

use meta::Status;
use serde_json::Value;

use crate::chain::Plugin;
use crate::request::{Operation, Request, View};

const COPIED: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// What the plugin was told by its feature gate.
pub(crate) struct PodTopologyLabels {
    pub(crate) is_enabled: bool,
}

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        _old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        let is_pod = request.resource.group.is_empty() && request.resource.resource == "pods";
        if !self.is_enabled || !is_pod || request.operation != Operation::Create {
            return Ok(());
        }
        // Pods that are made where they shall run, and pods that are bound.
        let node = match request.subresource {
            "" => &object["spec"]["nodeName"],
            "binding" if object["target"]["kind"] == "Node" => &object["target"]["name"],
            _ => return Ok(()),
        };
        let Some(node) = node.as_str().filter(|node| !node.is_empty()) else { return Ok(()) };
        let Some(node) = view.get("", "nodes", "", node) else { return Ok(()) };
        let node: Value = node.decode().unwrap_or_default();
        for key in COPIED {
            if let Some(value) = node["metadata"]["labels"].get(key) {
                object["metadata"]["labels"][key] = value.clone();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Cluster, attempt};

    fn labels(is_enabled: bool, subresource: &'static str, mut object: Value) -> Value {
        let node = json!({"metadata": {"name": "n", "labels": {
            "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r",
            "other": "o"}}});
        let cluster = Cluster::default().with("nodes", &[node]);
        let create = attempt("", "pods", Operation::Create).of(subresource);
        let plugin = PodTopologyLabels { is_enabled };
        create.admit(&plugin, &mut object, None, &cluster).unwrap();
        object["metadata"]["labels"].clone()
    }

    #[test]
    fn a_binding_carries_the_labels_of_the_node() {
        let binding = |kind: &str| json!({"target": {"kind": kind, "name": "n"}});
        let both =
            json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
        assert_eq!(labels(true, "binding", binding("Node")), both);
        assert_eq!(labels(true, "binding", binding("Thing")), Value::Null);
        assert_eq!(labels(false, "binding", binding("Node")), Value::Null);
    }

    #[test]
    fn a_pod_made_on_a_node_has_its_labels_and_no_other() {
        let pod = |node: &str| {
            json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "mine"}},
                "spec": {"nodeName": node}})
        };
        let found = labels(true, "", pod("n"));
        assert_eq!(found["topology.kubernetes.io/zone"], "z");
        assert_eq!(found["topology.kubernetes.io/region"], "r");
        let found = labels(true, "", pod("absent"));
        assert_eq!(found, json!({"topology.kubernetes.io/zone": "mine"}));
        let found = labels(true, "", json!({"metadata": {"labels": {"a": "b"}}, "spec": {}}));
        assert_eq!(found, json!({"a": "b"}));
    }
}
