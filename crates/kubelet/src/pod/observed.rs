//! What the runtime knows of a pod.

use cri::{
    ContainerFilter, ContainerId, ContainerState, ContainerStatus, CriError, PodSandboxFilter,
    PodSandboxState, PodSandboxStatus, RuntimeService,
};
use jiff::Timestamp;

use crate::labels;

/// A pod's sandboxes and containers at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Newest first.
    pub(crate) sandboxes: Vec<PodSandboxStatus>,
    /// Newest first.
    pub(crate) containers: Vec<ContainerStatus>,
}

impl Observed {
    /// Asks the runtime. What vanishes in between is left out.
    pub(crate) async fn read(runtime: &dyn RuntimeService, uid: &str) -> Result<Self, CriError> {
        let selector = [(labels::POD_UID.to_owned(), uid.to_owned())];
        let mut observed = Self::default();
        let filter =
            PodSandboxFilter { label_selector: selector.clone().into(), ..Default::default() };
        for sandbox in runtime.list_pod_sandbox(&filter).await? {
            match runtime.pod_sandbox_status(&sandbox.id).await {
                Ok(status) => observed.sandboxes.push(status),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let filter = ContainerFilter { label_selector: selector.into(), ..Default::default() };
        for container in runtime.list_containers(&filter).await? {
            match runtime.container_status(&container.id).await {
                Ok(status) => observed.containers.push(status),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        observed.sandboxes.sort_by_key(|sandbox| {
            std::cmp::Reverse((sandbox.created_at, sandbox.metadata.attempt))
        });
        observed.containers.sort_by_key(|container| {
            std::cmp::Reverse((container.created_at, container.metadata.attempt))
        });
        Ok(observed)
    }

    /// The sandbox that can hold running containers.
    pub(crate) fn ready_sandbox(&self) -> Option<&PodSandboxStatus> {
        self.sandboxes.first().filter(|sandbox| sandbox.state == PodSandboxState::Ready)
    }

    /// The newest container of a name.
    pub(crate) fn latest(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|container| container.metadata.name == name)
    }

    /// The newest container of a name that has ended, after the newest one.
    pub(crate) fn before_latest(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers
            .iter()
            .filter(|container| container.metadata.name == name)
            .skip(1)
            .find(|container| container.state == ContainerState::Exited)
    }

    /// What runs.
    pub(crate) fn running(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.iter().filter(|container| container.state == ContainerState::Running)
    }

    /// A container by identifier.
    pub(crate) fn by_id(&self, id: &ContainerId) -> Option<&ContainerStatus> {
        self.containers.iter().find(|container| container.id == *id)
    }
}

/// How often a container was restarted before this one.
pub(crate) fn restart_count(container: &ContainerStatus) -> i32 {
    let noted = container.annotations.get(labels::RESTART_COUNT).and_then(|text| text.parse().ok());
    noted.unwrap_or_else(|| i32::try_from(container.metadata.attempt).unwrap_or(i32::MAX))
}

/// When a container ended, or was made when that is not known.
pub(crate) fn ended_at(container: &ContainerStatus) -> Timestamp {
    container.finished_at.unwrap_or(container.created_at)
}
