//! The runtime in the agent: what it holds, and how it is opened.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cgroup::Cgroups;
use clock::SharedClock;
use cri::{ContainerEvent, ContainerEventType, ContainerId, CriError, PodNetwork, SandboxId};
use image::Store;
use registry::Registry;
use tokio::sync::broadcast;

use crate::container::Container;
use crate::handle::{Answer, Follow, Handle, ShimCommand};
use crate::protocol::{Request, Response};
use crate::record::{self, ContainerRecord, SandboxRecord};
use crate::sandbox::Sandbox;
use crate::spec::ProcessState;

/// Events kept for a reader that is slow; one that is slower lists everything again.
const EVENTS_MAX: usize = 4096;

/// Where the runtime keeps things.
#[derive(Clone, Debug)]
pub struct Config {
    /// Records and writable layers; survives a reboot.
    pub root_dir: PathBuf,
    /// Sockets; may be lost with a reboot.
    pub state_dir: PathBuf,
    /// Where cgroups are mounted, usually `/sys/fs/cgroup`.
    pub cgroup_root: PathBuf,
    /// The cgroup of sandboxes for which none is asked.
    pub cgroup_default: String,
    /// How shims are run.
    pub shim: ShimCommand,
}

/// What the runtime works with.
#[derive(Clone)]
pub struct Deps {
    /// The images.
    pub images: Store,
    /// Brings further ones into the same store.
    pub registry: Registry,
    /// The pod network.
    pub network: Arc<dyn PodNetwork>,
    /// The time.
    pub clock: SharedClock,
}

/// Why the runtime could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directories cannot be used.
    #[error("failed to use {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What a crash left behind cannot be removed.
    #[error("failed to clean up sandbox {id}")]
    Cleanup {
        /// Which.
        id: SandboxId,
        /// Why not.
        #[source]
        source: CriError,
    },
}

/// The embedded runtime. Cheap to clone; all clones are the same runtime.
#[derive(Clone)]
pub struct Runtime(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) deps: Deps,
    pub(crate) cgroups: Cgroups,
    pub(crate) events: broadcast::Sender<ContainerEvent>,
    pub(crate) pod_cidr: Mutex<String>,
    objects: Mutex<Objects>,
}

#[derive(Default)]
struct Objects {
    sandboxes: BTreeMap<SandboxId, Arc<Sandbox>>,
    containers: BTreeMap<ContainerId, Arc<Container>>,
}

impl Runtime {
    /// Opens the runtime: finds the sandboxes of before, connects to their shims, and removes what
    /// was not finished.
    ///
    /// # Errors
    /// When its directories cannot be used, or something left behind cannot be removed.
    pub async fn open(config: Config, deps: Deps) -> Result<Self, OpenError> {
        for directory in [config.root_dir.join("sandboxes"), config.state_dir.clone()] {
            record::make_directory(&directory, 0o700)
                .map_err(|source| OpenError::Directory { path: directory, source })?;
        }
        let cgroups = Cgroups::detect(&config.cgroup_root);
        let runtime = Self(Arc::new(Inner {
            config,
            deps,
            cgroups,
            events: broadcast::Sender::new(EVENTS_MAX),
            pod_cidr: Mutex::default(),
            objects: Mutex::default(),
        }));
        runtime.recover().await?;
        Ok(runtime)
    }

    async fn recover(&self) -> Result<(), OpenError> {
        let directory = self.0.config.root_dir.join("sandboxes");
        let entries = fs::read_dir(&directory)
            .map_err(|source| OpenError::Directory { path: directory.clone(), source })?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.recover_sandbox(SandboxId::from(name), path).await?;
        }
        self.drop_leases();
        let images = self.0.deps.images.clone();
        // What a pull that was killed has left. Nobody waits for it.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = images.gc() {
                tracing::warn!(%error, "leftovers of images not removed");
            }
        }));
        Ok(())
    }

    async fn recover_sandbox(&self, id: SandboxId, path: PathBuf) -> Result<(), OpenError> {
        let Some(record) = record::load::<SandboxRecord>(&path.join("sandbox.json")) else {
            // Made but for its record, or removed but for its directory.
            return fs::remove_dir_all(&path)
                .map_err(|source| OpenError::Directory { path, source });
        };
        let unfinished = !record.complete;
        let stopping = record.stopped && !record.detached;
        let handle = Handle::new(self.0.socket(&id));
        let sandbox = Arc::new(Sandbox::new(id.clone(), path, handle, record));
        self.recover_containers(&sandbox)?;
        self.0.insert_sandbox(Arc::clone(&sandbox));
        if let Ok(answer) = sandbox.handle.call(Request::Subscribe, Vec::new()).await {
            self.watch(&sandbox, answer, None);
        } else {
            self.0.lost(&sandbox);
        }
        let cleanup = |source| OpenError::Cleanup { id: id.clone(), source };
        if unfinished {
            self.remove_sandbox(&sandbox).await.map_err(cleanup)?;
        } else if stopping {
            self.stop_sandbox(&sandbox).await.map_err(cleanup)?;
        }
        Ok(())
    }

    fn recover_containers(&self, sandbox: &Sandbox) -> Result<(), OpenError> {
        let directory = sandbox.directory.join("containers");
        for path in fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match record::load::<ContainerRecord>(&path.join("container.json")) {
                Some(record) => {
                    let id = ContainerId::from(name);
                    let container = Container::new(id, sandbox.id.clone(), path, record);
                    self.0.insert_container(Arc::new(container));
                }
                None => fs::remove_dir_all(&path)
                    .map_err(|source| OpenError::Directory { path, source })?,
            }
        }
        Ok(())
    }

    /// Ends leases of containers that are gone.
    fn drop_leases(&self) {
        let owners = self.0.deps.images.leases().unwrap_or_default();
        for owner in owners {
            let Some(id) = self.0.lease_container(&owner) else { continue };
            if self.0.container(&id).is_none() {
                // Tried again at the next start.
                self.0.deps.images.release(&owner).ok();
            }
        }
    }

    /// Follows what a shim tells, until it is gone.
    pub(crate) fn watch(
        &self,
        sandbox: &Arc<Sandbox>,
        answer: Answer,
        child: Option<std::process::Child>,
    ) {
        sandbox.born(child);
        self.0.told(sandbox, answer.response);
        let (inner, sandbox) = (Arc::clone(&self.0), Arc::clone(sandbox));
        // The task ends with the shim, at the latest when the sandbox is removed.
        drop(stdx::task::spawn("shim watcher", async move {
            let mut stream = answer.stream;
            loop {
                if let Ok(mut follow) = Follow::new(stream) {
                    while let Ok(Some(response)) = follow.next().await {
                        inner.told(&sandbox, response);
                    }
                }
                // A shim drops a subscriber that cannot keep up; one that is gone refuses.
                let Ok(answer) = sandbox.handle.call(Request::Subscribe, Vec::new()).await else {
                    break;
                };
                inner.told(&sandbox, answer.response);
                stream = answer.stream;
            }
            inner.lost(&sandbox);
        }));
    }
}

impl Inner {
    pub(crate) fn socket(&self, id: &SandboxId) -> PathBuf {
        self.config.state_dir.join(format!("{id}.sock"))
    }

    pub(crate) fn sandbox_directory(&self, id: &SandboxId) -> PathBuf {
        self.config.root_dir.join("sandboxes").join(id.as_str())
    }

    pub(crate) fn sandbox(&self, id: &SandboxId) -> Option<Arc<Sandbox>> {
        self.objects().sandboxes.get(id).cloned()
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.objects().sandboxes.values().cloned().collect()
    }

    pub(crate) fn container(&self, id: &ContainerId) -> Option<Arc<Container>> {
        self.objects().containers.get(id).cloned()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.objects().containers.values().cloned().collect()
    }

    pub(crate) fn containers_of(&self, sandbox: &SandboxId) -> Vec<Arc<Container>> {
        let mut containers = self.containers();
        containers.retain(|container| container.sandbox_id == *sandbox);
        containers
    }

    pub(crate) fn insert_sandbox(&self, sandbox: Arc<Sandbox>) {
        self.objects().sandboxes.insert(sandbox.id.clone(), sandbox);
    }

    /// Inserts it unless there is one of which `taken` says that it is in its place.
    pub(crate) fn insert_sandbox_unless(
        &self,
        sandbox: Arc<Sandbox>,
        taken: impl Fn(&Sandbox) -> bool,
    ) -> Option<SandboxId> {
        let mut objects = self.objects();
        if let Some(other) = objects.sandboxes.values().find(|other| taken(other)) {
            return Some(other.id.clone());
        }
        objects.sandboxes.insert(sandbox.id.clone(), sandbox);
        None
    }

    pub(crate) fn insert_container(&self, container: Arc<Container>) {
        self.objects().containers.insert(container.id.clone(), container);
    }

    pub(crate) fn forget_sandbox(&self, id: &SandboxId) {
        self.objects().sandboxes.remove(id);
    }

    pub(crate) fn forget_container(&self, id: &ContainerId) {
        self.objects().containers.remove(id);
    }

    /// Tells everybody who watches.
    pub(crate) fn publish(
        &self,
        sandbox: &Sandbox,
        container: Option<&ContainerId>,
        event_type: ContainerEventType,
    ) {
        let event = ContainerEvent {
            container_id: container.cloned(),
            pod_sandbox_id: sandbox.id.clone(),
            pod_uid: sandbox.record().config.metadata.uid.clone(),
            event_type,
            created_at: self.deps.clock.now(),
        };
        // An error means that nobody watches.
        self.events.send(event).ok();
    }

    /// Takes over what a shim told.
    pub(crate) fn told(&self, sandbox: &Sandbox, response: Response) {
        let processes = match response {
            Response::State { processes } => processes,
            Response::All { shim, processes } => {
                sandbox.found(shim);
                processes
            }
            _ => return,
        };
        for process in processes {
            let Some(container) = self.container(&process.id.as_str().into()) else { continue };
            for event in container.apply(&process) {
                self.publish(sandbox, Some(&container.id), event);
            }
        }
    }

    /// Notes that a sandbox has no shim, and so no processes.
    pub(crate) fn lost(&self, sandbox: &Sandbox) {
        sandbox.died();
        let now = self.deps.clock.now();
        for container in self.containers_of(&sandbox.id) {
            // Processes die with the shim; those of the node's process namespace need help.
            self.cgroups.kill(&container.record().cgroup);
            let last = record::load::<ProcessState>(&container.directory.join("state.json"));
            if container.lose(last.as_ref(), now) {
                self.publish(sandbox, Some(&container.id), ContainerEventType::Stopped);
            }
        }
        self.publish(sandbox, None, ContainerEventType::Stopped);
    }

    /// Whose lease it is; `None` for another runtime's, because stores may be shared.
    fn lease_container(&self, owner: &str) -> Option<ContainerId> {
        owner.strip_prefix(&self.lease_prefix()).map(ContainerId::from)
    }

    /// The owner of a container's lease.
    pub(crate) fn lease_owner(&self, container: &ContainerId) -> String {
        format!("{}{container}", self.lease_prefix())
    }

    fn lease_prefix(&self) -> String {
        let digest = image::Digest::of(self.config.root_dir.as_os_str().as_encoded_bytes());
        format!("{}-", &digest.hex()[..12])
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a directory that may not be there.
pub(crate) fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
