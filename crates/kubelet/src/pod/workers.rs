//! The workers of all pods: who exists, and how each is woken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, watch};

use crate::kubelet::{Kubelet, lock};
use crate::pod::spec;
use crate::pod::status::Verdict;
use crate::pod::worker::Worker;

/// What the API wants of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    /// The newest version of the pod.
    pub(crate) pod: Arc<Pod>,
    /// The object is gone from the API.
    pub(crate) gone: bool,
}

/// How a worker is told something. Clones tell the same one.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    desired: Arc<watch::Sender<Desired>>,
    wake: Arc<Notify>,
    objects_changed: Arc<AtomicBool>,
    eviction: Arc<Mutex<Option<Verdict>>>,
}

impl Handle {
    /// The pod has to go.
    pub(crate) fn evict(&self, verdict: Verdict) {
        *lock(&self.eviction) = Some(verdict);
        self.wake();
    }

    /// Why it has to go, if nobody has asked before.
    pub(crate) fn take_eviction(&self) -> Option<Verdict> {
        lock(&self.eviction).take()
    }

    /// Something happened: look again.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// A ConfigMap or Secret of the pod changed.
    pub(crate) fn objects_changed(&self) {
        self.objects_changed.store(true, Ordering::Release);
        self.wake();
    }

    /// Resolves when woken. Safe to drop; a wake-up in between is not lost.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Whether an object changed since this was last asked.
    pub(crate) fn take_objects_changed(&self) -> bool {
        self.objects_changed.swap(false, Ordering::AcqRel)
    }

    /// What is wanted now.
    pub(crate) fn desired(&self) -> Desired {
        self.desired.borrow().clone()
    }

    /// Follows what is wanted.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Desired> {
        self.desired.subscribe()
    }
}

/// How long a worker that panicked stays away.
const AFTER_PANIC: Duration = Duration::from_secs(10);

/// Runs a worker; one that panics is replaced, for it keeps nothing that cannot be found again.
async fn keep(kubelet: Arc<Kubelet>, handle: Handle) {
    loop {
        let worker = Worker::new(Arc::clone(&kubelet), handle.clone());
        match stdx::task::spawn("pod-worker", worker.run()).await {
            Ok(Some(())) => return,
            // The panic was logged where it was caught.
            Ok(None) | Err(_) => kubelet.deps.clock.sleep(AFTER_PANIC).await,
        }
    }
}

/// All workers, by the uid of their pod.
#[derive(Default)]
pub(crate) struct Workers(Mutex<BTreeMap<String, Handle>>);

impl Workers {
    /// A pod is new or changed.
    pub(crate) fn update(&self, kubelet: &Arc<Kubelet>, pod: &Arc<Pod>) {
        let uid = spec::uid(pod).to_owned();
        let mut workers = lock(&self.0);
        let desired = Desired { pod: Arc::clone(pod), gone: false };
        if let Some(handle) = workers.get(&uid) {
            handle.desired.send_replace(desired);
            return;
        }
        let handle = Handle {
            desired: Arc::new(watch::Sender::new(desired)),
            wake: Arc::default(),
            objects_changed: Arc::default(),
            eviction: Arc::default(),
        };
        workers.insert(uid, handle.clone());
        // It ends when its pod is gone, or with the kubelet.
        drop(stdx::task::spawn("pod-worker", keep(Arc::clone(kubelet), handle)));
    }

    /// A pod is gone from the API.
    pub(crate) fn gone(&self, uid: &str) {
        if let Some(handle) = lock(&self.0).get(uid) {
            handle.desired.send_modify(|desired| desired.gone = true);
        }
    }

    /// The worker of a pod.
    pub(crate) fn get(&self, uid: &str) -> Option<Handle> {
        lock(&self.0).get(uid).cloned()
    }

    /// Wakes all.
    pub(crate) fn wake_all(&self) {
        for handle in lock(&self.0).values() {
            handle.wake();
        }
    }

    /// Lets all try again what failed: something they all depend on changed.
    pub(crate) fn retry_all(&self) {
        for handle in lock(&self.0).values() {
            handle.objects_changed();
        }
    }

    /// The worker is done.
    pub(crate) fn remove(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }
}
