//! What is kept of a pod of a simulated node.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// On the node, nothing runs. Leads to running or, deleted, to its end.
    Bound,
    /// Its containers run. Leads to a crash or its end.
    Running,
    /// Its containers wait to be started again.
    Crashed,
    /// It succeeded or failed, for good.
    Ended,
}

/// The pod's restart policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    Always,
    OnFailure,
    Never,
}

/// A container: all that its status repeats.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ContainerFacts {
    pub(super) name: Box<str>,
    pub(super) image: Box<str>,
    /// An init container that goes on running beside the others.
    pub(super) is_sidecar: bool,
}

/// A pod, reduced to what its node's decisions and its status need.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodFacts {
    /// The number of its node.
    pub(super) node: usize,
    pub(super) uid: Box<str>,
    pub(super) stage: Stage,
    pub(super) restart: Restart,
    pub(super) restarts: i32,
    /// Its grace, when it is being deleted.
    pub(super) grace: Option<Duration>,
    pub(super) host_network: bool,
    /// The address it has, or nothing.
    pub(super) address: Box<str>,
    pub(super) containers: Box<[ContainerFacts]>,
    pub(super) init_containers: Box<[ContainerFacts]>,
    /// Conditions that somebody else must set before it is ready, and whether they are.
    pub(super) gates: bool,
}

impl PodFacts {
    /// Reduces a pod that is on a simulated node.
    pub(super) fn new(node: usize, pod: Pod) -> Self {
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let deleted = pod.metadata.deletion_timestamp.is_some();
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let is_true = |wanted: &str| {
            let conditions = status.conditions.iter().flatten();
            conditions.into_iter().any(|c| c.type_ == wanted && c.status == "True")
        };
        let gates = spec.readiness_gates.iter().flatten();
        Self {
            node,
            uid: pod.metadata.uid.unwrap_or_default().into(),
            stage: stage(&status),
            restart: match spec.restart_policy.as_deref() {
                Some("Never") => Restart::Never,
                Some("OnFailure") => Restart::OnFailure,
                _ => Restart::Always,
            },
            restarts: restarts(&status),
            grace: deleted.then_some(grace),
            host_network: spec.host_network == Some(true),
            gates: gates.into_iter().all(|gate| is_true(&gate.condition_type)),
            address: status.pod_ip.unwrap_or_default().into(),
            containers: spec.containers.into_iter().map(container).collect(),
            init_containers: spec
                .init_containers
                .unwrap_or_default()
                .into_iter()
                .map(container)
                .collect(),
        }
    }

    /// Whether both are at the same point of their life: what a delay is counted in.
    pub(super) fn is_as(&self, (stage, restarts, grace): Point) -> bool {
        (self.stage, self.restarts, self.grace) == (stage, restarts, grace)
    }

    /// The point of its life.
    pub(super) fn point(&self) -> Point {
        (self.stage, self.restarts, self.grace)
    }
}

/// A point in the life of a pod.
pub(super) type Point = (Stage, i32, Option<Duration>);

fn container(container: Container) -> ContainerFacts {
    ContainerFacts {
        is_sidecar: container.restart_policy.as_deref() == Some("Always"),
        name: container.name.into(),
        image: container.image.unwrap_or_default().into(),
    }
}

fn stage(status: &PodStatus) -> Stage {
    let waits = status
        .container_statuses
        .iter()
        .flatten()
        .any(|container| container.state.as_ref().is_some_and(|state| state.waiting.is_some()));
    match status.phase.as_deref() {
        Some("Succeeded" | "Failed") => Stage::Ended,
        Some("Running") if waits => Stage::Crashed,
        Some("Running") => Stage::Running,
        _ => Stage::Bound,
    }
}

fn restarts(status: &PodStatus) -> i32 {
    let containers = status.container_statuses.iter().flatten();
    containers.map(|container| container.restart_count).max().unwrap_or(0)
}

#[cfg(test)]
impl PodFacts {
    pub(super) fn sample() -> Self {
        Self {
            node: 0,
            uid: "u".into(),
            stage: Stage::Bound,
            restart: Restart::Always,
            restarts: 0,
            grace: None,
            host_network: false,
            address: "".into(),
            containers: Box::new([ContainerFacts {
                name: "c".into(),
                image: "i".into(),
                is_sidecar: false,
            }]),
            init_containers: Box::new([]),
            gates: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_reduced_to_its_stage_and_policy() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "deletionGracePeriodSeconds": 30 },
            "spec": { "restartPolicy": "OnFailure", "readinessGates": [{ "conditionType": "g" }],
                "initContainers": [{ "name": "s", "restartPolicy": "Always" }],
                "containers": [{ "name": "c", "image": "i" }] },
            "status": { "phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [
                { "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 2,
                  "state": { "waiting": { "reason": "CrashLoopBackOff" } } }] },
        }))
        .unwrap();
        let facts = PodFacts::new(7, pod);
        assert_eq!((facts.stage, facts.restart), (Stage::Crashed, Restart::OnFailure));
        assert_eq!((facts.node, facts.restarts), (7, 2));
        assert_eq!(facts.grace, Some(Duration::from_secs(30)));
        assert!(!facts.gates && facts.init_containers[0].is_sidecar);
        assert_eq!(&*facts.address, "10.0.0.1");
    }
}
