//! The worker of one pod: looks, decides, acts, reports, and waits for something to happen.
//!
//! ```text
//!          ┌────────────── woken, timer, changed ──────────────┐
//!          ▼                                                    │
//!   observe ─▶ stopping? ─no─▶ plan ─▶ volumes, sandbox, containers ─▶ status ─▶ wait
//!                 │yes
//!                 └─▶ end containers ─▶ stop sandbox ─▶ deleted? ─▶ clean up ─▶ API delete
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use cri::{ContainerId, ContainerState, CriError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::kubelet::{Admission, Kubelet};
use crate::pod::allocation::Allocation;
use crate::pod::container_status::StartError;
use crate::pod::crash_backoff::{CrashBackoff, go_duration};
use crate::pod::end::Endings;
use crate::pod::final_status::finish;
use crate::pod::image::PullFailures;
use crate::pod::last_words::last_words;
use crate::pod::lifecycle::{self, Memory, Plan};
use crate::pod::observed::Observed;
use crate::pod::probes::{ProbeKind, Probes};
use crate::pod::spec;
use crate::pod::start_time;
use crate::pod::status::{Facts, Verdict, pod_status};
use crate::pod::status_writer::StatusWriter;
use crate::pod::workers::{Desired, Handle};
use crate::volume::Mounted;
use resize::Resizing;

mod act;
mod resize;
mod stop;

/// When something failed that nobody tells us the end of: upstream `backOffPeriod`.
const RETRY: Duration = Duration::from_secs(10);
/// Volumes and sandboxes are tried again sooner: what they wait for takes moments at a start.
const RETRY_SOON_FIRST: Duration = Duration::from_millis(500);
/// Names in [`Worker::held`] that no container can have.
const SANDBOX: &str = "(sandbox)";
const VOLUMES: &str = "(volumes)";

/// What to do after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Look again at once.
    Again,
    /// Look again when woken, at the latest after this.
    Wait(Option<Duration>),
    /// Nothing is left of the pod.
    Finished,
}

/// One pod's worker.
pub(crate) struct Worker {
    kubelet: Arc<Kubelet>,
    handle: Handle,
    writer: StatusWriter,
    uid: String,
    /// When it began, if it is a static one.
    began: Option<Timestamp>,
    /// The pod as the API wants it.
    desired: Arc<Pod>,
    /// The same with the resources that the node has granted.
    pod: Arc<Pod>,
    gone: bool,
    admitted: bool,
    verdict: Option<Verdict>,
    /// All containers have ended and none will run again.
    over: bool,
    /// When the pod began to stop, and how long it was given.
    stopping: Option<Timestamp>,
    cleaned: bool,
    start_errors: BTreeMap<String, StartError>,
    backoff: CrashBackoff,
    /// What the next container of a name counts, after all were removed to begin anew.
    restart_counts: BTreeMap<String, i32>,
    pulls: PullFailures,
    probes: Probes,
    endings: Endings,
    mounted: Option<Mounted>,
    resizing: Resizing,
    /// What was last told about volumes, and when.
    volumes_told: Option<(String, Timestamp)>,
    messages: BTreeMap<ContainerId, String>,
    retry_soon: Duration,
    /// What failed for a reason that only time or a change can mend, and when it is tried again:
    /// containers by name, and [`SANDBOX`] and [`VOLUMES`].
    held: BTreeMap<String, Timestamp>,
}

impl Worker {
    /// The worker of the pod that `handle` wants.
    pub(crate) fn new(kubelet: Arc<Kubelet>, handle: Handle) -> Self {
        let Desired { pod, gone } = handle.desired();
        let began = kubelet.static_pods.has(&pod).then(|| {
            let directory = kubelet.volumes.pod_dir(spec::uid(&pod));
            start_time::of_static(&directory, kubelet.deps.clock.now())
        });
        Self {
            began,
            writer: StatusWriter::spawn(Arc::clone(&kubelet), &pod),
            uid: spec::uid(&pod).to_owned(),
            kubelet,
            handle,
            desired: Arc::clone(&pod),
            pod,
            gone,
            admitted: false,
            verdict: None,
            over: false,
            stopping: None,
            cleaned: false,
            start_errors: BTreeMap::new(),
            backoff: CrashBackoff::default(),
            restart_counts: BTreeMap::new(),
            pulls: PullFailures::default(),
            probes: Probes::default(),
            endings: Endings::default(),
            mounted: None,
            resizing: Resizing::default(),
            volumes_told: None,
            messages: BTreeMap::new(),
            retry_soon: RETRY_SOON_FIRST,
            held: BTreeMap::new(),
        }
    }

    /// Works until nothing is left of the pod, or until the kubelet ends: then what runs goes on.
    pub(crate) async fn run(mut self) {
        let mut desired = self.handle.subscribe();
        let shutdown = self.kubelet.shutdown.clone();
        loop {
            let Desired { pod, gone } = desired.borrow_and_update().clone();
            self.take(pod, gone);
            let next = tokio::select! {
                next = self.look() => next,
                () = must_hurry(&mut desired) => Next::Again,
                () = shutdown.begun() => return,
            };
            let wait = match next {
                Next::Again => continue,
                Next::Finished => break,
                Next::Wait(wait) => wait,
            };
            let clock = Arc::clone(&self.kubelet.deps.clock);
            let timer = async {
                match wait {
                    Some(wait) => clock.sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = desired.changed() => if changed.is_err() { return },
                () = self.handle.woken() => {}
                () = timer => {}
                () = shutdown.begun() => return,
            }
        }
        self.kubelet.forget(&self.uid);
        self.kubelet.workers.remove(&self.uid);
        self.kubelet.static_pods.worker_ended();
    }

    fn take(&mut self, pod: Arc<Pod>, gone: bool) {
        let (old, new) = (&self.desired.metadata, &pod.metadata);
        if (&old.labels, &old.annotations) != (&new.labels, &new.annotations) {
            // They may be files of a volume.
            self.handle.objects_changed();
        }
        if old.generation != new.generation {
            self.held.clear();
        }
        match self.kubelet.static_pods.has(&pod).then(|| self.kubelet.mirror_of(&pod)) {
            Some(Some(mirror)) => self.writer.found(&mirror),
            Some(None) => {}
            None => self.writer.found(&pod),
        }
        if !Arc::ptr_eq(&self.desired, &pod) {
            let granted = Allocation::of(&self.pod);
            self.pod = if self.admitted && granted != Allocation::of(&pod) {
                Arc::new(granted.apply(&pod))
            } else {
                Arc::clone(&pod)
            };
            self.desired = pod;
        }
        self.gone = gone;
    }

    /// What is left of the time for which something is not tried again.
    fn held_for(&self, what: &str) -> Option<Duration> {
        let now = self.kubelet.deps.clock.now();
        let left = Duration::try_from(self.held.get(what)?.duration_since(now)).ok()?;
        (!left.is_zero()).then_some(left)
    }

    fn hold(&mut self, what: &str, wait: Duration) -> Duration {
        let now = self.kubelet.deps.clock.now();
        self.held.insert(what.to_owned(), now.saturating_add(wait).unwrap_or(now));
        wait
    }

    async fn look(&mut self) -> Next {
        match self.look_or_fail().await {
            Ok(next) => next,
            Err(error) => {
                let pod = spec::described(&self.pod);
                tracing::warn!(pod, %error, "the runtime does not answer about a pod");
                Next::Wait(Some(RETRY))
            }
        }
    }

    async fn look_or_fail(&mut self) -> Result<Next, CriError> {
        let observed = Observed::read(&*self.kubelet.deps.runtime, &self.uid).await?;
        self.decide_end();
        let running: Vec<_> = observed.running().collect();
        let pod_ip = self.pod_ips(&observed).into_iter().next().unwrap_or_default();
        let probed = if self.is_stopping() { Vec::new() } else { running };
        self.probes.follow(&self.kubelet, &self.handle, &self.pod, &pod_ip, &probed);
        if self.is_stopping() {
            return self.stop(&observed).await;
        }
        if let Some(next) = self.admit(&observed) {
            return Ok(next);
        }
        self.follow_allocation();
        let plan = self.plan(&observed);
        self.note_waiting(&plan, &observed);
        self.note_progress(&plan);
        self.report(&observed);
        if plan.finished {
            self.over = true;
            return Ok(Next::Again);
        }
        self.carry_out(plan, &observed).await
    }

    fn is_stopping(&self) -> bool {
        self.gone
            || self.over
            || self.verdict.is_some()
            || api::pod::is_terminating(&self.pod)
            || api::pod::is_terminal(&self.pod)
    }

    /// Ends the pod when it has been active for too long.
    fn decide_end(&mut self) {
        if self.verdict.is_some() || self.is_stopping() {
            return;
        }
        if let Some(verdict) = self.handle.take_eviction() {
            let Verdict { reason, message } = &verdict;
            self.kubelet.pod_event(&self.pod, EventType::Warning, reason, message);
            self.verdict = Some(verdict);
            return;
        }
        if self.deadline_left().is_some_and(|left| left.is_zero()) {
            let message = "Pod was active on the node longer than the specified deadline";
            self.kubelet.pod_event(&self.pod, EventType::Normal, "DeadlineExceeded", message);
            self.verdict =
                Some(Verdict { reason: "DeadlineExceeded".into(), message: message.into() });
        }
    }

    fn deadline_left(&self) -> Option<Duration> {
        let deadline = spec::spec(&self.pod).active_deadline_seconds?;
        let deadline = Duration::from_secs(u64::try_from(deadline).unwrap_or(0));
        let now = self.kubelet.deps.clock.now();
        let active = Duration::try_from(now.duration_since(self.start_time())).unwrap_or_default();
        Some(deadline.saturating_sub(active))
    }

    fn start_time(&self) -> Timestamp {
        if let Some(began) = self.began {
            return began;
        }
        let noted = self.writer.last().start_time;
        let noted = noted.or_else(|| self.pod.status.as_ref()?.start_time.clone());
        noted.map_or_else(|| self.kubelet.deps.clock.now(), |time| time.0)
    }

    /// Has the node take the pod. What to do when it does not, or not yet; when it never does, the
    /// verdict says why.
    fn admit(&mut self, observed: &Observed) -> Option<Next> {
        if self.admitted {
            return None;
        }
        match self.kubelet.admit(&self.desired, !observed.sandboxes.is_empty()) {
            Admission::Granted(granted) => {
                self.pod = granted;
                self.admitted = true;
                None
            }
            // Whoever makes room wakes it.
            Admission::MakesRoom => Some(Next::Wait(Some(RETRY))),
            Admission::Refused(Verdict { reason, message }) => {
                self.kubelet.pod_event(&self.pod, EventType::Warning, &reason, &message);
                let message = format!("Pod was rejected: {message}");
                self.verdict = Some(Verdict { reason, message });
                Some(Next::Again)
            }
        }
    }

    fn plan(&self, observed: &Observed) -> Plan {
        let started = |status: &cri::ContainerStatus| self.probes.started(&self.pod, status);
        let memory = Memory {
            unhealthy: &self.probes.failed(ProbeKind::Liveness),
            never_started: &self.probes.failed(ProbeKind::Startup),
            started: &started,
            ending: &self.endings.ids(),
            backoff: &self.backoff,
        };
        lifecycle::plan(&self.pod, observed, &memory, self.kubelet.deps.clock.now())
    }

    /// Containers in back-off say so, and those that run have no error.
    fn note_waiting(&mut self, plan: &Plan, observed: &Observed) {
        for status in observed.running() {
            self.start_errors.remove(&status.metadata.name);
        }
        for wait in &plan.waiting {
            let (name, delay) = (&wait.name, go_duration(wait.delay));
            let pod = spec::described(&self.pod);
            let message = format!("back-off {delay} restarting failed container={name} pod={pod}");
            let error = StartError { reason: "CrashLoopBackOff", message };
            if self.start_errors.insert(name.clone(), error.clone()).as_ref() != Some(&error) {
                let text = format!("Back-off restarting failed container {name} in pod {pod}");
                let whom = (wait.kind, name.as_str());
                let kubelet = &self.kubelet;
                kubelet.container_event(&self.pod, whom, EventType::Warning, "BackOff", &text);
            }
        }
    }

    fn pod_ips(&self, observed: &Observed) -> Vec<String> {
        if spec::host_network(&self.pod) {
            return vec![self.kubelet.config.node_ip.to_string()];
        }
        let sandbox = observed.ready_sandbox();
        sandbox.map(|s| s.ips.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    /// Computes the status and asks for it to be written.
    fn report(&mut self, observed: &Observed) -> PodStatus {
        let status = self.status(observed);
        self.writer.set(&status);
        status
    }

    /// The last report: nothing of the pod runs, and nothing will.
    fn report_end(&mut self, observed: &Observed) {
        let mut status = self.status(observed);
        finish(&self.pod, &mut status);
        self.writer.set(&status);
    }

    fn status(&mut self, observed: &Observed) -> PodStatus {
        for container in &observed.containers {
            if container.state == ContainerState::Exited
                && !self.messages.contains_key(&container.id)
            {
                self.messages.insert(container.id.clone(), last_words(container));
            }
        }
        self.messages.retain(|id, _| observed.by_id(id).is_some());
        let previous = self.previous_status();
        let facts = Facts {
            observed,
            start_errors: &self.start_errors,
            previous: &previous,
            node_ip: self.kubelet.config.node_ip,
            start_time: self.start_time(),
            verdict: self.verdict.as_ref(),
            stopping: self.is_stopping(),
            resize: self.resizing.conditions(),
            in_force: self.resizing.is_in_force(&self.pod),
            removed: &|name| self.restart_counts.contains_key(name),
            ready: &|status| self.probes.ready(&self.pod, status),
            started: &|status| self.probes.started(&self.pod, status),
            message: &|status| self.messages.get(&status.id).cloned().unwrap_or_default(),
        };
        let mut status = pod_status(&self.pod, &facts, self.kubelet.deps.clock.now());
        if self.verdict.is_some() && !self.admitted {
            // Of a pod that was refused there is nothing to tell but that.
            status.container_statuses = None;
            status.init_container_statuses = None;
            status.conditions = previous.conditions.clone();
        }
        status
    }

    /// What was last reported, with the conditions that others wrote.
    fn previous_status(&self) -> PodStatus {
        let mut previous = self.writer.last();
        let known = previous.conditions.get_or_insert_default();
        let api = self.pod.status.as_ref().and_then(|status| status.conditions.as_deref());
        for condition in api.unwrap_or_default() {
            match known.iter_mut().find(|other| other.type_ == condition.type_) {
                None => known.push(condition.clone()),
                Some(other) if is_foreign(&condition.type_) => other.clone_from(condition),
                Some(_) => {}
            }
        }
        previous
    }
}

fn is_foreign(condition: &str) -> bool {
    !matches!(
        condition,
        api::pod::READY
            | api::pod::CONTAINERS_READY
            | api::pod::INITIALIZED
            | api::pod::POD_SCHEDULED
            | api::pod::READY_TO_START_CONTAINERS
            | api::pod::ALL_CONTAINERS_RESTARTING
            | api::pod::RESIZE_PENDING
            | api::pod::RESIZE_IN_PROGRESS
    )
}

/// Resolves when the pod has to stop, which what is under way must not delay.
async fn must_hurry(desired: &mut tokio::sync::watch::Receiver<Desired>) {
    let stops = |desired: &Desired| desired.gone || api::pod::is_terminating(&desired.pod);
    if stops(&desired.borrow()) {
        return std::future::pending().await;
    }
    if desired.wait_for(stops).await.is_err() {
        std::future::pending::<()>().await;
    }
}
