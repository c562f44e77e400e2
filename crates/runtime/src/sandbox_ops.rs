//! Making, stopping and removing sandboxes.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use cri::{
    Code, ContainerEventType, CriError, IdMapping, NamespaceMode, PodSandboxConfig,
    PodSandboxMetadata, SandboxId, UserNamespace,
};

use crate::handle::Handle;
use crate::protocol::Request;
use crate::record::{self, SandboxRecord};
use crate::runtime::{Inner, Runtime, remove_directory};
use crate::runtime_service::HANDLERS;
use crate::sandbox::Sandbox;
use crate::spec::{IdRange, SandboxSpec, UserMappings};

/// Killed processes end at once, unless the kernel waits for a disk.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// What a shim said before it ended is read up to here.
const SHIM_LOG_BYTES_MAX: usize = 4096;

impl Runtime {
    pub(crate) async fn run_sandbox(
        &self,
        config: PodSandboxConfig,
    ) -> Result<SandboxId, CriError> {
        let handler = &config.runtime_handler;
        if !HANDLERS.contains(&handler.as_str()) {
            let why = format!("no runtime for {handler:?} is configured");
            let message = format!("failed to get sandbox runtime: {why}");
            return Err(CriError::new(Code::Unknown, message));
        }
        let id = SandboxId::from(new_id());
        let sandbox = self.new_sandbox(id.clone(), config);
        // Who wants to remove it, waits: otherwise things are made that nobody looks for any more.
        let _order = sandbox.operation.lock().await;
        self.reserve(&sandbox)?;
        let made = self.make_sandbox(&sandbox).await;
        if let Err(error) = made {
            // The first error is the one that matters; what is left goes with the next start.
            self.remove_ordered(&sandbox).await.ok();
            return Err(error);
        }
        self.0.publish(&sandbox, None, ContainerEventType::Started);
        Ok(id)
    }

    /// Takes the name, so that no two sandboxes are made for one attempt.
    fn reserve(&self, sandbox: &Arc<Sandbox>) -> Result<(), CriError> {
        let name = full_name(&sandbox.record().config.metadata);
        let taken = |other: &Sandbox| full_name(&other.record().config.metadata) == name;
        let Some(other) = self.0.insert_sandbox_unless(Arc::clone(sandbox), taken) else {
            return Ok(());
        };
        Err(CriError::new(
            Code::Unknown,
            format!(
                "failed to reserve sandbox name {name:?}: name {name:?} is reserved for {:?}",
                other.as_str()
            ),
        ))
    }

    fn new_sandbox(&self, id: SandboxId, config: PodSandboxConfig) -> Arc<Sandbox> {
        let record = SandboxRecord {
            config,
            created_at: self.0.deps.clock.now(),
            ips: Vec::new(),
            complete: false,
            stopped: false,
            detached: false,
        };
        let handle = Handle::new(self.0.socket(&id));
        let directory = self.0.sandbox_directory(&id);
        Arc::new(Sandbox::new(id, directory, handle, record))
    }

    async fn make_sandbox(&self, sandbox: &Arc<Sandbox>) -> Result<(), CriError> {
        let (inner, making) = (Arc::clone(&self.0), Arc::clone(sandbox));
        let child = blocking(move || inner.prepare_sandbox(&making)).await?;
        // The number stays the shim's until it is reaped, which only this process can do.
        let pid = child.id();
        let answer = match sandbox.handle.call(Request::Subscribe, Vec::new()).await {
            Ok(answer) => answer,
            Err(error) => {
                sandbox.born(Some(child));
                sandbox.died();
                let said = shim_log(sandbox);
                return Err(error.into_cri(format!("failed to start sandbox: {said}")));
            }
        };
        self.watch(sandbox, answer, Some(child));
        let mut ips = Vec::new();
        if sandbox.has_own_network() {
            let request = sandbox.network_request(Some(pid));
            ips = self.0.deps.network.attach(&request).await.map_err(|error| {
                CriError::caused(Code::Unknown, "failed to create sandbox", error)
            })?;
        }
        let complete = |record: &mut SandboxRecord| {
            record.ips = ips;
            record.complete = true;
        };
        sandbox.change_record(complete).map_err(storage("failed to create sandbox"))
    }

    pub(crate) async fn stop_sandbox(&self, sandbox: &Arc<Sandbox>) -> Result<(), CriError> {
        let _order = sandbox.operation.lock().await;
        self.stop_ordered(sandbox).await
    }

    async fn stop_ordered(&self, sandbox: &Arc<Sandbox>) -> Result<(), CriError> {
        let what = || format!("failed to stop sandbox {:?}", sandbox.id.as_str());
        if sandbox.directory.exists() {
            sandbox.change_record(|record| record.stopped = true).map_err(storage(&what()))?;
        }
        if sandbox.is_alive() {
            let shutdown = sandbox.handle.call(Request::Shutdown, Vec::new());
            tokio::select! {
                // Unreachable means that it just ended.
                _ = shutdown => {}
                // It hangs.
                () = self.0.deps.clock.sleep(SHUTDOWN_TIMEOUT) => {}
            }
            sandbox.died();
            sandbox.gone().await;
        }
        self.0.lost_containers(sandbox);
        if sandbox.has_own_network() && !sandbox.record().detached {
            let request = sandbox.network_request(None);
            let detached = self.0.deps.network.detach(&request).await;
            detached.map_err(|error| CriError::caused(Code::Unknown, what(), error))?;
            if sandbox.directory.exists() {
                sandbox.change_record(|record| record.detached = true).map_err(storage(&what()))?;
            }
        }
        Ok(())
    }

    pub(crate) async fn remove_sandbox(&self, sandbox: &Arc<Sandbox>) -> Result<(), CriError> {
        let _order = sandbox.operation.lock().await;
        self.remove_ordered(sandbox).await
    }

    async fn remove_ordered(&self, sandbox: &Arc<Sandbox>) -> Result<(), CriError> {
        self.stop_ordered(sandbox).await?;
        for container in self.0.containers_of(&sandbox.id) {
            self.remove_container_of(&container, Some(sandbox)).await?;
        }
        let (inner, removing) = (Arc::clone(&self.0), Arc::clone(sandbox));
        blocking(move || inner.remove_sandbox_files(&removing)).await?;
        self.0.forget_sandbox(&sandbox.id);
        self.0.publish(sandbox, None, ContainerEventType::Deleted);
        Ok(())
    }
}

impl Inner {
    /// Everything on disk, and the shim's process.
    fn prepare_sandbox(&self, sandbox: &Sandbox) -> Result<std::process::Child, CriError> {
        let record = sandbox.record();
        let config = &record.config;
        let prepare = || {
            fs::create_dir_all(sandbox.directory.join("containers"))?;
            fs::create_dir_all(sandbox.directory.join("shm"))?;
            record::save(&sandbox.directory.join("sandbox.json"), &*record)?;
            record::save(&sandbox.directory.join("spec.json"), &spec(&sandbox.id, config))?;
            for (name, contents) in crate::etc::files(config) {
                let path = sandbox.directory.join(name);
                fs::write(&path, contents)?;
                // The container's users read it, whatever this process's mask is.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
            }
            if !config.log_directory.is_empty() {
                fs::create_dir_all(&config.log_directory)?;
            }
            sandbox.handle.spawn(&self.config.shim, &sandbox.directory)
        };
        prepare().map_err(storage("failed to create sandbox"))
    }

    fn remove_sandbox_files(&self, sandbox: &Sandbox) -> Result<(), CriError> {
        let what = format!("failed to remove sandbox {:?}", sandbox.id.as_str());
        if sandbox.record().config.linux.cgroup_parent.is_empty() {
            let path = self.default_cgroup(&sandbox.id);
            self.cgroups
                .remove(&path)
                .map_err(|error| CriError::caused(Code::Unknown, what.clone(), error))?;
        }
        match fs::remove_file(self.socket(&sandbox.id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(storage(&what)(error));
            }
            _ => {}
        }
        remove_directory(&sandbox.directory).map_err(storage(&what))
    }

    /// Notes that no container of a stopped sandbox runs.
    fn lost_containers(&self, sandbox: &Sandbox) {
        if self
            .containers_of(&sandbox.id)
            .iter()
            .any(|container| container.status().state == cri::ContainerState::Running)
        {
            self.lost(sandbox);
        }
    }

    /// Where the containers' cgroups of a sandbox without a given parent are.
    pub(crate) fn default_cgroup(&self, id: &SandboxId) -> String {
        format!("{}/{id}", self.config.cgroup_default.trim_end_matches('/'))
    }
}

fn spec(id: &SandboxId, config: &PodSandboxConfig) -> SandboxSpec {
    let options = &config.linux.security_context.namespace_options;
    SandboxSpec {
        id: id.to_string(),
        hostname: config.hostname.clone(),
        own_network: options.network != NamespaceMode::Node,
        own_ipc: options.ipc != NamespaceMode::Node,
        shared_pid: options.pid == NamespaceMode::Pod,
        sysctls: config.linux.sysctls.clone(),
        users: options.users.as_ref().map(user_mappings),
    }
}

fn user_mappings(users: &UserNamespace) -> UserMappings {
    let ranges = |mappings: &[IdMapping]| {
        let range = |mapping: &IdMapping| IdRange {
            inside: mapping.container_id,
            outside: mapping.host_id,
            length: mapping.length,
        };
        mappings.iter().map(range).collect()
    };
    UserMappings { uids: ranges(&users.uids), gids: ranges(&users.gids) }
}

fn full_name(metadata: &PodSandboxMetadata) -> String {
    let PodSandboxMetadata { name, namespace, uid, attempt } = metadata;
    format!("{name}_{namespace}_{uid}_{attempt}")
}

fn shim_log(sandbox: &Sandbox) -> String {
    let mut bytes = fs::read(sandbox.directory.join("shim.log")).unwrap_or_default();
    bytes.truncate(SHIM_LOG_BYTES_MAX);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// 64 hexadecimal digits, as long as upstream's.
pub(crate) fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// Wraps an error of the file system.
pub(crate) fn storage(what: &str) -> impl FnOnce(io::Error) -> CriError {
    let what = what.to_owned();
    move |source| CriError::caused(Code::Unknown, what, source)
}

/// Runs what waits for the disk on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CriError> + Send + 'static,
) -> Result<T, CriError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(CriError::caused(Code::Internal, "a worker failed", error)),
    }
}
