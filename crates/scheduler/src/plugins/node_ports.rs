//! A port of a node can be had once.

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// Rejects nodes on which a host port of the pod is taken.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(
        &self,
        _: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
        _: &Snapshot,
    ) -> Result<(), Rejection> {
        if pod.host_ports.is_empty() {
            return Ok(());
        }
        let mut taken = node.pods.values().flat_map(|other| &other.host_ports);
        if taken.any(|taken| pod.host_ports.iter().any(|wanted| wanted.conflicts(taken))) {
            return Err(Rejection::resolvable(
                "node(s) didn't have free ports for the requested pod ports",
            ));
        }
        Ok(())
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::PodLeft)
    }
}
