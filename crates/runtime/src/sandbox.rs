//! A sandbox as the agent sees it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cri::{NamespaceMode, PodNetworkRequest, PodSandboxState, SandboxId};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

use crate::handle::Handle;
use crate::record::{self, SandboxRecord};

/// A sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: SandboxId,
    pub(crate) directory: PathBuf,
    pub(crate) handle: Handle,
    /// Orders stopping and removal.
    pub(crate) operation: tokio::sync::Mutex<()>,
    record: Mutex<Arc<SandboxRecord>>,
    /// Whether there is a shim.
    alive: watch::Sender<bool>,
    /// The shim, when it is a child of this process and has to be reaped by it.
    child: Mutex<Option<Child>>,
    /// The shim, whoever started it.
    process: Mutex<Option<OwnedFd>>,
}

impl Sandbox {
    pub(crate) fn new(
        id: SandboxId,
        directory: PathBuf,
        handle: Handle,
        record: SandboxRecord,
    ) -> Self {
        Self {
            id,
            directory,
            handle,
            operation: tokio::sync::Mutex::default(),
            record: Mutex::new(Arc::new(record)),
            alive: watch::Sender::new(false),
            child: Mutex::new(None),
            process: Mutex::new(None),
        }
    }

    pub(crate) fn record(&self) -> Arc<SandboxRecord> {
        Arc::clone(&self.lock())
    }

    /// Changes the record, on disk first.
    pub(crate) fn change_record(
        &self,
        change: impl FnOnce(&mut SandboxRecord),
    ) -> std::io::Result<()> {
        let mut held = self.lock();
        let mut changed = SandboxRecord::clone(&held);
        change(&mut changed);
        record::save(&self.directory.join("sandbox.json"), &changed)?;
        *held = Arc::new(changed);
        Ok(())
    }

    pub(crate) fn state(&self) -> PodSandboxState {
        let record = self.record();
        if *self.alive.borrow() && record.complete && !record.stopped {
            PodSandboxState::Ready
        } else {
            PodSandboxState::NotReady
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }

    /// Notes that there is a shim.
    pub(crate) fn born(&self, child: Option<Child>) {
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = child;
        self.alive.send_replace(true);
    }

    /// Notes which process the shim says it is.
    pub(crate) fn found(&self, pid: i32) {
        let process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
    }

    /// Notes that the shim is gone. The kernel keeps its number until this was called.
    pub(crate) fn died(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Its socket is closed, so it has ended or is about to; killing makes sure.
        if let Some(process) = process {
            pidfd_send_signal(process, Signal::KILL).ok();
        }
        if let Some(mut child) = child {
            child.kill().ok();
            child.wait().ok();
        }
        self.alive.send_replace(false);
    }

    /// Resolves when there is no shim.
    pub(crate) async fn gone(&self) {
        let mut changes = self.alive.subscribe();
        // The sender lives as long as the sandbox.
        changes.wait_for(|alive| !alive).await.ok();
    }

    /// Whether the pod network is asked for it.
    pub(crate) fn has_own_network(&self) -> bool {
        let record = self.record();
        record.config.linux.security_context.namespace_options.network != NamespaceMode::Node
    }

    /// What the pod network is asked with.
    pub(crate) fn network_request(&self, pid: Option<u32>) -> PodNetworkRequest {
        let record = self.record();
        let metadata = &record.config.metadata;
        PodNetworkRequest {
            sandbox_id: self.id.clone(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            netns: pid.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net"))).unwrap_or_default(),
            port_mappings: record.config.port_mappings.clone(),
            annotations: record.config.annotations.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<SandboxRecord>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
