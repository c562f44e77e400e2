//! Questions about pods that several components ask.

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition};

/// Condition type: all containers with a readiness probe passed it, and all gates are open.
pub const READY: &str = "Ready";
/// Condition type: all containers are ready.
pub const CONTAINERS_READY: &str = "ContainersReady";
/// Condition type: all init containers ended well.
pub const INITIALIZED: &str = "Initialized";
/// Condition type: a node was found.
pub const POD_SCHEDULED: &str = "PodScheduled";
/// Condition type: the sandbox and its network exist.
pub const READY_TO_START_CONTAINERS: &str = "PodReadyToStartContainers";
/// A container's end has all of them begin anew.
pub const ALL_CONTAINERS_RESTARTING: &str = "AllContainersRestarting";
/// A resize is not granted.
pub const RESIZE_PENDING: &str = "PodResizePending";
/// A resize is granted, and not in force everywhere.
pub const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";
/// Condition type: something is about to end the pod.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// A condition of the pod's status.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the pod's Ready condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, READY).is_some_and(|condition| condition.status == "True")
}

/// `status.phase`, empty when absent.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether the pod has ended: it will never run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod is being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither ended nor being deleted: the pods a controller counts on.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

/// The node the pod is bound to, empty when it is not.
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// Whether an init container is a sidecar: it goes on running beside the pod's containers.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;

    use super::*;

    fn pod(phase: &str) -> Pod {
        Pod {
            status: Some(PodStatus {
                phase: Some(phase.to_owned()),
                conditions: Some(vec![PodCondition {
                    type_: READY.to_owned(),
                    status: "True".to_owned(),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_pod_that_has_ended_is_not_active() {
        assert!(is_active(&pod("Running")));
        assert!(!is_active(&pod("Failed")));
        assert!(!is_active(&pod("Succeeded")));
    }

    #[test]
    fn readiness_is_the_condition() {
        assert!(is_ready(&pod("Running")));
        assert!(!is_ready(&Pod::default()));
    }
}
