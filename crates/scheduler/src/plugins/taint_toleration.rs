//! Taints keep pods away that do not tolerate them.

use api::taints;
use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection, normalize_by_max};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// Rejects nodes with a taint that the pod does not tolerate and prefers those with fewer soft
/// ones.
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    fn filter(
        &self,
        _: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
        _: &Snapshot,
    ) -> Result<(), Rejection> {
        if tolerates_hard_taints(pod, node) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) had untolerated taint(s)"))
    }

    fn pre_score(
        &self,
        _: &mut CycleState,
        _: &PodInfo,
        _: &Snapshot,
        fitting: &[&NodeInfo],
    ) -> bool {
        fitting.iter().any(|node| node.taints.iter().any(is_soft))
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let intolerable = node.taints.iter().filter(|taint| is_soft(taint)).filter(|taint| {
            let soft = pod.tolerations.iter().filter(|toleration| {
                matches!(toleration.effect.as_deref(), None | Some("" | taints::PREFER_NO_SCHEDULE))
            });
            !soft.into_iter().any(|toleration| tolerates(toleration, taint))
        });
        i64::try_from(intolerable.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, _: &CycleState, _: &[&NodeInfo], scores: &mut [i64]) {
        normalize_by_max(scores, true);
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        use ClusterEvent::{NodeAdded, NodeTaints};
        matches!(event, NodeAdded | NodeTaints)
    }
}

fn is_soft(taint: &Taint) -> bool {
    taint.effect == taints::PREFER_NO_SCHEDULE
}

/// Whether the pod tolerates every taint that keeps pods away or drives them off.
pub fn tolerates_hard_taints(pod: &PodInfo, node: &NodeInfo) -> bool {
    node.taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), taints::NO_SCHEDULE | taints::NO_EXECUTE))
        .all(|taint| pod.tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether one toleration covers one taint: upstream `Toleration.ToleratesTaint`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => {
            toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default()
        }
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toleration: serde_json::Value, expected: bool) {
        let taint = Taint {
            key: "k".to_owned(),
            value: Some("v".to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        };
        let read: Toleration = serde_json::from_value(toleration.clone()).unwrap();
        assert_eq!(tolerates(&read, &taint), expected, "{toleration}");
    }

    #[test]
    fn tolerations_cover_taints_by_key_value_and_effect() {
        use serde_json::json;
        check(json!({"operator": "Exists"}), true);
        check(json!({"key": "k", "operator": "Exists"}), true);
        check(json!({"key": "k", "value": "v"}), true);
        check(json!({"key": "k", "operator": "Equal", "value": "w"}), false);
        check(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false);
        check(json!({"key": "other", "operator": "Exists"}), false);
    }
}
