//! The CRI runtime service.
//!
//! What changes something runs as a task of its own: a caller that gives up cannot leave it half
//! done.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cri::{
    CgroupDriver, Code, Container, ContainerConfig, ContainerFilter, ContainerId, ContainerStats,
    ContainerStatus, CriError, DuplexStream, EventStream, ExecRequest, ExecSession,
    ExecSyncResponse, LinuxContainerResources, PodSandbox, PodSandboxConfig, PodSandboxFilter,
    PodSandboxStatus, RuntimeCondition, RuntimeConfig, RuntimeHandler, RuntimeService,
    RuntimeStatus, SandboxId, VersionInfo,
};
use futures::StreamExt;
use tokio::sync::broadcast::error::RecvError;

use crate::container;
use crate::protocol::Request;
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;
use crate::sandbox_ops::blocking;
use crate::stats;

type Result<T> = std::result::Result<T, CriError>;

/// What pods can be run with: the one way there is, by no name and by its own.
pub(crate) const HANDLERS: [&str; 2] = ["", "ironclad"];

#[async_trait]
impl RuntimeService for Runtime {
    async fn version(&self) -> Result<VersionInfo> {
        Ok(VersionInfo {
            version: "0.1.0".to_owned(),
            runtime_name: "ironclad".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId> {
        let (this, config) = (self.clone(), config.clone());
        detached("run sandbox", async move { this.run_sandbox(config).await }).await
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        let Some(sandbox) = self.0.sandbox(id) else { return Ok(()) };
        let this = self.clone();
        detached("stop sandbox", async move { this.stop_sandbox(&sandbox).await }).await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        let Some(sandbox) = self.0.sandbox(id) else { return Ok(()) };
        let this = self.clone();
        detached("remove sandbox", async move { this.remove_sandbox(&sandbox).await }).await
    }

    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<PodSandboxStatus> {
        let sandbox = self.0.require_sandbox(id)?;
        let record = sandbox.record();
        let config = &record.config;
        Ok(PodSandboxStatus {
            id: sandbox.id.clone(),
            metadata: config.metadata.clone(),
            state: sandbox.state(),
            created_at: record.created_at,
            ips: record.ips.clone(),
            namespace_options: config.linux.security_context.namespace_options.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            runtime_handler: config.runtime_handler.clone(),
        })
    }

    async fn list_pod_sandbox(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let sandboxes = self.0.sandboxes();
        let all = sandboxes.iter().map(|sandbox| list_entry(sandbox));
        Ok(all.filter(|sandbox| filter.matches(sandbox)).collect())
    }

    async fn create_container(
        &self,
        sandbox_id: &SandboxId,
        config: &ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<ContainerId> {
        let this = self.clone();
        let (id, config, sandbox) = (sandbox_id.clone(), config.clone(), sandbox_config.clone());
        detached("create container", async move { this.make_container(id, config, sandbox).await })
            .await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        let (this, id) = (self.clone(), id.clone());
        detached("start container", async move { this.run_container(&id).await }).await
    }

    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()> {
        self.end_container(id, timeout).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        let Some(container) = self.0.container(id) else { return Ok(()) };
        let this = self.clone();
        detached(
            "remove container",
            async move { this.remove_container_of(&container, None).await },
        )
        .await
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let containers = self.0.containers();
        let all = containers.iter().map(|container| container_entry(container));
        Ok(all.filter(|container| filter.matches(container)).collect())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        Ok(container_status(&*self.0.require_container(id)?))
    }

    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxContainerResources,
    ) -> Result<()> {
        self.change_resources(id, resources.clone()).await
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<()> {
        let container = self.0.require_container(id)?;
        let sandbox = self.0.require_sandbox(&container.sandbox_id)?;
        let request = Request::ReopenLog { container: id.to_string() };
        let called = sandbox.handle.call(request, Vec::new()).await;
        called
            .map(|answer| drop(answer.fds))
            .map_err(|error| error.into_cri("failed to reopen container log"))
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        cmd: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        self.run_command(id, cmd, timeout).await
    }

    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<ExecSession> {
        self.start_command(id, request, false).await
    }

    async fn attach(&self, id: &ContainerId, request: &ExecRequest) -> Result<ExecSession> {
        self.attach_to(id, request).await
    }

    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<Box<dyn DuplexStream>> {
        self.open_port(id, port).await
    }

    async fn container_stats(&self, id: &ContainerId) -> Result<ContainerStats> {
        let (inner, container) = (Arc::clone(&self.0), self.0.require_container(id)?);
        blocking(move || Ok(stats::of(&inner, &container))).await
    }

    async fn list_container_stats(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStats>> {
        let (inner, filter) = (Arc::clone(&self.0), filter.clone());
        blocking(move || {
            let containers = inner.containers();
            let wanted = containers.iter().filter(|c| filter.matches(&container_entry(c)));
            Ok(wanted.map(|container| stats::of(&inner, container)).collect())
        })
        .await
    }

    async fn update_runtime_config(&self, config: &RuntimeConfig) -> Result<()> {
        let mut cidr = self.0.pod_cidr.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        cidr.clone_from(&config.pod_cidr);
        Ok(())
    }

    async fn runtime_config(&self) -> Result<CgroupDriver> {
        Ok(CgroupDriver::Cgroupfs)
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let network = self.0.deps.network.ready();
        let condition = |name: &str, problem: Option<(&str, String)>| RuntimeCondition {
            r#type: name.to_owned(),
            status: problem.is_none(),
            reason: problem.as_ref().map(|(reason, _)| (*reason).to_owned()).unwrap_or_default(),
            message: problem.map(|(_, message)| message).unwrap_or_default(),
        };
        let network = network.err().map(|message| ("NetworkPluginNotReady", message));
        Ok(RuntimeStatus {
            conditions: vec![condition("RuntimeReady", None), condition("NetworkReady", network)],
            handlers: HANDLERS
                .map(|name| RuntimeHandler {
                    name: name.to_owned(),
                    recursive_read_only_mounts: true,
                    user_namespaces: has_user_namespaces(),
                })
                .into(),
            supplemental_groups_policy: true,
        })
    }

    fn events(&self) -> EventStream {
        let receiver = self.0.events.subscribe();
        let events = futures::stream::unfold(receiver, |mut receiver| async move {
            match receiver.recv().await {
                Ok(event) => Some((Ok(event), receiver)),
                Err(RecvError::Lagged(lost)) => Some((Err(lost), receiver)),
                Err(RecvError::Closed) => None,
            }
        });
        events.boxed()
    }
}

/// Whether pods can have users of their own: the kernel makes such namespaces, and has everything
/// that their file systems are made with, the last of it since 6.8.
fn has_user_namespaces() -> bool {
    let most = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>());
    let version = (parts.next(), parts.next());
    let (Some(Ok(major)), Some(Ok(minor))) = version else { return false };
    (major, minor) >= (6, 8) && most.trim().parse::<u64>().is_ok_and(|most| most > 0)
}

/// Runs to the end even when the caller gives up.
async fn detached<T: Send + 'static>(
    name: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match stdx::task::spawn(name, work).await {
        Ok(Some(result)) => result,
        Ok(None) => Err(CriError::new(Code::Internal, format!("{name}: panicked"))),
        Err(error) => Err(CriError::caused(Code::Canceled, name, error)),
    }
}

fn list_entry(sandbox: &Sandbox) -> PodSandbox {
    let record = sandbox.record();
    PodSandbox {
        id: sandbox.id.clone(),
        metadata: record.config.metadata.clone(),
        state: sandbox.state(),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.config.runtime_handler.clone(),
    }
}

fn container_entry(container: &container::Container) -> Container {
    let record = container.record();
    Container {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox_id.clone(),
        metadata: record.config.metadata.clone(),
        image: record.config.image.clone(),
        image_ref: record.image_ref.clone(),
        image_id: record.image_id.clone(),
        state: container.status().state,
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
    }
}

fn container_status(container: &container::Container) -> ContainerStatus {
    let (record, status) = (container.record(), container.status());
    let config = &record.config;
    ContainerStatus {
        id: container.id.clone(),
        metadata: config.metadata.clone(),
        state: status.state,
        created_at: record.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        image: config.image.clone(),
        image_ref: record.image_ref.clone(),
        image_id: record.image_id.clone(),
        reason: status.reason.to_owned(),
        message: status.message,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path: record.log_path.clone(),
        resources: Some(config.linux.resources.clone()),
        user: status.user.map(|(uid, gid, groups)| {
            (i64::from(uid), i64::from(gid), groups.into_iter().map(i64::from).collect())
        }),
        stop_signal: record.stop_signal.clone(),
    }
}
