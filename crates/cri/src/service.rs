//! The two services of CRI v1.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    AuthConfig, CgroupDriver, Container, ContainerConfig, ContainerFilter, ContainerId,
    ContainerStats, ContainerStatus, CriError, DuplexStream, EventStream, ExecSession, Image,
    ImageFsInfo, ImageSpec, LinuxContainerResources, PodSandbox, PodSandboxConfig,
    PodSandboxFilter, PodSandboxStatus, RuntimeConfig, RuntimeStatus, SandboxId, VersionInfo,
};

type Result<T> = std::result::Result<T, CriError>;

/// What came of a command run to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSyncResponse {
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// Its exit code, or 128 plus the signal that ended it.
    pub exit_code: i32,
}

/// A command to run in a container, or the streams of a container to attach to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The command; unused when attaching.
    pub cmd: Vec<String>,
    /// Whether the command gets a terminal; when attaching, whether the container has one.
    pub tty: bool,
    /// Whether input is wanted.
    pub stdin: bool,
    /// Whether standard output is wanted.
    pub stdout: bool,
    /// Whether standard error is wanted; not together with `tty`.
    pub stderr: bool,
}

/// Runs sandboxes and containers.
///
/// Calls about different objects run side by side; calls about the same object are ordered by
/// the runtime. Dropping a call's future may leave its work done, half-done or undone; repeating
/// the call, or removing the object, always ends right. Stopping and removing what does not
/// exist succeeds; every other call about it answers `NotFound`.
#[async_trait]
pub trait RuntimeService: Send + Sync + 'static {
    /// Who the runtime is.
    async fn version(&self) -> Result<VersionInfo>;

    /// Makes a sandbox and connects it to the network; it is ready when this returns.
    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId>;

    /// Ends every process of the sandbox at once and takes back its network.
    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()>;

    /// Stops the sandbox if need be, and removes it with all its containers.
    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()>;

    /// The status of a sandbox.
    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<PodSandboxStatus>;

    /// The sandboxes that match.
    async fn list_pod_sandbox(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>>;

    /// Makes a container in a sandbox without running it.
    async fn create_container(
        &self,
        sandbox_id: &SandboxId,
        config: &ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<ContainerId>;

    /// Runs a container that was made. When the process cannot be started, the container becomes
    /// `Exited` with reason `StartError`.
    async fn start_container(&self, id: &ContainerId) -> Result<()>;

    /// Sends the stop signal, waits for `timeout`, then kills. Returns when it has ended. A
    /// timeout of zero kills at once.
    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()>;

    /// Removes a container, killing it if it runs. Its log file stays.
    async fn remove_container(&self, id: &ContainerId) -> Result<()>;

    /// The containers that match.
    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>>;

    /// The status of a container.
    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus>;

    /// Changes the limits of a container; zero and empty fields stay as they are.
    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxContainerResources,
    ) -> Result<()>;

    /// Opens the log file anew, after it was rotated away.
    async fn reopen_container_log(&self, id: &ContainerId) -> Result<()>;

    /// Runs a command in a container to its end. A timeout of zero means none; when it passes,
    /// the command is killed and the call answers `DeadlineExceeded`.
    async fn exec_sync(
        &self,
        id: &ContainerId,
        cmd: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncResponse>;

    /// Starts a command in a container and answers its streams.
    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<ExecSession>;

    /// Answers the streams of the container itself.
    async fn attach(&self, id: &ContainerId, request: &ExecRequest) -> Result<ExecSession>;

    /// Connects to a port of `localhost` inside the sandbox.
    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<Box<dyn DuplexStream>>;

    /// What a container uses.
    async fn container_stats(&self, id: &ContainerId) -> Result<ContainerStats>;

    /// What the containers that match use.
    async fn list_container_stats(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStats>>;

    /// Takes note of the node's settings.
    async fn update_runtime_config(&self, config: &RuntimeConfig) -> Result<()>;

    /// How the runtime makes cgroups.
    async fn runtime_config(&self) -> Result<CgroupDriver>;

    /// Whether the runtime and the network are ready.
    async fn status(&self) -> Result<RuntimeStatus>;

    /// Everything that happens from now on.
    fn events(&self) -> EventStream;
}

/// Keeps images.
#[async_trait]
pub trait ImageService: Send + Sync + 'static {
    /// The images that match `filter`, or all of them.
    async fn list_images(&self, filter: Option<&ImageSpec>) -> Result<Vec<Image>>;

    /// The image of that name, digest or identifier, when it is present.
    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>>;

    /// Fetches an image and answers its identifier.
    async fn pull_image(
        &self,
        image: &ImageSpec,
        auth: Option<&AuthConfig>,
        sandbox_config: Option<&PodSandboxConfig>,
    ) -> Result<String>;

    /// Removes an image with all its names. One that is not present is no error.
    async fn remove_image(&self, image: &ImageSpec) -> Result<()>;

    /// What the images use.
    async fn image_fs_info(&self) -> Result<ImageFsInfo>;
}
