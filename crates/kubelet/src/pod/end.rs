//! Ending containers: hook, signal, kill. Each runs as a task of its own, so that the worker can
//! still hear that it has to be faster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::EventType;
use cri::ContainerId;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::kubelet::{Kubelet, lock};
use crate::pod::hooks;
use crate::pod::spec::Kind;
use crate::pod::workers::Handle;

/// What is left for the container's own stop after its hook: upstream
/// `minimumGracePeriodInSeconds`.
const AFTER_HOOK_MIN: Duration = Duration::from_secs(2);

/// Looks at a pod find other remainders of the same grace period; those that differ by less than
/// this are the same one, which counts whole seconds.
const SAME: Duration = Duration::from_millis(500);

/// The containers of one pod that are being ended, and until when each was given. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Endings(Arc<Mutex<BTreeMap<ContainerId, Instant>>>);

/// A container to end.
pub(crate) struct Ending {
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: (Kind, Container),
    pub(crate) id: ContainerId,
    pub(crate) grace: Duration,
    /// The text of the `Killing` event.
    pub(crate) why: String,
    pub(crate) pod_ip: String,
}

impl Endings {
    /// The containers that are being ended.
    pub(crate) fn ids(&self) -> BTreeSet<ContainerId> {
        lock(&self.0).keys().cloned().collect()
    }

    /// Begins to end a container, unless that has begun with no more time than this: a hook that runs
    /// is left alone then.
    pub(crate) fn begin(&self, kubelet: &Arc<Kubelet>, handle: &Handle, ending: Ending) {
        let until = kubelet.deps.clock.monotonic() + ending.grace;
        let before = {
            let mut endings = lock(&self.0);
            let before = endings.get(&ending.id).copied();
            if before.is_some_and(|given| given <= until + SAME) {
                return;
            }
            endings.insert(ending.id.clone(), until);
            before
        };
        let (this, kubelet, handle) = (self.clone(), Arc::clone(kubelet), handle.clone());
        // It ends when the container has, and the runtime bounds how long that takes.
        drop(stdx::task::spawn("end-container", async move {
            end(&kubelet, &ending, before.is_none()).await;
            lock(&this.0).remove(&ending.id);
            handle.wake();
        }));
    }
}

async fn end(kubelet: &Arc<Kubelet>, ending: &Ending, first: bool) {
    let (kind, container) = &ending.container;
    let mut grace = ending.grace;
    if first {
        let whom = (*kind, container.name.as_str());
        kubelet.container_event(&ending.pod, whom, EventType::Normal, "Killing", &ending.why);
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        if let Some(hook) = hook.filter(|_| !grace.is_zero()) {
            let begun = kubelet.deps.clock.monotonic();
            let running = hooks::run(kubelet, &ending.id, container, hook, &ending.pod_ip);
            let outcome = tokio::select! {
                outcome = running => outcome,
                () = kubelet.deps.clock.sleep(grace) => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::info!(container = container.name, error, "preStop hook failed");
                let (kind, reason) = (EventType::Warning, "FailedPreStopHook");
                kubelet.container_event(&ending.pod, whom, kind, reason, "PreStopHook failed");
            }
            let took = kubelet.deps.clock.monotonic().saturating_duration_since(begun);
            grace = grace.saturating_sub(took).max(AFTER_HOOK_MIN);
        }
    }
    if let Err(error) = kubelet.deps.runtime.stop_container(&ending.id, grace).await {
        tracing::warn!(container = container.name, %error, "container not stopped");
    }
}
