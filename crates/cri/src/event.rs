//! What happens to containers, told when it happens.

use std::pin::Pin;

use futures::Stream;
use jiff::Timestamp;

use crate::{ContainerId, SandboxId};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerEventType {
    /// A container was made.
    Created,
    /// A container's process runs.
    Started,
    /// A container's process ended, or a sandbox was stopped or lost its shim.
    Stopped,
    /// A container or sandbox was removed.
    Deleted,
}

/// Something happened to a container, or to a sandbox when `container_id` is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    /// The container.
    pub container_id: Option<ContainerId>,
    /// Its sandbox.
    pub pod_sandbox_id: SandboxId,
    /// The UID of its pod, as the sandbox's metadata has it.
    pub pod_uid: String,
    /// What happened.
    pub event_type: ContainerEventType,
    /// When.
    pub created_at: Timestamp,
}

/// Events in the order in which they happened.
///
/// A reader that falls behind a bounded backlog gets `Err` with the number of events lost, and
/// then the events that are left; it must list everything again. Status calls made after an
/// event was read show at least that event.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<ContainerEvent, u64>> + Send>>;
