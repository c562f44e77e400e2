//! Nodes on which all resources are used about equally are better.

use crate::framework::{CycleState, Plugin, SCORE_MAX};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::resources::Resources;
use crate::snapshot::Snapshot;

/// Scores by how close the shares of CPU and memory in use would be with the pod.
pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot, _: &[&NodeInfo]) -> bool {
        // A pod that asks for nothing leaves every balance as it is.
        pod.requests.milli_cpu > 0 || pod.requests.memory > 0
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let mut with = node.requested.clone();
        with.add(&pod.requests);
        balance(&with, &node.allocatable)
    }
}

/// 100 when both shares are equal, less the further they are apart.
fn balance(used: &Resources, total: &Resources) -> i64 {
    let share = |used: i64, total: i64| {
        (total > 0).then(|| (used.saturating_mul(10_000) / total).clamp(0, 10_000))
    };
    let cpu = share(used.milli_cpu, total.milli_cpu);
    let memory = share(used.memory, total.memory);
    match (cpu, memory) {
        // The standard deviation of two numbers is half their distance.
        (Some(cpu), Some(memory)) => SCORE_MAX - (cpu - memory).abs() / 2 / 100,
        _ => SCORE_MAX,
    }
}
