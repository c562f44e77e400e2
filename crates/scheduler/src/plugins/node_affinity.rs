//! Which nodes the pod asks for.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

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

    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
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
        use ClusterEvent::{NodeAdded, NodeLabels, PodChanged};
        matches!(event, NodeAdded | NodeLabels | PodChanged)
    }
}

/// Whether the node is one that the pod asks for.
pub fn admits(pod: &PodInfo, node: &NodeInfo) -> bool {
    let selected =
        pod.node_selector.iter().all(|(key, value)| node.label(key) == Some(value.as_str()));
    selected
        && pod.required_nodes.as_ref().is_none_or(|selector| {
            selector.node_selector_terms.iter().any(|term| matches_term(term, node))
        })
}

/// Whether the node has what one term wants; an empty term matches nothing.
fn matches_term(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    labels.iter().all(|wanted| matches(wanted, node.label(&wanted.key)))
        && fields.iter().all(|wanted| {
            wanted.key == "metadata.name" && matches(wanted, Some(node.name.as_str()))
        })
}

fn matches(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let among = |value: &str| values.iter().any(|wanted| wanted == value);
    let compare = |holds: fn(i64, i64) -> bool| {
        let (Some(value), [bound]) = (value, values) else { return false };
        matches!((value.parse(), bound.parse()), (Ok(a), Ok(b)) if holds(a, b))
    };
    match wanted.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|value, bound| value > bound),
        "Lt" => compare(|value, bound| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(requirement: serde_json::Value, expected: bool) {
        let node = NodeInfo {
            name: "n1".to_owned(),
            labels: [("zone", "a"), ("size", "5")].map(|(k, v)| (k.into(), v.into())).into(),
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
