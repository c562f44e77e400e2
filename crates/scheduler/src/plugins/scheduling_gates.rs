//! Gates hold a pod back until whoever put them there takes them away.

use crate::framework::Plugin;
use crate::pod_info::PodInfo;

/// Keeps gated pods out of the queue.
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), String> {
        if pod.gates.is_empty() {
            return Ok(());
        }
        // Go prints a list of strings between brackets, separated by blanks.
        Err(format!("waiting for scheduling gates: [{}]", pod.gates.join(" ")))
    }
}
