//! Making, starting, stopping and removing containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::{
    Code, ContainerConfig, ContainerEventType, ContainerId, ContainerState, CriError,
    LinuxContainerResources, NamespaceMode, PodSandboxConfig, PodSandboxState, SandboxId,
};
use image::Image;

use crate::container::Container;
use crate::handle::ShimError;
use crate::plan::{self, Inputs};
use crate::protocol::Request;
use crate::record::{self, ContainerRecord, StartError};
use crate::runtime::{Inner, Runtime, remove_directory};
use crate::sandbox::Sandbox;
use crate::sandbox_ops::{blocking, new_id, storage};
use crate::spec::ContainerSpec;

/// A killed process ends at once unless the kernel itself hangs; upstream waits as long.
const KILL_TIMEOUT: Duration = Duration::from_secs(120);

impl Runtime {
    pub(crate) async fn make_container(
        &self,
        sandbox_id: SandboxId,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<ContainerId, CriError> {
        let sandbox = self.0.require_sandbox(&sandbox_id)?;
        // So that it is not removed meanwhile, with what is made in it.
        let _order = sandbox.operation.lock().await;
        if sandbox.state() != PodSandboxState::Ready {
            return Err(CriError::new(
                Code::Unknown,
                format!("sandbox container {:?} is not running", sandbox_id.as_str()),
            ));
        }
        let (inner, sandbox) = (Arc::clone(&self.0), Arc::clone(&sandbox));
        let container = blocking(move || {
            let id = ContainerId::from(new_id());
            let directory = sandbox.directory.join("containers").join(id.as_str());
            let made = inner.prepare_container(&sandbox, &id, &directory, config, &sandbox_config);
            if made.is_err() {
                // The first error is the one that matters; what is left goes with the next start.
                remove_directory(&directory).ok();
                inner.deps.images.release(&inner.lease_owner(&id)).ok();
            }
            let container = Container::new(id, sandbox.id.clone(), directory, made?);
            let container = Arc::new(container);
            inner.insert_container(Arc::clone(&container));
            inner.publish(&sandbox, Some(&container.id), ContainerEventType::Created);
            Ok(container)
        })
        .await?;
        Ok(container.id.clone())
    }

    pub(crate) async fn run_container(&self, id: &ContainerId) -> Result<(), CriError> {
        let container = self.0.require_container(id)?;
        let sandbox = self.0.require_sandbox(&container.sandbox_id)?;
        let _order = container.operation.lock().await;
        // It may have been removed meanwhile.
        self.0.require_container(id)?;
        if container.status().state != ContainerState::Created {
            return Err(CriError::new(
                Code::FailedPrecondition,
                format!(
                    "failed to start container {:?}: container is in {} state",
                    id.as_str(),
                    state_name(container.status().state)
                ),
            ));
        }
        let what = format!("failed to start container {:?}", id.as_str());
        let record = container.record();
        let (inner, cgroup) = (Arc::clone(&self.0), record.cgroup.clone());
        let config = record.config.clone();
        warn_about_oom_score(config.linux.resources.oom_score_adj);
        blocking(move || inner.make_cgroup(&cgroup, &config)).await?;
        let request = Request::Start { container: id.to_string() };
        match sandbox.handle.call(request, Vec::new()).await {
            Ok(answer) => {
                self.0.told(&sandbox, answer.response);
                Ok(())
            }
            Err(error) => {
                let error = match error {
                    ShimError::Failed(message) => ShimError::Failed(format!(
                        "unable to start container process: error during container init: {message}"
                    )),
                    other => other,
                };
                let error = error.into_cri(what.clone());
                let at = self.0.deps.clock.now();
                let message = error.message().to_owned();
                let mut failed = ContainerRecord::clone(&record);
                failed.start_error = Some(StartError { message: message.clone(), at });
                container.fail(message, at);
                container.set_record(failed).map_err(storage(&what))?;
                self.0.publish(&sandbox, Some(id), ContainerEventType::Stopped);
                Err(error)
            }
        }
    }

    pub(crate) async fn end_container(
        &self,
        id: &ContainerId,
        timeout: Duration,
    ) -> Result<(), CriError> {
        let Some(container) = self.0.container(id) else { return Ok(()) };
        let Some(sandbox) = self.0.sandbox(&container.sandbox_id) else { return Ok(()) };
        self.end(&container, &sandbox, timeout).await
    }

    async fn end(
        &self,
        container: &Container,
        sandbox: &Sandbox,
        timeout: Duration,
    ) -> Result<(), CriError> {
        if container.status().state != ContainerState::Running {
            return Ok(());
        }
        let what = format!("failed to stop container {:?}", container.id.as_str());
        if !timeout.is_zero() {
            let signal = signal_number(&container.record().stop_signal);
            self.signal(container, sandbox, signal, false, &what).await?;
            if self.ends_within(container, timeout).await {
                return Ok(());
            }
        }
        self.signal(container, sandbox, libc::SIGKILL, true, &what).await?;
        if self.ends_within(container, KILL_TIMEOUT).await {
            return Ok(());
        }
        Err(CriError::new(Code::DeadlineExceeded, format!("{what}: it does not die")))
    }

    async fn signal(
        &self,
        container: &Container,
        sandbox: &Sandbox,
        signal: i32,
        all: bool,
        what: &str,
    ) -> Result<(), CriError> {
        let request = Request::Kill { container: container.id.to_string(), signal, all };
        match sandbox.handle.call(request, Vec::new()).await {
            // It ended before the signal came.
            Ok(_) | Err(ShimError::NotRunning(_)) => Ok(()),
            Err(_) if !sandbox.is_alive() => Ok(()),
            Err(error) => Err(error.into_cri(what)),
        }
    }

    async fn ends_within(&self, container: &Container, timeout: Duration) -> bool {
        tokio::select! {
            () = container.ended() => true,
            () = self.0.deps.clock.sleep(timeout) => false,
        }
    }

    /// Removes a container. `sandbox` is given by who removes that too and stopped it already.
    pub(crate) async fn remove_container_of(
        &self,
        container: &Arc<Container>,
        sandbox: Option<&Arc<Sandbox>>,
    ) -> Result<(), CriError> {
        let _order = container.operation.lock().await;
        let owner = match sandbox {
            Some(sandbox) => Some(Arc::clone(sandbox)),
            None => self.0.sandbox(&container.sandbox_id),
        };
        if let Some(sandbox) = owner.as_ref().filter(|sandbox| sandbox.is_alive()) {
            self.end(container, sandbox, Duration::ZERO).await?;
            let request = Request::Forget { container: container.id.to_string() };
            // A shim that is gone has forgotten it too.
            sandbox.handle.call(request, Vec::new()).await.ok();
        }
        let (inner, removing) = (Arc::clone(&self.0), Arc::clone(container));
        blocking(move || inner.remove_container_files(&removing)).await?;
        self.0.forget_container(&container.id);
        if let Some(sandbox) = &owner {
            self.0.publish(sandbox, Some(&container.id), ContainerEventType::Deleted);
        }
        Ok(())
    }

    pub(crate) async fn change_resources(
        &self,
        id: &ContainerId,
        resources: LinuxContainerResources,
    ) -> Result<(), CriError> {
        let container = self.0.require_container(id)?;
        let _order = container.operation.lock().await;
        let what = format!("failed to update resources of container {:?}", id.as_str());
        let mut changed = ContainerRecord::clone(&container.record());
        merge(&mut changed.config.linux.resources, &resources);
        if container.status().state == ContainerState::Running {
            let (inner, cgroup) = (Arc::clone(&self.0), changed.cgroup.clone());
            let text = what.clone();
            blocking(move || {
                inner
                    .cgroups
                    .update(&cgroup, &resources)
                    .map_err(|error| CriError::caused(Code::Unknown, text, error))
            })
            .await?;
        }
        container.set_record(changed).map_err(storage(&what))
    }
}

impl Inner {
    pub(crate) fn require_sandbox(&self, id: &SandboxId) -> Result<Arc<Sandbox>, CriError> {
        self.sandbox(id).ok_or_else(|| {
            CriError::not_found(format!(
                "an error occurred when try to find sandbox {:?}: not found",
                id.as_str()
            ))
        })
    }

    pub(crate) fn require_container(&self, id: &ContainerId) -> Result<Arc<Container>, CriError> {
        self.container(id).ok_or_else(|| {
            CriError::not_found(format!(
                "an error occurred when try to find container {:?}: not found",
                id.as_str()
            ))
        })
    }

    fn prepare_container(
        &self,
        sandbox: &Sandbox,
        id: &ContainerId,
        directory: &Path,
        config: ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> Result<ContainerRecord, CriError> {
        let image = self.find_image(&config.image.image)?;
        let unreadable =
            |error| CriError::caused(Code::Unknown, "failed to get image config", error);
        let run = self.deps.images.config(&image).map_err(unreadable)?.config;
        let mut layers = self.lease_images(id, &config, &image)?;
        let lower = layers.remove(0);
        let mut spec = plan::plan(&Inputs {
            id: id.as_str(),
            config: &config,
            sandbox: sandbox_config,
            image: &run,
            hostname: &crate::etc::hostname(sandbox_config),
            sandbox_directory: &sandbox.directory,
            image_mounts: &layers,
            target_pid: self.target_pid(&config),
        })?;
        let parent = match sandbox_config.linux.cgroup_parent.as_str() {
            "" => self.default_cgroup(&sandbox.id),
            parent => parent.trim_end_matches('/').to_owned(),
        };
        let cgroup = format!("{parent}/{id}");
        spec.lower = lower;
        spec.directory = directory.to_path_buf();
        spec.cgroup_procs = self.cgroups.procs(&cgroup);
        spec.cgroup_mounts = self.cgroups.mounts(&cgroup);
        spec.oom_file = self.cgroups.oom_file(&cgroup);
        if !config.log_path.is_empty() && !sandbox_config.log_directory.is_empty() {
            spec.log_path = Path::new(&sandbox_config.log_directory).join(&config.log_path);
        }
        let record = ContainerRecord {
            created_at: self.deps.clock.now(),
            image_id: image.id.to_string(),
            image_ref: image.repo_digests.first().unwrap_or(&image.id.to_string()).clone(),
            cgroup,
            log_path: spec.log_path.display().to_string(),
            stop_signal: plan::stop_signal(&config, &run),
            start_error: None,
            config,
        };
        write_container(directory, &spec, &record)
            .map_err(storage("failed to create container"))?;
        Ok(record)
    }

    /// The layers of the container's image, and of those it mounts.
    fn lease_images(
        &self,
        id: &ContainerId,
        config: &ContainerConfig,
        image: &Image,
    ) -> Result<Vec<Vec<PathBuf>>, CriError> {
        let mut images = vec![image.clone()];
        for mount in config.mounts.iter().filter_map(|mount| mount.image.as_ref()) {
            images.push(self.find_image(&mount.image)?);
        }
        self.deps.images.lease(&self.lease_owner(id), &images).map_err(|error| {
            CriError::caused(Code::Unknown, "failed to use the image's layers", error)
        })
    }

    fn find_image(&self, name: &str) -> Result<Image, CriError> {
        let found = self.deps.images.find(name).map_err(|error| {
            CriError::caused(
                Code::InvalidArgument,
                format!("failed to resolve image {name:?}"),
                error,
            )
        })?;
        found.ok_or_else(|| {
            CriError::not_found(format!("failed to resolve image {name:?}: not found"))
        })
    }

    fn target_pid(&self, config: &ContainerConfig) -> Option<i32> {
        let options = &config.linux.security_context.namespace_options;
        if options.pid != NamespaceMode::Target {
            return None;
        }
        let status = self.container(options.target_id.as_ref()?)?.status();
        (status.state == ContainerState::Running).then_some(status.pid)
    }

    fn make_cgroup(&self, path: &str, config: &ContainerConfig) -> Result<(), CriError> {
        self.cgroups
            .create(path, &config.linux.resources, &plan::device_rules(config))
            .map_err(|error| CriError::caused(Code::Unknown, "failed to create cgroup", error))
    }

    fn remove_container_files(&self, container: &Container) -> Result<(), CriError> {
        let what = format!("failed to remove container {:?}", container.id.as_str());
        let failed = |error| CriError::caused(Code::Unknown, what.clone(), error);
        self.cgroups.remove(&container.record().cgroup).map_err(failed)?;
        let owner = self.lease_owner(&container.id);
        self.deps
            .images
            .release(&owner)
            .map_err(|error| CriError::caused(Code::Unknown, what.clone(), error))?;
        // Without its record the directory is rubbish, should this be interrupted.
        match fs::remove_file(container.directory.join("container.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(storage(&what)(error));
            }
            _ => {}
        }
        remove_directory(&container.directory).map_err(storage(&what))
    }
}

fn write_container(
    directory: &Path,
    spec: &ContainerSpec,
    record: &ContainerRecord,
) -> std::io::Result<()> {
    for part in ["upper", "work", "rootfs", "empty"] {
        // The rights of `upper` are those of the container's root directory.
        record::make_directory(&directory.join(part), 0o755)?;
    }
    if let Some(parent) = spec.log_path.parent() {
        fs::create_dir_all(parent)?;
    }
    record::save(&directory.join("spec.json"), spec)?;
    // Last: from here on the container exists.
    record::save(&directory.join("container.json"), record)
}

/// Given fields replace; zero and empty ones leave what was.
fn merge(into: &mut LinuxContainerResources, from: &LinuxContainerResources) {
    let number = |into: &mut i64, from: i64| {
        if from != 0 {
            *into = from;
        }
    };
    number(&mut into.cpu_period, from.cpu_period);
    number(&mut into.cpu_quota, from.cpu_quota);
    number(&mut into.cpu_shares, from.cpu_shares);
    number(&mut into.memory_limit_in_bytes, from.memory_limit_in_bytes);
    number(&mut into.memory_swap_limit_in_bytes, from.memory_swap_limit_in_bytes);
    number(&mut into.oom_score_adj, from.oom_score_adj);
    for (into, from) in
        [(&mut into.cpuset_cpus, &from.cpuset_cpus), (&mut into.cpuset_mems, &from.cpuset_mems)]
    {
        if !from.is_empty() {
            into.clone_from(from);
        }
    }
    if !from.hugepage_limits.is_empty() {
        into.hugepage_limits.clone_from(&from.hugepage_limits);
    }
    into.unified.extend(from.unified.clone());
}

/// Says once that this node cannot protect containers, when one is to be protected.
fn warn_about_oom_score(wanted: i64) {
    static WARNED: std::sync::Once = std::sync::Once::new();
    if wanted >= 0 {
        return;
    }
    let may = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.permitted.contains(rustix::thread::CapabilitySet::SYS_RESOURCE));
    if !may {
        WARNED.call_once(|| {
            tracing::warn!("cannot lower oom_score_adj without CAP_SYS_RESOURCE; going on without");
        });
    }
}

/// A signal by name, with or without `SIG`, or by number; the usual one when it is unknown.
fn signal_number(name: &str) -> i32 {
    use nix::sys::signal::Signal;
    if let Ok(number) = name.parse() {
        return number;
    }
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    full.parse::<Signal>().map_or(libc::SIGTERM, |signal| signal as i32)
}

/// The name of a state as CRI spells it.
pub(crate) fn state_name(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "CONTAINER_CREATED",
        ContainerState::Running => "CONTAINER_RUNNING",
        ContainerState::Exited => "CONTAINER_EXITED",
        ContainerState::Unknown => "CONTAINER_UNKNOWN",
    }
}
