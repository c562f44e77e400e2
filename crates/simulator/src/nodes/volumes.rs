//! What nodes do about volumes: use them, and remove their directories.

use serde_json::{Value, json};

use super::{Nodes, text};
use crate::storage::claims_of;

/// On a node: where its volumes are, which are to be removed, and which of those are.
pub(super) const DIRECTORY: &str = "ironclad/local-path-directory";
/// On a node whose volumes are attached by a controller.
pub(super) const ATTACHED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
const REMOVE: &str = "ironclad/local-path-remove";
const REMOVED: &str = "ironclad/local-path-removed";

impl Nodes {
    /// Whether all volumes of a pod can be used. That one is on another node is a finding.
    pub(super) fn has_volumes(&self, pod: &Value) -> bool {
        let mut api = self.world.api();
        let (namespace, name) = (text(&pod["metadata"]["namespace"]), &pod["metadata"]["name"]);
        let node = text(&pod["spec"]["nodeName"]);
        for claim in claims_of(pod) {
            let Some(claim) = api.get("/persistentvolumeclaims", namespace, &claim) else {
                return false;
            };
            if claim["status"]["phase"] != "Bound"
                || claim["metadata"]["deletionTimestamp"].is_string()
            {
                return false;
            }
            let volume = text(&claim["spec"]["volumeName"]).to_owned();
            let Some(object) = api.get("/persistentvolumes", "", &volume) else { return false };
            let terms =
                "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0";
            let place = object.pointer(terms).map(text).unwrap_or(node).to_owned();
            if object["spec"]["claimRef"]["uid"] != claim["metadata"]["uid"] {
                return false;
            }
            if place != node {
                api.checks
                    .violated(format!("pod {name} is on {node}, its volume {volume} on {place}"));
                return false;
            }
        }
        true
    }

    /// Removes the directories that a node is told to remove.
    pub(super) fn clear(&self, number: usize) {
        let name = self.nodes[number].name.clone();
        let annotations = {
            let api = self.world.api();
            api.get("/nodes", "", &name).map(|node| node["metadata"]["annotations"].clone())
        };
        let annotations = annotations.unwrap_or_default();
        let told = |key: &str| annotations[key].clone();
        if told(REMOVE) != told(REMOVED) {
            let change = json!({ "metadata": { "annotations": { REMOVED: told(REMOVE) } } });
            self.world.write("kubelet", "MERGE", &format!("/api/v1/nodes/{name}"), &change).ok();
        }
    }
}
