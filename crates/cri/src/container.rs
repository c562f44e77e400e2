//! Containers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ContainerId, LinuxContainerResources, LinuxContainerSecurityContext, SandboxId};

/// Which container of the pod, and which attempt at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerMetadata {
    /// The container's name in the pod.
    pub name: String,
    /// How often it was made before.
    pub attempt: u32,
}

/// An image by name, digest or identifier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageSpec {
    /// What the runtime looks up: an image identifier or any reference.
    pub image: String,
    /// What the user wrote.
    pub user_specified_image: String,
    /// Annotations of the request.
    pub annotations: BTreeMap<String, String>,
    /// The runtime handler; empty means the default.
    pub runtime_handler: String,
}

impl From<&str> for ImageSpec {
    fn from(image: &str) -> Self {
        Self { image: image.to_owned(), user_specified_image: image.to_owned(), ..Self::default() }
    }
}

/// An environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Which mounts made later show up on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MountPropagation {
    /// None.
    #[default]
    Private,
    /// Those of the node show up in the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A range of user or group numbers as seen on both sides of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First number on the node.
    pub host_id: u32,
    /// First number in the container.
    pub container_id: u32,
    /// How many.
    pub length: u32,
}

/// A directory, file or image of the node in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is in the container.
    pub container_path: String,
    /// Where it is on the node; empty when `image` is given.
    pub host_path: String,
    /// Whether it is read-only.
    pub readonly: bool,
    /// Whether labels of a security module are to be changed.
    pub selinux_relabel: bool,
    /// Which mounts made later show up.
    pub propagation: MountPropagation,
    /// Whether everything mounted below it is read-only too; needs `readonly` and `Private`.
    pub recursive_read_only: bool,
    /// An image to mount instead of a path of the node.
    pub image: Option<ImageSpec>,
    /// The part of the image to mount.
    pub image_sub_path: String,
    /// How user numbers are mapped.
    pub uid_mappings: Vec<IdMapping>,
    /// How group numbers are mapped.
    pub gid_mappings: Vec<IdMapping>,
}

/// A device of the node in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where it is in the container.
    pub container_path: String,
    /// Where it is on the node.
    pub host_path: String,
    /// Any of `r`, `w` and `m`.
    pub permissions: String,
}

/// The Linux part of a container's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxContainerConfig {
    /// Its limits.
    pub resources: LinuxContainerResources,
    /// Its security context.
    pub security_context: LinuxContainerSecurityContext,
}

/// What a container is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Which container of the pod.
    pub metadata: ContainerMetadata,
    /// Its image, which must be present.
    pub image: ImageSpec,
    /// Replaces the image's entry point; empty means the image's.
    pub command: Vec<String>,
    /// Replaces the image's command; empty means the image's, unless `command` is given.
    pub args: Vec<String>,
    /// Replaces the image's working directory; empty means the image's.
    pub working_dir: String,
    /// Added to the image's environment.
    pub envs: Vec<KeyValue>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Devices of the node.
    pub devices: Vec<Device>,
    /// Labels, answered as they were given.
    pub labels: BTreeMap<String, String>,
    /// Annotations, answered as they were given.
    pub annotations: BTreeMap<String, String>,
    /// The log file below the sandbox's log directory.
    pub log_path: String,
    /// Whether there is a standard input to attach to.
    pub stdin: bool,
    /// Whether standard input ends when the first attached client leaves.
    pub stdin_once: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// The Linux part.
    pub linux: LinuxContainerConfig,
    /// Replaces the image's stop signal, for example `SIGUSR1`; empty means the image's.
    pub stop_signal: String,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, never started: leads to `Running` or, when the start fails, `Exited`.
    #[default]
    Created,
    /// Its process runs: leads to `Exited`.
    Running,
    /// Its process ended; it can only be removed.
    Exited,
    /// The runtime lost track of it.
    Unknown,
}

/// A container in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The identifier.
    pub id: ContainerId,
    /// Its sandbox.
    pub pod_sandbox_id: SandboxId,
    /// Which container of the pod.
    pub metadata: ContainerMetadata,
    /// The image as given.
    pub image: ImageSpec,
    /// The reference of the image it runs, by digest when there is one.
    pub image_ref: String,
    /// The identifier of the image it runs.
    pub image_id: String,
    /// The state.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given.
    pub annotations: BTreeMap<String, String>,
}

/// The status of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// The identifier.
    pub id: ContainerId,
    /// Which container of the pod.
    pub metadata: ContainerMetadata,
    /// The state.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its process started.
    pub started_at: Option<Timestamp>,
    /// When its process ended.
    pub finished_at: Option<Timestamp>,
    /// The exit code, or 128 plus the signal that ended it.
    pub exit_code: i32,
    /// The image as given.
    pub image: ImageSpec,
    /// The reference of the image it runs, by digest when there is one.
    pub image_ref: String,
    /// The identifier of the image it runs.
    pub image_id: String,
    /// Why it is in this state: `Completed`, `Error`, `OOMKilled`, `StartError`, `Unknown`.
    pub reason: String,
    /// More about it for people.
    pub message: String,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given.
    pub annotations: BTreeMap<String, String>,
    /// As given.
    pub mounts: Vec<Mount>,
    /// The log file, absolute.
    pub log_path: String,
    /// The limits in force.
    pub resources: Option<LinuxContainerResources>,
    /// The user it was started as, as numbers.
    pub user: Option<(i64, i64, Vec<i64>)>,
    /// The signal that stops it, for example `SIGTERM`.
    pub stop_signal: String,
}

/// Which containers to list; every given field must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// This one.
    pub id: Option<ContainerId>,
    /// In this state.
    pub state: Option<ContainerState>,
    /// Of this sandbox.
    pub pod_sandbox_id: Option<SandboxId>,
    /// With all of these labels.
    pub label_selector: BTreeMap<String, String>,
}

impl ContainerFilter {
    /// Whether `container` is selected.
    pub fn matches(&self, container: &Container) -> bool {
        self.id.as_ref().is_none_or(|id| *id == container.id)
            && self.state.is_none_or(|state| state == container.state)
            && self.pod_sandbox_id.as_ref().is_none_or(|id| *id == container.pod_sandbox_id)
            && self
                .label_selector
                .iter()
                .all(|(key, value)| container.labels.get(key) == Some(value))
    }
}
