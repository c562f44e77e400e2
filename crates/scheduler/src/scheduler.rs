//! The driver: takes pods from the queue, decides, and carries the decision out.

use std::sync::Arc;
use std::time::Instant;

use client::{Client, DeleteOptions, EventRecorder, EventType, Patch, Regarding};
use clock::SharedClock;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;
use stdx::shutdown::Shutdown;
use tokio::sync::{Notify, Semaphore};

use crate::cluster::Cluster;
use crate::decision::{Decision, FitError, decide};
use crate::framework::Plugin;
use crate::metrics::{Attempt, Metrics};
use crate::plugins::default_preemption::Preemption;
use crate::plugins::{default_binder, dynamic_resources, volume_binding};
use crate::pod_info::PodInfo;
use crate::queue::Popped;
use crate::volumes::VolumePlan;

/// Bindings under way at once; decisions wait when it is reached.
const BINDINGS_MAX: usize = 1024;
/// Decisions in a row after which what shares the task gets its turn, such as the renewal of the
/// lease; in a large cluster a decision takes milliseconds.
const DECISIONS_IN_A_ROW: u32 = 4;

/// Decides and binds.
pub(crate) struct Scheduler {
    /// Decisions follow each other without a pause: a lock that is not fair would keep the threads
    /// that carry them out and hear of changes waiting for seconds.
    pub(crate) cluster: Mutex<Cluster>,
    pub(crate) plugins: Vec<Box<dyn Plugin>>,
    /// Told when a pod may be there to be tried.
    pub(crate) wake: Notify,
    /// Told when a volume, claim or class changed.
    pub(crate) volumes_changed: Notify,
    pub(crate) clock: SharedClock,
    pub(crate) client: Client,
    pub(crate) recorder: EventRecorder,
    pub(crate) metrics: Metrics,
    pub(crate) bindings: Arc<Semaphore>,
    pub(crate) scheduler_name: String,
}

/// A pod that was tried, and what came out.
struct Tried {
    popped: Popped,
    began: Instant,
    decision: Decision,
    /// What the pod's volumes need first.
    volumes: VolumePlan,
}

impl Scheduler {
    pub(crate) fn new(
        scheduler_name: String,
        client: Client,
        clock: SharedClock,
        recorder: EventRecorder,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster: Mutex::default(),
            plugins: crate::plugins::default_plugins(),
            wake: Notify::new(),
            volumes_changed: Notify::new(),
            clock,
            client,
            recorder,
            metrics,
            bindings: Arc::new(Semaphore::new(BINDINGS_MAX)),
            scheduler_name,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock()
    }

    /// Works until `shutdown`. Safe to drop between pods.
    pub(crate) async fn run(self: &Arc<Self>, shutdown: &Shutdown) {
        let mut in_a_row = 0;
        loop {
            let permit = Arc::clone(&self.bindings).acquire_owned().await;
            let Ok(permit) = permit else { return };
            match self.try_one() {
                Some(tried) => self.carry_out(tried, permit),
                None => {
                    tokio::select! {
                        () = self.idle() => {}
                        () = shutdown.begun() => return,
                    }
                }
            }
            in_a_row += 1;
            if in_a_row % DECISIONS_IN_A_ROW == 0 {
                tokio::task::yield_now().await;
            }
            if shutdown.is_begun() {
                return;
            }
        }
    }

    async fn idle(&self) {
        let due = {
            let cluster = self.lock();
            self.metrics.queue(cluster.queue.depths());
            cluster.queue.next_due()
        };
        match due {
            None => self.wake.notified().await,
            Some(due) => {
                let delay = due.saturating_duration_since(self.clock.monotonic());
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = self.clock.sleep(delay) => {}
                }
            }
        }
    }

    fn try_one(&self) -> Option<Tried> {
        let began = self.clock.monotonic();
        let mut guard = self.lock();
        let cluster = &mut *guard;
        let popped = cluster.queue.pop(began)?;
        let pod = &popped.pod;
        let decision = decide(&self.plugins, &cluster.snapshot, pod, &mut cluster.start);
        let mut volumes = VolumePlan::default();
        match &decision {
            Decision::Bind { node } => {
                volumes = volume_binding::plan(pod, &cluster.snapshot, node);
                cluster.snapshot.volumes.assume(&volumes, node);
                cluster.assume(pod, node);
            }
            Decision::Reject(error) => {
                if let Some(preemption) = &error.preemption {
                    for displaced in &preemption.displaced {
                        cluster.snapshot.forget_nomination(&displaced.uid);
                    }
                    cluster.snapshot.nominate(pod, &preemption.node);
                }
                let rejected_by = error.plugins.clone();
                cluster.queue.rejected(&pod.uid, rejected_by, began);
            }
        }
        drop(guard);
        Some(Tried { popped, began, decision, volumes })
    }

    fn carry_out(self: &Arc<Self>, tried: Tried, permit: tokio::sync::OwnedSemaphorePermit) {
        let scheduler = Arc::clone(self);
        drop(stdx::task::spawn("binding", async move {
            let Tried { popped, began, decision, volumes } = tried;
            match decision {
                Decision::Bind { node } => {
                    if scheduler.prepare(&popped, &node, &volumes, began).await
                        && scheduler.reserve_devices(&popped.pod, began).await
                    {
                        scheduler.bind(&popped, &node, began).await;
                    }
                }
                Decision::Reject(error) => scheduler.reject(&popped, error, began).await,
            }
            drop(permit);
        }));
    }

    /// Binds the pod's claims; `false` when it cannot go on.
    async fn prepare(
        &self,
        popped: &Popped,
        node: &str,
        volumes: &VolumePlan,
        began: Instant,
    ) -> bool {
        if volumes.is_empty() {
            return true;
        }
        let result = self.bind_volumes(&popped.pod, volumes, node).await;
        let Err(error) = result else {
            self.lock().snapshot.volumes.settled(volumes);
            return true;
        };
        self.lock().snapshot.volumes.forget(volumes);
        let text = format!("running PreBind plugin \"VolumeBinding\": binding volumes: {error}");
        self.bind_failed(&popped.pod, &text, false, began).await;
        false
    }

    /// Notes the pod in its claims for devices; `false` when it cannot go on. A pod that is tried
    /// again stays noted: it needs them still.
    async fn reserve_devices(&self, pod: &PodInfo, began: Instant) -> bool {
        let claims = dynamic_resources::unreserved(pod, &self.lock().snapshot);
        for claim in claims {
            if let Err(error) = dynamic_resources::reserve(&self.client, pod, &claim).await {
                let text = format!("running PreBind plugin \"DynamicResources\": {error}");
                self.bind_failed(pod, &text, false, began).await;
                return false;
            }
        }
        true
    }

    async fn bind(&self, popped: &Popped, node: &str, began: Instant) {
        let pod = &popped.pod;
        let result = default_binder::bind(&self.client, pod, node).await;
        let now = self.clock.monotonic();
        match result {
            Ok(()) => {
                self.lock().queue.remove(&pod.uid);
                self.metrics.attempt(Attempt::Scheduled, now - began);
                self.metrics.bound(popped.attempts, now - popped.first_seen);
                let text = format!("Successfully assigned {} to {node}", pod.key);
                self.recorder.record(&regarding(pod), EventType::Normal, "Scheduled", text);
            }
            Err(error) => {
                let text = format!("binding rejected: {error}");
                self.bind_failed(pod, &text, error.is_not_found(), began).await;
            }
        }
    }

    async fn bind_failed(&self, pod: &PodInfo, text: &str, is_gone: bool, began: Instant) {
        let now = self.clock.monotonic();
        {
            let mut cluster = self.lock();
            // When the binding was seen meanwhile, only the answer was lost.
            if !cluster.forget(&pod.uid) {
                return;
            }
            if is_gone {
                cluster.queue.remove(&pod.uid);
                return;
            }
            cluster.queue.failed(&pod.uid, now);
        }
        self.wake.notify_one();
        self.metrics.attempt(Attempt::Error, now - began);
        let what = text.to_owned();
        self.recorder.record(&regarding(pod), EventType::Warning, "FailedScheduling", what);
        self.mark_unscheduled(pod, "SchedulerError", text, None).await;
    }

    async fn reject(&self, popped: &Popped, error: FitError, began: Instant) {
        let pod = &popped.pod;
        let text = error.to_string();
        self.metrics.attempt(Attempt::Unschedulable, self.clock.monotonic() - began);
        self.recorder.record(&regarding(pod), EventType::Warning, "FailedScheduling", text.clone());
        let nominated = error.preemption.as_ref().map(|preemption| preemption.node.as_str());
        if let Some(preemption) = &error.preemption {
            self.preempt(pod, preemption).await;
        }
        self.mark_unscheduled(pod, "Unschedulable", &text, nominated).await;
    }

    async fn mark_unscheduled(
        &self,
        pod: &PodInfo,
        reason: &str,
        message: &str,
        nominated: Option<&str>,
    ) {
        let known = pod.unscheduled.as_ref().is_some_and(|(r, m)| r == reason && m == message);
        let nominated = nominated.filter(|node| *node != pod.nominated_node);
        if known && nominated.is_none() {
            return;
        }
        let mut condition = json!({
            "type": api::pod::POD_SCHEDULED,
            "status": "False",
            "reason": reason,
            "message": message,
            "observedGeneration": pod.generation,
        });
        if pod.unscheduled.is_none() {
            condition["lastTransitionTime"] = meta::time::rfc3339(self.clock.now()).into();
        }
        let mut status = json!({ "conditions": [condition] });
        if let Some(node) = nominated {
            status["nominatedNodeName"] = node.into();
        }
        self.patch_status(pod, status).await;
    }

    async fn patch_status(&self, pod: &PodInfo, status: serde_json::Value) {
        let patch = Patch::Strategic(json!({ "metadata": { "uid": pod.uid }, "status": status }));
        let pods = self.client.api::<Pod>(&pod.key.namespace);
        match pods.patch_subresource(&pod.key.name, "status", &patch).await {
            Ok(_) => {}
            // Deleted, or replaced by another pod of this name.
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => {
                tracing::warn!(pod = %pod.key, %error, "status of the pod could not be written");
            }
        }
    }

    /// Evicts the victims; the pod is tried again when they are gone.
    async fn preempt(&self, pod: &PodInfo, preemption: &Preemption) {
        self.metrics.preempted(preemption.victims.len());
        for displaced in &preemption.displaced {
            self.patch_status(displaced, json!({ "nominatedNodeName": null })).await;
        }
        let evictions = preemption.victims.iter().map(|victim| async {
            if victim.deleting {
                return;
            }
            let condition = json!({
                "type": api::pod::DISRUPTION_TARGET,
                "status": "True",
                "reason": "PreemptionByScheduler",
                "message": format!(
                    "{}: preempting to accommodate a higher priority pod", self.scheduler_name
                ),
                "observedGeneration": victim.generation,
                "lastTransitionTime": meta::time::rfc3339(self.clock.now()),
            });
            self.patch_status(victim, json!({ "conditions": [condition] })).await;
            let options =
                DeleteOptions { uid: Some(victim.uid.clone()), ..DeleteOptions::default() };
            let pods = self.client.api::<Pod>(&victim.key.namespace);
            match pods.delete(&victim.key.name, &options).await {
                Ok(()) => {}
                Err(error) if error.is_not_found() || error.is_conflict() => return,
                Err(error) => {
                    tracing::warn!(pod = %victim.key, %error, "victim could not be evicted");
                    return;
                }
            }
            let text = format!("Preempted by pod {} on node {}", pod.uid, preemption.node);
            self.recorder.record(&regarding(victim), EventType::Normal, "Preempted", text);
        });
        futures::future::join_all(evictions).await;
    }
}

fn regarding(pod: &PodInfo) -> Regarding {
    Regarding {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        namespace: pod.key.namespace.clone(),
        name: pod.key.name.clone(),
        uid: pod.uid.clone(),
        ..Regarding::default()
    }
}
