//! Cordoned nodes take no new pods.

use api::taints;
use k8s_openapi::api::core::v1::Taint;

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::plugins::taint_toleration::tolerates;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// Rejects cordoned nodes, unless the pod tolerates the taint of a cordon.
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(
        &self,
        _: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
        _: &Snapshot,
    ) -> Result<(), Rejection> {
        if !node.unschedulable {
            return Ok(());
        }
        let taint = Taint {
            key: taints::UNSCHEDULABLE.to_owned(),
            effect: taints::NO_SCHEDULE.to_owned(),
            ..Taint::default()
        };
        if pod.tolerations.iter().any(|toleration| tolerates(toleration, &taint)) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) were unschedulable"))
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        use ClusterEvent::{NodeAdded, NodeTaints};
        matches!(event, NodeAdded | NodeTaints)
    }
}
