//! What the pod asks for must be left on the node; emptier nodes are better.

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection, SCORE_MAX};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// Filters by requests, scores by the share that is left (`LeastAllocated`).
pub struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(
        &self,
        _: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
        _: &Snapshot,
    ) -> Result<(), Rejection> {
        let mut rejection = Rejection { reasons: Vec::new(), resolvable: true };
        let on_node = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
        if on_node + 1 > node.pods_max {
            rejection.reasons.push("Too many pods".into());
        }
        let (wanted, used, total) = (&pod.requests, &node.requested, &node.allocatable);
        let mut check = |name: &str, wanted: i64, used: i64, total: i64| {
            if wanted > 0 && wanted > total - used {
                rejection.reasons.push(format!("Insufficient {name}").into());
                // More than the node has at all: nobody's departure helps.
                rejection.resolvable &= wanted <= total;
            }
        };
        check("cpu", wanted.milli_cpu, used.milli_cpu, total.milli_cpu);
        check("memory", wanted.memory, used.memory, total.memory);
        check(
            "ephemeral-storage",
            wanted.ephemeral_storage,
            used.ephemeral_storage,
            total.ephemeral_storage,
        );
        for (name, wanted) in &wanted.scalar {
            let used = used.scalar.get(name).copied().unwrap_or(0);
            let total = total.scalar.get(name).copied().unwrap_or(0);
            check(name, *wanted, used, total);
        }
        if rejection.reasons.is_empty() { Ok(()) } else { Err(rejection) }
    }

    fn pre_score(&self, _: &mut CycleState, _: &PodInfo, _: &Snapshot, _: &[&NodeInfo]) -> bool {
        true
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let left = |wanted: i64, used: i64, total: i64| {
            let used = used + wanted;
            if total <= 0 || used > total { 0 } else { (total - used) * SCORE_MAX / total }
        };
        let (pod, used, total) = (&pod.scored, &node.scored, &node.allocatable);
        let cpu = left(pod.milli_cpu, used.milli_cpu, total.milli_cpu);
        let memory = left(pod.memory, used.memory, total.memory);
        // A resource that the node does not have does not count.
        let counted = i64::from(total.milli_cpu > 0) + i64::from(total.memory > 0);
        if counted == 0 { 0 } else { (cpu + memory) / counted }
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        use ClusterEvent::{NodeAdded, NodeAllocatable, PodLeft};
        matches!(event, NodeAdded | NodeAllocatable | PodLeft)
    }
}
