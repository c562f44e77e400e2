//! Which nodes the pod asks for.

use k8s_openapi::api::core::v1::NodeSelectorTerm;

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection, normalize_by_max};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// Filters by `nodeSelector` and required affinity, scores by preferred affinity.
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn filter(
        &self,
        _: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
        _: &Snapshot,
    ) -> Result<(), Rejection> {
        if admits(pod, node) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }

    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot, _: &[&NodeInfo]) -> bool {
        !pod.preferred_nodes.is_empty()
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        pod.preferred_nodes
            .iter()
            .filter(|term| term.weight != 0 && matches_term(&term.preference, node))
            .map(|term| i64::from(term.weight))
            .sum()
    }

    fn normalize(&self, _: &CycleState, _: &[&NodeInfo], scores: &mut [i64]) {
        normalize_by_max(scores, false);
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        use ClusterEvent::{NodeAdded, NodeLabels};
        matches!(event, NodeAdded | NodeLabels)
    }
}

/// Whether the node is one that the pod asks for.
pub fn admits(pod: &PodInfo, node: &NodeInfo) -> bool {
    let selected =
        pod.node_selector.iter().all(|(key, value)| node.label(key) == Some(value.as_str()));
    selected
        && pod.required_nodes.as_ref().is_none_or(|selector| {
            api::node_selector::takes(selector, &node.name, |key| node.label(key))
        })
}

fn matches_term(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    api::node_selector::takes_term(term, &node.name, |key| node.label(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(requirement: serde_json::Value, expected: bool) {
        let node = NodeInfo {
            name: "n1".to_owned(),
            labels: [("zone", "a"), ("size", "5")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into_iter()
                .collect(),
            ..NodeInfo::default()
        };
        let term = serde_json::json!({ "matchExpressions": [requirement] });
        let term: NodeSelectorTerm = serde_json::from_value(term).unwrap();
        assert_eq!(matches_term(&term, &node), expected, "{requirement}");
    }

    #[test]
    fn every_operator_is_known() {
        use serde_json::json;
        check(json!({"key": "zone", "operator": "In", "values": ["a", "b"]}), true);
        check(json!({"key": "zone", "operator": "In", "values": ["b"]}), false);
        check(json!({"key": "zone", "operator": "NotIn", "values": ["b"]}), true);
        check(json!({"key": "none", "operator": "NotIn", "values": ["b"]}), true);
        check(json!({"key": "zone", "operator": "Exists"}), true);
        check(json!({"key": "none", "operator": "DoesNotExist"}), true);
        check(json!({"key": "size", "operator": "Gt", "values": ["4"]}), true);
        check(json!({"key": "size", "operator": "Lt", "values": ["5"]}), false);
        check(json!({"key": "zone", "operator": "Gt", "values": ["4"]}), false);
    }

    #[test]
    fn an_empty_term_matches_nothing() {
        assert!(!matches_term(&NodeSelectorTerm::default(), &NodeInfo::default()));
    }
}
