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
use cri::{ContainerId, ContainerState, CriError, PodSandboxConfig};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::kubelet::Kubelet;
use crate::pod::container_status::StartError;
use crate::pod::crash_backoff::{CrashBackoff, go_duration};
use crate::pod::end::{Ending, Endings};
use crate::pod::image::PullFailures;
use crate::pod::last_words::last_words;
use crate::pod::lifecycle::{self, Kill, KillReason, Memory, Plan, Resize, Start, backoff_key};
use crate::pod::observed::Observed;
use crate::pod::probes::{ProbeKind, Probes};
use crate::pod::sandbox_config::sandbox_config;
use crate::pod::spec::{self, Kind};
use crate::pod::start::Starter;
use crate::pod::status::{Facts, Verdict, pod_status};
use crate::pod::status_writer::StatusWriter;
use crate::pod::workers::{Desired, Handle};
use crate::volume::Mounted;

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
    /// The version of the pod that was looked at last.
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
    pulls: PullFailures,
    probes: Probes,
    endings: Endings,
    mounted: Option<Mounted>,
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
        Self {
            writer: StatusWriter::spawn(Arc::clone(&kubelet), &pod),
            uid: spec::uid(&pod).to_owned(),
            kubelet,
            handle,
            pod,
            gone,
            admitted: false,
            verdict: None,
            over: false,
            stopping: None,
            cleaned: false,
            start_errors: BTreeMap::new(),
            backoff: CrashBackoff::default(),
            pulls: PullFailures::default(),
            probes: Probes::default(),
            endings: Endings::default(),
            mounted: None,
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
    }

    fn take(&mut self, pod: Arc<Pod>, gone: bool) {
        let (old, new) = (&self.pod.metadata, &pod.metadata);
        if (&old.labels, &old.annotations) != (&new.labels, &new.annotations) {
            // They may be files of a volume.
            self.handle.objects_changed();
        }
        if old.generation != new.generation {
            self.held.clear();
        }
        self.pod = pod;
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
        self.decide_end(&observed);
        let running: Vec<_> = observed.running().collect();
        let pod_ip = self.pod_ips(&observed).into_iter().next().unwrap_or_default();
        let probed = if self.is_stopping() { Vec::new() } else { running };
        self.probes.follow(&self.kubelet, &self.handle, &self.pod, &pod_ip, &probed);
        if self.is_stopping() {
            return self.stop(&observed).await;
        }
        if !self.admit(&observed) {
            return Ok(Next::Again);
        }
        let plan = self.plan(&observed);
        self.note_waiting(&plan, &observed);
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
    fn decide_end(&mut self, _observed: &Observed) {
        if self.verdict.is_some() || self.is_stopping() {
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
        let noted = self.writer.last().start_time;
        let noted = noted.or_else(|| self.pod.status.as_ref()?.start_time.clone());
        noted.map_or_else(|| self.kubelet.deps.clock.now(), |time| time.0)
    }

    /// Whether the node has taken the pod; when it does not, the verdict says why.
    fn admit(&mut self, observed: &Observed) -> bool {
        if self.admitted {
            return true;
        }
        if let Err(verdict) = self.kubelet.admit(&self.pod, !observed.sandboxes.is_empty()) {
            let Verdict { reason, message } = verdict;
            self.kubelet.pod_event(&self.pod, EventType::Warning, &reason, &message);
            let message = format!("Pod was rejected: {message}");
            self.verdict = Some(Verdict { reason, message });
            return false;
        }
        self.admitted = true;
        true
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

    async fn carry_out(&mut self, plan: Plan, observed: &Observed) -> Result<Next, CriError> {
        if let Some(wait) = self.volumes(observed).await {
            return Ok(Next::Wait(Some(wait)));
        }
        if let Some(attempt) = plan.create_sandbox {
            return self.replace_sandbox(plan.kill_sandbox, attempt, observed).await;
        }
        for kill in &plan.kill {
            self.kill(kill, observed);
        }
        for resize in &plan.resize {
            self.resize(resize).await;
        }
        let (mut acted, mut started) = (false, false);
        let mut held = None;
        for start in &plan.start {
            if let Some(left) = self.held_for(&start.name) {
                held = Some(held.map_or(left, |other: Duration| other.min(left)));
                continue;
            }
            acted = true;
            started |= self.start(start, observed).await;
        }
        if started {
            self.remove_dead(observed).await;
            return Ok(Next::Again);
        }
        if acted {
            // What failed is to be told.
            let observed = Observed::read(&*self.kubelet.deps.runtime, &self.uid).await?;
            self.report(&observed);
            return Ok(Next::Again);
        }
        let now = self.kubelet.deps.clock.now();
        let refresh = self.mounted.as_ref().and_then(|mounted| mounted.refresh_at);
        let refresh =
            refresh.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let wake = [plan.wake_after(), refresh, held, self.deadline_left()];
        Ok(Next::Wait(wake.into_iter().flatten().min()))
    }

    /// Brings the volumes up to date; when they cannot be, says when to try again.
    async fn volumes(&mut self, observed: &Observed) -> Option<Duration> {
        let now = self.kubelet.deps.clock.now();
        let changed = self.handle.take_objects_changed();
        if changed {
            self.held.clear();
        } else if let Some(left) = self.held_for(VOLUMES) {
            return self.mounted.is_none().then_some(left);
        }
        let due = |mounted: &Mounted| mounted.refresh_at.is_some_and(|at| at <= now);
        if !changed && self.mounted.as_ref().is_some_and(|mounted| !due(mounted)) {
            return None;
        }
        let kubelet = Arc::clone(&self.kubelet);
        let ips = self.pod_ips(observed);
        let host_ip = kubelet.config.node_ip.to_string();
        let allocatable = kubelet.allocatable();
        let around = crate::pod::fields::Surroundings {
            pod_ips: &ips,
            host_ip: &host_ip,
            allocatable: &allocatable,
        };
        match kubelet.volumes.set_up(&self.pod, &around).await {
            Ok(mounted) => {
                self.mounted = Some(mounted);
                None
            }
            Err(error) => {
                let text = error.to_string();
                kubelet.pod_event(&self.pod, EventType::Warning, "FailedMount", &text);
                let wait = self.soon();
                self.hold(VOLUMES, wait);
                // Containers that run keep the files they have.
                if let Some(mounted) = &mut self.mounted {
                    mounted.refresh_at = Some(now.saturating_add(wait).unwrap_or(now));
                    return None;
                }
                Some(wait)
            }
        }
    }

    /// Longer every time, up to the usual.
    fn soon(&mut self) -> Duration {
        let wait = self.retry_soon;
        self.retry_soon = (wait * 2).min(RETRY);
        wait
    }

    async fn replace_sandbox(
        &mut self,
        kill: bool,
        attempt: u32,
        observed: &Observed,
    ) -> Result<Next, CriError> {
        if let Some(left) = self.held_for(SANDBOX) {
            return Ok(Next::Wait(Some(left)));
        }
        if kill {
            if observed.running().next().is_some() || observed.ready_sandbox().is_some() {
                let text = "Pod sandbox changed, it will be killed and re-created.";
                self.kubelet.pod_event(&self.pod, EventType::Normal, "SandboxChanged", text);
            }
            for sandbox in &observed.sandboxes {
                self.kubelet.deps.runtime.stop_pod_sandbox(&sandbox.id).await?;
            }
            // The newest one holds the containers whose logs may still be asked for.
            for sandbox in observed.sandboxes.iter().skip(1) {
                self.kubelet.deps.runtime.remove_pod_sandbox(&sandbox.id).await?;
            }
        }
        if let Err(why) = self.kubelet.deps.network.ready()
            && !spec::host_network(&self.pod)
        {
            let text = format!(
                "network is not ready: container runtime network not ready: NetworkReady=false \
                 reason:NetworkPluginNotReady message:{why}"
            );
            self.kubelet.pod_event(&self.pod, EventType::Warning, "NetworkNotReady", &text);
            let wait = self.soon();
            return Ok(Next::Wait(Some(self.hold(SANDBOX, wait))));
        }
        let config = match self.sandbox_config(attempt) {
            Ok(config) => config,
            Err(why) => return Ok(self.sandbox_failed(&why)),
        };
        match self.kubelet.deps.runtime.run_pod_sandbox(&config).await {
            Ok(_) => {
                self.retry_soon = RETRY_SOON_FIRST;
                self.kubelet.metrics.started_pods.inc();
                Ok(Next::Again)
            }
            Err(error) => Ok(self.sandbox_failed(&error.to_string())),
        }
    }

    fn sandbox_failed(&mut self, why: &str) -> Next {
        let text = format!("Failed to create pod sandbox: {why}");
        self.kubelet.metrics.started_pods_errors.inc();
        self.kubelet.pod_event(&self.pod, EventType::Warning, "FailedCreatePodSandBox", &text);
        let wait = self.soon();
        Next::Wait(Some(self.hold(SANDBOX, wait)))
    }

    fn sandbox_config(&self, attempt: u32) -> Result<PodSandboxConfig, String> {
        sandbox_config(&self.kubelet.config, &self.pod, attempt)
    }

    async fn resize(&mut self, resize: &Resize) {
        if self.held_for(&resize.name).is_some() {
            return;
        }
        let runtime = &self.kubelet.deps.runtime;
        let changed = runtime.update_container_resources(&resize.id, &resize.resources).await;
        if let Err(error) = changed {
            let text = format!("Error resizing container {}: {error}", resize.name);
            self.kubelet.pod_event(&self.pod, EventType::Warning, "ResizeError", &text);
            self.hold(&resize.name, RETRY);
        }
    }

    fn kill(&mut self, kill: &Kill, observed: &Observed) {
        let Some((_, container)) = spec::container(&self.pod, &kill.name) else { return };
        let name = &kill.name;
        let probe = match kill.reason {
            KillReason::SpecChanged | KillReason::Resize => None,
            KillReason::Liveness => container.liveness_probe.as_ref(),
            KillReason::Startup => container.startup_probe.as_ref(),
        };
        let why = match kill.reason {
            KillReason::SpecChanged => {
                format!("Container {name} definition changed, will be restarted")
            }
            KillReason::Resize => format!("Container {name} resize requires restart"),
            KillReason::Liveness => {
                format!("Container {name} failed liveness probe, will be restarted")
            }
            KillReason::Startup => {
                format!("Container {name} failed startup probe, will be restarted")
            }
        };
        let grace = probe
            .and_then(|probe| probe.termination_grace_period_seconds)
            .unwrap_or_else(|| spec::grace_period_secs(&self.pod));
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        self.end((kill.kind, container), &kill.id, grace, why, observed);
    }

    fn end(
        &self,
        container: (Kind, k8s_openapi::api::core::v1::Container),
        id: &ContainerId,
        grace: Duration,
        why: String,
        observed: &Observed,
    ) {
        let ending = Ending {
            pod: Arc::clone(&self.pod),
            container,
            id: id.clone(),
            grace,
            why,
            pod_ip: self.pod_ips(observed).into_iter().next().unwrap_or_default(),
        };
        self.endings.begin(&self.kubelet, &self.handle, ending);
    }

    async fn start(&mut self, start: &Start, observed: &Observed) -> bool {
        let Some(sandbox) = observed.ready_sandbox() else { return false };
        let config = match self.sandbox_config(sandbox.metadata.attempt) {
            Ok(config) => config,
            Err(why) => {
                tracing::warn!(pod = spec::described(&self.pod), why, "sandbox not described");
                return false;
            }
        };
        let container = spec::container(&self.pod, &start.name);
        if let (Some(after), Some((_, container))) = (start.after, container)
            && self.start_errors.get(&start.name).is_none_or(|e| e.reason == "CrashLoopBackOff")
        {
            self.backoff.next(&backoff_key(&container), after, self.kubelet.deps.clock.now());
        }
        let starter = Starter {
            kubelet: &self.kubelet,
            pod: &self.pod,
            sandbox: (&sandbox.id, &config),
            pod_ips: &self.pod_ips(observed),
            mounted: &self.mounted.clone().unwrap_or_default(),
            observed,
        };
        match starter.start(start, &mut self.pulls).await {
            Ok(_) => {
                let started = &self.kubelet.metrics.started_containers;
                started.with_label_values(&[container_type(start.kind)]).inc();
                self.start_errors.remove(&start.name);
                true
            }
            Err(error) => {
                let failed = &self.kubelet.metrics.started_containers_errors;
                failed.with_label_values(&[container_type(start.kind), error.reason]).inc();
                let soon = error.reason == "ErrImagePull";
                let pull = self.pulls.wake_after(self.kubelet.deps.clock.now());
                let wait = match pull {
                    // The pull was tried: it backs off from the next look on.
                    Some(_) if soon => Duration::from_secs(1),
                    Some(left) => left.min(RETRY),
                    None => RETRY,
                };
                self.hold(&start.name, wait);
                self.start_errors.insert(start.name.clone(), error);
                false
            }
        }
    }

    /// Keeps one dead container of each name for its logs, as upstream does.
    async fn remove_dead(&self, observed: &Observed) {
        let mut kept = std::collections::BTreeSet::new();
        for container in &observed.containers {
            if container.state != ContainerState::Exited || kept.insert(&container.metadata.name) {
                continue;
            }
            if let Err(error) = self.kubelet.deps.runtime.remove_container(&container.id).await {
                tracing::warn!(container = %container.id, %error, "dead container not removed");
                continue;
            }
            // Its log goes with it; one that is gone already is fine.
            std::fs::remove_file(&container.log_path).ok();
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
        self.writer.set(&status);
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

/// Upstream's word in metrics.
fn container_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Init => "init_container",
        Kind::Regular => "container",
        Kind::Ephemeral => "ephemeral_container",
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
