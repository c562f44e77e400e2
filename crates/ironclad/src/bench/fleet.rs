//! The nodes of `ironclad bench nodes`, and their pods.
//!
//! A node is a number: nothing is kept for it but its uid in the cache. All nodes share one watch
//! of pods, one queue and one stream of heartbeats.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::Typed;
use client::{
    Api, Change, Client, ClientError, DeleteOptions, Informer, InformerConfig, ListOptions, Lister,
    Outcome, Patch, WorkQueue, WorkQueueConfig,
};
use clock::SharedClock;
use k8s_openapi::api::core::v1::{Node, Pod};
use meta::ObjectKey;
use stdx::shutdown::Shutdown;

use super::node_object::{LABEL, Shape, address};
use super::pace::Pace;
use super::pod_facts::{PodFacts, Point, Stage};
use super::pod_status::{self, Addresses};
use super::pod_step::{Behaviour, Report, Step};
use super::tally::{Tally, count};

/// The first address of pods; there are as many as 10.128.0.0/9 has.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
const ADDRESSES: u32 = 1 << 23;

/// What the user decides.
pub(crate) struct Options {
    /// The nodes.
    pub(crate) shape: Shape,
    /// From being bound to running.
    pub(crate) start_delay: Duration,
    /// How long what runs to an end takes.
    pub(crate) run_for: Duration,
    /// How long containers take to end.
    pub(crate) stop_delay: Duration,
    /// How many runs fail.
    pub(crate) failure_rate: f64,
    /// Between two renewals of a lease.
    pub(crate) lease_interval: Duration,
    /// Between two reports of a node that does not change.
    pub(crate) status_interval: Duration,
    /// Requests per second, 0 for any number.
    pub(crate) qps: f64,
    /// Requests at once.
    pub(crate) in_flight: usize,
}

/// The nodes and what they share.
pub(crate) struct Fleet {
    pub(super) options: Options,
    pub(super) client: Client,
    pub(super) clock: SharedClock,
    pub(super) pace: Pace,
    /// What was done.
    pub(crate) tally: Tally,
    /// Uids of the nodes that exist.
    pub(super) nodes: Lister<String>,
    pods: Lister<Option<PodFacts>>,
    /// Since when a pod is at its point; of pods that are not at their end.
    since: Mutex<HashMap<Box<str>, (Point, Instant)>>,
    next_address: AtomicU32,
}

impl Fleet {
    /// A fleet whose nodes do not exist yet. Its caches follow the cluster until `shutdown`.
    pub(crate) fn new(
        options: Options,
        client: Client,
        clock: SharedClock,
        shutdown: &Shutdown,
    ) -> Arc<Self> {
        let ours = ListOptions::labels(format!("{LABEL}={}", options.shape.prefix));
        let config = InformerConfig { options: ours, ..InformerConfig::all::<Node>() };
        let nodes = Informer::spawn(&client, &clock, config, shutdown, |object| {
            Ok(object.header().uid.clone())
        });
        let bound = ListOptions::fields("spec.nodeName!=");
        let config = InformerConfig { options: bound, ..InformerConfig::all::<Pod>() };
        let shape = options.shape.clone();
        let pods = Informer::spawn(&client, &clock, config, shutdown, move |object| {
            let pod = Pod::of(object)?;
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let index = node.and_then(|name| shape.index(name));
            Ok(index.map(|index| PodFacts::new(index, pod)))
        });
        Arc::new(Self {
            pace: Pace::new(options.qps, Arc::clone(&clock)),
            options,
            client,
            clock,
            tally: Tally::default(),
            nodes,
            pods,
            since: Mutex::default(),
            next_address: AtomicU32::new(0),
        })
    }

    /// Waits until the caches have what is there.
    pub(crate) async fn synced(&self) {
        self.nodes.synced().await;
        self.pods.synced().await;
    }

    /// Moves the pods of the nodes through their lives until `shutdown`.
    pub(crate) async fn run_pods(self: &Arc<Self>, shutdown: Shutdown) {
        let config = WorkQueueConfig {
            retry_max: Duration::from_secs(30),
            ..WorkQueueConfig::new("simulated-pods", self.options.in_flight)
        };
        let queue = WorkQueue::new(config, Arc::clone(&self.clock));
        let (fleet, all) = (Arc::clone(self), queue.clone());
        self.pods.on_change(move |key, change| fleet.follow(key, change, &all));
        let fleet = Arc::clone(self);
        queue
            .run(shutdown, move |key| {
                let fleet = Arc::clone(&fleet);
                async move { fleet.handle(&key).await }
            })
            .await;
    }

    /// A line about what is going on.
    pub(crate) fn progress(&self) -> String {
        let (mut running, mut waiting) = (0, 0);
        for pod in self.pods.list() {
            match pod.as_ref().as_ref().map(|pod| pod.stage) {
                Some(Stage::Running) => running += 1,
                Some(Stage::Bound | Stage::Crashed) => waiting += 1,
                _ => {}
            }
        }
        self.tally.line(self.nodes.len(), running, waiting)
    }

    fn follow(
        &self,
        key: &ObjectKey,
        change: Change<'_, Option<PodFacts>>,
        queue: &WorkQueue<ObjectKey>,
    ) {
        let (Change::Added(new) | Change::Updated { new, .. }) = change else {
            if let Change::Deleted(old) = change
                && let Some(pod) = old.as_ref()
            {
                self.points().remove(&pod.uid);
            }
            return;
        };
        let Some(pod) = new.as_ref() else { return };
        let now = self.clock.monotonic();
        let mut points = self.points();
        if pod.stage == Stage::Ended && pod.grace.is_none() {
            points.remove(&pod.uid);
            return;
        }
        let (point, since) = points.entry(pod.uid.clone()).or_insert_with(|| (pod.point(), now));
        if !pod.is_as(*point) {
            (*point, *since) = (pod.point(), now);
        }
        drop(points);
        queue.add(key.clone());
    }

    async fn handle(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(cached) = self.pods.get(key) else { return Ok(Outcome::Done) };
        let Some(pod) = cached.as_ref() else { return Ok(Outcome::Done) };
        let name = self.options.shape.name(pod.node);
        // The pods of a node that was removed are for the pod garbage collector.
        if self.nodes.get(&ObjectKey::cluster(name)).is_none() {
            return Ok(Outcome::Done);
        }
        let Some((_, since)) = self.points().get(&pod.uid).copied() else {
            return Ok(Outcome::Done);
        };
        let elapsed = self.clock.monotonic().saturating_duration_since(since);
        let behaviour = Behaviour {
            start_delay: self.options.start_delay,
            run_for: self.options.run_for,
            stop_delay: self.options.stop_delay,
            failure_rate: self.options.failure_rate,
        };
        let result = match behaviour.step(pod, elapsed) {
            Step::Nothing => return Ok(Outcome::Done),
            Step::Wait(delay) => return Ok(Outcome::RequeueAfter(delay)),
            Step::Write(report) => self.write(key, pod, report, since).await,
            Step::Remove => self.remove(key, pod).await,
        };
        match result {
            Ok(()) => Ok(Outcome::Done),
            // It is gone, or another one of its name: its own event says so.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Outcome::Done),
            Err(error) => {
                count(&self.tally.errors);
                Err(error)
            }
        }
    }

    async fn write(
        &self,
        key: &ObjectKey,
        pod: &PodFacts,
        report: Report,
        since: Instant,
    ) -> Result<(), ClientError> {
        let at = Addresses { host: address(pod.node), pod: self.pod_address(pod) };
        let patch = Patch::Strategic(pod_status::patch(pod, report, at, self.clock.now()));
        self.pace.turn().await;
        self.pod_api(key).patch_subresource(&key.name, "status", &patch).await?;
        match report {
            Report::Running { restarts: 0 } => {
                let now = self.clock.monotonic();
                self.tally.started(now.saturating_duration_since(since));
            }
            Report::Running { .. } => {}
            Report::Crashed => count(&self.tally.crashed),
            Report::Succeeded => count(&self.tally.succeeded),
            Report::Failed { .. } => count(&self.tally.failed),
        }
        Ok(())
    }

    async fn remove(&self, key: &ObjectKey, pod: &PodFacts) -> Result<(), ClientError> {
        let options = DeleteOptions {
            grace_period_secs: Some(0),
            uid: Some(pod.uid.to_string()),
            ..Default::default()
        };
        self.pace.turn().await;
        self.pod_api(key).delete(&key.name, &options).await?;
        count(&self.tally.removed);
        Ok(())
    }

    fn pod_api(&self, key: &ObjectKey) -> Api<Pod> {
        self.client.api(&key.namespace)
    }

    fn pod_address(&self, pod: &PodFacts) -> Ipv4Addr {
        if pod.host_network {
            return address(pod.node);
        }
        if let Ok(present) = pod.address.parse() {
            return present;
        }
        let offset = self.next_address.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
        Ipv4Addr::from_bits(FIRST_ADDRESS.to_bits() + offset)
    }

    fn points(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, (Point, Instant)>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
