//! The status of one container of a pod.

use cri::ContainerState as Runs;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, LinuxContainerUser, Pod,
    VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::lifecycle;
use crate::pod::observed::restart_count;
use crate::pod::spec::{self, Kind};
use crate::pod::status::Facts;

/// Why a container could not be run: reason and message of its waiting state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StartError {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// How a container is named in the API: with the runtime's name in front.
pub(crate) fn container_id(id: &cri::ContainerId) -> String {
    format!("ironclad://{id}")
}

/// The status.
pub(crate) fn status(
    pod: &Pod,
    kind: Kind,
    container: &Container,
    facts: &Facts<'_>,
) -> ContainerStatus {
    let Some(latest) = facts.observed.latest(&container.name) else {
        return without_container(pod, container, facts);
    };
    let mut status = from_runtime(container, latest, facts);
    if latest.state == Runs::Running && lifecycle::is_to_be_resized(pod, container, latest) {
        // What it has is still what it had.
        let before = known(container, facts);
        status.resources = before.and_then(|before| before.resources.clone());
    }
    if let Some(before) = facts.observed.before_latest(&container.name) {
        status.last_state = Some(terminated(before, facts));
    }
    match latest.state {
        Runs::Running => running(kind, container, latest, facts, &mut status),
        Runs::Exited => exited(pod, kind, container, latest, facts, &mut status),
        Runs::Created | Runs::Unknown => {
            status.state = Some(waiting(pod, container, facts));
        }
    }
    status
}

fn from_runtime(
    container: &Container,
    latest: &cri::ContainerStatus,
    facts: &Facts<'_>,
) -> ContainerStatus {
    ContainerStatus {
        name: container.name.clone(),
        container_id: Some(container_id(&latest.id)),
        image: if latest.image.user_specified_image.is_empty() {
            latest.image.image.clone()
        } else {
            latest.image.user_specified_image.clone()
        },
        image_id: if latest.image_ref.is_empty() {
            latest.image_id.clone()
        } else {
            latest.image_ref.clone()
        },
        restart_count: restart_count(latest),
        started: Some(false),
        ready: false,
        last_state: known(container, facts)
            .filter(|before| before.restart_count == restart_count(latest))
            .and_then(|before| before.last_state.clone())
            .or(Some(ContainerState::default())),
        volume_mounts: volume_mounts(container),
        user: latest.user.as_ref().map(|(uid, gid, groups)| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: *uid,
                gid: *gid,
                supplemental_groups: Some(groups.clone()),
            }),
        }),
        resources: container.resources.clone().map(|mut resources| {
            resources.claims = None;
            resources
        }),
        allocated_resources: container.resources.as_ref().and_then(|r| r.requests.clone()),
        // Pods have one only where its feature gate is open, and then it is told.
        stop_signal: container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.stop_signal.as_ref())
            .map(|_| latest.stop_signal.clone()),
        ..ContainerStatus::default()
    }
}

/// What was last told of the container.
fn known<'a>(container: &Container, facts: &'a Facts<'_>) -> Option<&'a ContainerStatus> {
    let previous = facts.previous;
    [
        &previous.container_statuses,
        &previous.init_container_statuses,
        &previous.ephemeral_container_statuses,
    ]
    .into_iter()
    .flat_map(|list| list.iter().flatten())
    .find(|status| status.name == container.name)
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    Some(
        mounts
            .iter()
            .map(|mount| VolumeMountStatus {
                name: mount.name.clone(),
                mount_path: mount.mount_path.clone(),
                read_only: mount.read_only,
                recursive_read_only: (mount.read_only == Some(true))
                    .then(|| mount.recursive_read_only.clone())
                    .flatten()
                    .or_else(|| (mount.read_only == Some(true)).then(|| "Disabled".to_owned())),
                ..VolumeMountStatus::default()
            })
            .collect(),
    )
}

fn running(
    kind: Kind,
    container: &Container,
    latest: &cri::ContainerStatus,
    facts: &Facts<'_>,
    status: &mut ContainerStatus,
) {
    status.state = Some(ContainerState {
        running: Some(ContainerStateRunning { started_at: latest.started_at.map(Time) }),
        ..ContainerState::default()
    });
    let started = (facts.started)(latest);
    status.started = Some(started);
    status.ready = match kind {
        Kind::Regular => started && (facts.ready)(latest),
        Kind::Init => api::pod::is_sidecar(container) && started && (facts.ready)(latest),
        Kind::Ephemeral => false,
    };
}

fn exited(
    pod: &Pod,
    kind: Kind,
    container: &Container,
    latest: &cri::ContainerStatus,
    facts: &Facts<'_>,
    status: &mut ContainerStatus,
) {
    let ended = terminated(latest, facts);
    let again = !facts.stopping && spec::restarts(pod, kind, container, latest.exit_code);
    match facts.start_errors.get(&container.name).filter(|_| again) {
        Some(error) => {
            status.last_state = Some(ended);
            status.state = Some(waiting_because(error));
        }
        None if kind != Kind::Ephemeral && facts.is_restarting_all(pod) => {
            status.last_state = Some(ended);
            status.state = Some(waiting_for("RestartingAllContainers"));
        }
        None => status.state = Some(ended),
    }
    status.ready = kind == Kind::Init && !api::pod::is_sidecar(container) && latest.exit_code == 0;
}

fn terminated(container: &cri::ContainerStatus, facts: &Facts<'_>) -> ContainerState {
    let message = (facts.message)(container);
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(&container.id)),
            exit_code: container.exit_code,
            reason: (!container.reason.is_empty()).then(|| container.reason.clone()),
            message: (!message.is_empty()).then_some(message),
            started_at: container.started_at.or(Some(container.created_at)).map(Time),
            finished_at: container.finished_at.map(Time),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

/// Cuts the last words of a container to so many bytes.
pub(crate) fn shorten_messages(status: &mut ContainerStatus, bytes: usize) {
    for state in [&mut status.state, &mut status.last_state].into_iter().flatten() {
        if let Some(message) = state.terminated.as_mut().and_then(|t| t.message.as_mut()) {
            let mut end = message.len().min(bytes);
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
        }
    }
}

fn without_container(pod: &Pod, container: &Container, facts: &Facts<'_>) -> ContainerStatus {
    let before = known(container, facts);
    if let Some(before) = before {
        // Its container was removed: what was known of it stays.
        let removed = (facts.removed)(&container.name);
        if before.state.as_ref().is_some_and(|s| s.terminated.is_some() && !removed) {
            return before.clone();
        }
        if before.state.as_ref().is_some_and(|s| s.running.is_some() && !removed) {
            return lost(before, container, facts);
        }
    }
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        state: Some(waiting(pod, container, facts)),
        last_state: before
            .and_then(|before| before.last_state.clone())
            .or(Some(ContainerState::default())),
        restart_count: before.map_or(0, |before| before.restart_count),
        volume_mounts: volume_mounts(container),
        ..ContainerStatus::default()
    }
}

/// A container that ran and of which the runtime knows nothing any more.
fn lost(before: &ContainerStatus, container: &Container, facts: &Facts<'_>) -> ContainerStatus {
    let mut status = before.clone();
    let unknown = ContainerState {
        terminated: Some(ContainerStateTerminated {
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(
                "The container could not be located when the pod was terminated".to_owned(),
            ),
            exit_code: 137,
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    };
    status.ready = false;
    status.started = Some(false);
    if facts.stopping {
        status.state = Some(unknown);
    } else {
        status.last_state = Some(unknown);
        status.restart_count += 1;
        status.state = Some(match facts.start_errors.get(&container.name) {
            Some(error) => waiting_because(error),
            None => waiting_for("ContainerCreating"),
        });
    }
    status
}

fn waiting(pod: &Pod, container: &Container, facts: &Facts<'_>) -> ContainerState {
    if let Some(error) = facts.start_errors.get(&container.name) {
        return waiting_because(error);
    }
    let initializing = !spec::init_containers(pod).is_empty();
    waiting_for(if initializing { "PodInitializing" } else { "ContainerCreating" })
}

fn waiting_because(error: &StartError) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(error.reason.to_owned()),
            message: (!error.message.is_empty()).then(|| error.message.clone()),
        }),
        ..ContainerState::default()
    }
}

fn waiting_for(reason: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message: None }),
        ..ContainerState::default()
    }
}
