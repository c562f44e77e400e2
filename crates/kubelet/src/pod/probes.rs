//! The probes of a pod's running containers: one task per container and probe.
//!
//! A container without a probe counts as having passed it; one with a startup probe is probed for
//! nothing else before it has passed that.

mod check;
mod grpc;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::EventType;
use cri::{ContainerId, ContainerStatus};
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use stdx::shutdown::Shutdown;
use tokio::sync::watch;

use crate::kubelet::{Kubelet, lock};
use crate::pod::spec::{self, Kind};
use crate::pod::workers::Handle;
use check::{Outcome, check};
use tally::Tally;

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// The probe of a kind.
pub(crate) fn probe_of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

type Results = Arc<Mutex<BTreeMap<(ContainerId, ProbeKind), bool>>>;

/// The probes of one pod. Dropping it ends them.
#[derive(Default)]
pub(crate) struct Probes {
    results: Results,
    followed: BTreeMap<ContainerId, Followed>,
}

struct Followed {
    stop: Shutdown,
    /// Passed the startup probe.
    started: watch::Sender<bool>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.stop.begin();
    }
}

impl Probes {
    /// Probes these running containers from now on, and no others.
    pub(crate) fn follow(
        &mut self,
        kubelet: &Arc<Kubelet>,
        handle: &Handle,
        pod: &Arc<Pod>,
        pod_ip: &str,
        running: &[&ContainerStatus],
    ) {
        let ids: BTreeSet<&ContainerId> = running.iter().map(|status| &status.id).collect();
        self.followed.retain(|id, _| ids.contains(id));
        lock(&self.results).retain(|(id, _), _| ids.contains(id));
        for status in running {
            if self.followed.contains_key(&status.id) {
                continue;
            }
            let Some((kind, container)) = spec::container(pod, &status.metadata.name) else {
                continue;
            };
            let followed = Followed {
                stop: kubelet.shutdown.child(),
                started: watch::Sender::new(container.startup_probe.is_none()),
            };
            for probe in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
                let Some(settings) = probe_of(&container, probe) else { continue };
                let task = Task {
                    kubelet: Arc::clone(kubelet),
                    handle: handle.clone(),
                    pod: Arc::clone(pod),
                    pod_ip: pod_ip.to_owned(),
                    kind,
                    container: container.clone(),
                    id: status.id.clone(),
                    begun: status.started_at.unwrap_or(status.created_at),
                    probe,
                    settings: settings.clone(),
                    results: Arc::clone(&self.results),
                    started: followed.started.clone(),
                };
                let stop = followed.stop.clone();
                // It ends with the container, or with the pod's worker.
                drop(stdx::task::spawn("probe", async move {
                    tokio::select! {
                        () = task.run() => {}
                        () = stop.begun() => {}
                    }
                }));
            }
            self.followed.insert(status.id.clone(), followed);
        }
    }

    /// Whether a running container passed its startup probe, or has none.
    pub(crate) fn started(&self, pod: &Pod, status: &ContainerStatus) -> bool {
        self.passed(pod, status, ProbeKind::Startup)
    }

    /// Whether a running container passes its readiness probe, or has none.
    pub(crate) fn ready(&self, pod: &Pod, status: &ContainerStatus) -> bool {
        self.passed(pod, status, ProbeKind::Readiness)
    }

    /// Containers whose probe of a kind failed.
    pub(crate) fn failed(&self, kind: ProbeKind) -> BTreeSet<ContainerId> {
        let results = lock(&self.results);
        let failed = results.iter().filter(|((_, of), passed)| *of == kind && !**passed);
        failed.map(|((id, _), _)| id.clone()).collect()
    }

    fn passed(&self, pod: &Pod, status: &ContainerStatus, kind: ProbeKind) -> bool {
        let container = spec::container(pod, &status.metadata.name);
        let probed = container.is_some_and(|(_, c)| probe_of(&c, kind).is_some());
        !probed || lock(&self.results).get(&(status.id.clone(), kind)) == Some(&true)
    }
}

struct Task {
    kubelet: Arc<Kubelet>,
    handle: Handle,
    pod: Arc<Pod>,
    pod_ip: String,
    kind: Kind,
    container: Container,
    id: ContainerId,
    begun: jiff::Timestamp,
    probe: ProbeKind,
    settings: Probe,
    results: Results,
    started: watch::Sender<bool>,
}

impl Task {
    async fn run(self) {
        if self.probe != ProbeKind::Startup {
            // The sender is ours, so waiting ends with `true` only.
            self.started.subscribe().wait_for(|started| *started).await.ok();
        }
        let clock = &self.kubelet.deps.clock;
        let seconds = |n: Option<i32>, least: u64| {
            Duration::from_secs(u64::try_from(n.unwrap_or(0)).unwrap_or(0).max(least))
        };
        let delay = seconds(self.settings.initial_delay_seconds, 0);
        let age = Duration::try_from(clock.now().duration_since(self.begun)).unwrap_or_default();
        if let Some(left) = delay.checked_sub(age).filter(|left| !left.is_zero()) {
            clock.sleep(left).await;
        }
        let period = seconds(self.settings.period_seconds.or(Some(10)), 1);
        let mut tally = Tally::new(&self.settings);
        loop {
            let outcome =
                check(&self.kubelet, &self.id, &self.container, &self.settings, &self.pod_ip).await;
            let passed = outcome == Outcome::Success;
            self.tell(&outcome);
            if let Some(verdict) = tally.add(passed)
                && self.conclude(verdict)
            {
                return;
            }
            clock.sleep(period).await;
        }
    }

    /// Notes a verdict; says whether probing is over.
    fn conclude(&self, verdict: bool) -> bool {
        let before = lock(&self.results).insert((self.id.clone(), self.probe), verdict);
        if before != Some(verdict) {
            if self.probe == ProbeKind::Startup && verdict {
                self.started.send_replace(true);
            }
            self.handle.wake();
        }
        match self.probe {
            ProbeKind::Startup => true,
            ProbeKind::Liveness => !verdict,
            ProbeKind::Readiness => false,
        }
    }

    fn tell(&self, outcome: &Outcome) {
        let word = self.probe.word();
        let text = match outcome {
            Outcome::Success => return,
            Outcome::Failure(output) => format!("{word} probe failed: {output}"),
            Outcome::Error(error) => {
                format!("{word} probe errored and resulted in unknown state: {error}")
            }
        };
        let whom = (self.kind, self.container.name.as_str());
        self.kubelet.container_event(&self.pod, whom, EventType::Warning, "Unhealthy", &text);
    }
}
