//! What is to be done about a pod: a pure function of its spec and of what runs.
//!
//! The rules are upstream's `kuberuntime.computePodActions`: a changed or missing sandbox comes
//! first, then init containers in their order, then the pod's containers; containers that ended
//! are run again by the restart policy after a back-off.

use std::collections::BTreeSet;
use std::time::Duration;

use cri::{ContainerId, ContainerState, ContainerStatus, LinuxContainerResources};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::labels;
use crate::pod::crash_backoff::CrashBackoff;
use crate::pod::observed::{Observed, ended_at};
use crate::pod::qos;
use crate::pod::spec::{self, Kind};

/// Why a running container is to be ended and run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillReason {
    SpecChanged,
    Liveness,
    Startup,
    /// New limits of a kind that the container asks to be restarted for.
    Resize,
    /// Another container's end has all of them begin anew.
    RestartAll,
}

/// All containers of a pod begin anew, init containers too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RestartAll {
    /// What is removed for it.
    pub(crate) remove: Vec<ContainerId>,
    /// For the back-off: whose end it was, and when.
    pub(crate) key: String,
    pub(crate) since: Timestamp,
}

/// A container to end, after which it is run again by the restart policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) id: ContainerId,
    pub(crate) reason: KillReason,
}

/// A running container that gets other limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resize {
    pub(crate) name: String,
    pub(crate) id: ContainerId,
    pub(crate) resources: LinuxContainerResources,
    /// Whether it may use less memory than now.
    pub(crate) takes_memory: bool,
}

/// A container to make and run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// How often it was made before.
    pub(crate) attempt: u32,
    /// When the one before ended, for the back-off.
    pub(crate) after: Option<Timestamp>,
}

/// A container whose turn comes after a back-off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) delay: Duration,
    pub(crate) left: Duration,
}

/// What is to be done now, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// End everything first, sandbox included: it changed or is gone.
    pub(crate) kill_sandbox: bool,
    /// Make a sandbox, which is this attempt.
    pub(crate) create_sandbox: Option<u32>,
    pub(crate) kill: Vec<Kill>,
    pub(crate) resize: Vec<Resize>,
    pub(crate) start: Vec<Start>,
    pub(crate) waiting: Vec<Wait>,
    pub(crate) restart_all: Option<RestartAll>,
    /// Nothing runs and nothing will: the sandbox can go.
    pub(crate) finished: bool,
}

impl Plan {
    /// When to look again at the latest.
    pub(crate) fn wake_after(&self) -> Option<Duration> {
        self.waiting.iter().map(|wait| wait.left).min()
    }
}

/// What the plan depends on beside the spec and the runtime.
pub(crate) struct Memory<'a> {
    /// Containers that failed their liveness probe.
    pub(crate) unhealthy: &'a BTreeSet<ContainerId>,
    /// Containers that failed their startup probe.
    pub(crate) never_started: &'a BTreeSet<ContainerId>,
    /// Containers that passed their startup probe, or have none.
    pub(crate) started: &'a dyn Fn(&ContainerStatus) -> bool,
    /// Containers that are being ended.
    pub(crate) ending: &'a BTreeSet<ContainerId>,
    pub(crate) backoff: &'a CrashBackoff,
}

/// Decides.
pub(crate) fn plan(pod: &Pod, observed: &Observed, memory: &Memory<'_>, now: Timestamp) -> Plan {
    let mut planner = Planner { pod, observed, memory, now, plan: Plan::default() };
    planner.decide();
    planner.plan
}

struct Planner<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    memory: &'a Memory<'a>,
    now: Timestamp,
    plan: Plan,
}

enum InitProgress {
    /// All are done, the pod's containers may run.
    Done,
    /// One of them runs, waits, or is to be started.
    Busy,
    /// One failed for good.
    Failed,
}

impl Planner<'_> {
    fn decide(&mut self) {
        if self.sandbox_is_missing() {
            self.replace_sandbox();
            return;
        }
        self.ephemeral_containers();
        if self.restart_all() {
            return;
        }
        match self.init_containers() {
            InitProgress::Done => self.containers(),
            InitProgress::Busy => {}
            InitProgress::Failed => {
                self.plan.finished = self.observed.running().next().is_none();
            }
        }
    }

    fn sandbox_is_missing(&self) -> bool {
        match self.observed.ready_sandbox() {
            None => true,
            Some(sandbox) => !spec::host_network(self.pod) && sandbox.ips.is_empty(),
        }
    }

    /// A pod whose containers have all ended for good needs no sandbox any more.
    fn replace_sandbox(&mut self) {
        let wanted = spec::spec(self.pod).containers.iter().any(|container| {
            match self.observed.latest(&container.name) {
                Some(status) if status.state == ContainerState::Exited => {
                    spec::restarts(self.pod, Kind::Regular, container, status.exit_code)
                }
                Some(_) => true,
                None => !self.init_failed_for_good(),
            }
        });
        if !wanted {
            self.plan.finished = true;
            return;
        }
        let latest = self.observed.sandboxes.first();
        self.plan.kill_sandbox = latest.is_some();
        self.plan.create_sandbox = Some(latest.map_or(0, |s| s.metadata.attempt + 1));
    }

    fn init_failed_for_good(&self) -> bool {
        spec::init_containers(self.pod).iter().any(|container| {
            self.observed.latest(&container.name).is_some_and(|status| {
                status.state == ContainerState::Exited
                    && status.exit_code != 0
                    && !spec::restarts(self.pod, Kind::Init, container, status.exit_code)
            })
        })
    }

    fn ephemeral_containers(&mut self) {
        for container in spec::spec(self.pod).ephemeral_containers.iter().flatten() {
            if self.observed.latest(&container.name).is_none() {
                self.plan.start.push(first_start(Kind::Ephemeral, &container.name));
            }
        }
    }

    /// Whether a container has ended in a way that has the whole pod begin anew: everything is
    /// ended at once, and what has ended is removed.
    fn restart_all(&mut self) -> bool {
        let lists = spec::init_containers(self.pod).iter().map(|c| (Kind::Init, c));
        let containers = &spec::spec(self.pod).containers;
        let all: Vec<(Kind, &Container)> =
            lists.chain(containers.iter().map(|c| (Kind::Regular, c))).collect();
        let asks = |container: &Container| {
            let status = self.in_sandbox(&container.name)?;
            let ended = status.state == ContainerState::Exited;
            let asks = ended && spec::restarts_all(container, status.exit_code);
            asks.then(|| ended_at(status))
        };
        let Some((kind, container, since)) =
            all.iter().find_map(|(kind, c)| Some((*kind, *c, asks(c)?)))
        else {
            return false;
        };
        let key = backoff_key(container);
        if let Some((delay, left)) = self.memory.backoff.waiting(&key, since, self.now) {
            let name = container.name.clone();
            self.plan.waiting.push(Wait { kind, name, delay, left });
            return true;
        }
        let of_pod = |status: &&ContainerStatus| {
            all.iter().any(|(_, container)| container.name == status.metadata.name)
        };
        let running: Vec<&ContainerStatus> = self.observed.running().filter(of_pod).collect();
        for status in &running {
            if !self.memory.ending.contains(&status.id) {
                let (name, id) = (status.metadata.name.clone(), status.id.clone());
                let reason = KillReason::RestartAll;
                self.plan.kill.push(Kill { kind: Kind::Regular, name, id, reason });
            }
        }
        if running.is_empty() {
            let remove = self.observed.containers.iter().filter(of_pod).map(|s| s.id.clone());
            self.plan.restart_all = Some(RestartAll { remove: remove.collect(), key, since });
        }
        true
    }

    fn init_containers(&mut self) -> InitProgress {
        // Once a container of the pod was made, the init containers had their time: only
        // sidecars are looked after.
        let initialized = spec::spec(self.pod)
            .containers
            .iter()
            .any(|container| self.in_sandbox(&container.name).is_some());
        for container in spec::init_containers(self.pod) {
            let sidecar = api::pod::is_sidecar(container);
            if sidecar {
                let through = self.sidecar(container);
                if !through && !initialized {
                    return InitProgress::Busy;
                }
                continue;
            }
            if initialized {
                continue;
            }
            match self.in_sandbox(&container.name) {
                None => {
                    self.plan.start.push(self.next_start(Kind::Init, container));
                    return InitProgress::Busy;
                }
                Some(status) => match status.state {
                    ContainerState::Exited if status.exit_code == 0 => {}
                    ContainerState::Exited => {
                        if !spec::restarts(self.pod, Kind::Init, container, status.exit_code) {
                            return InitProgress::Failed;
                        }
                        self.start_again(Kind::Init, container);
                        return InitProgress::Busy;
                    }
                    ContainerState::Running => return InitProgress::Busy,
                    ContainerState::Created | ContainerState::Unknown => {
                        self.plan.start.push(self.next_start(Kind::Init, container));
                        return InitProgress::Busy;
                    }
                },
            }
        }
        InitProgress::Done
    }

    /// Whether the containers after this sidecar may go on.
    fn sidecar(&mut self, container: &Container) -> bool {
        match self.in_sandbox(&container.name).map(|status| (status.state, status.clone())) {
            Some((ContainerState::Running, status)) => {
                let healthy = self.look_after(Kind::Init, container, &status);
                healthy && (self.memory.started)(&status)
            }
            Some((ContainerState::Exited, _)) => {
                self.start_again(Kind::Init, container);
                false
            }
            _ => {
                self.plan.start.push(self.next_start(Kind::Init, container));
                // Without a startup probe it is started as soon as it runs, so the next one
                // follows at the next look.
                false
            }
        }
    }

    fn containers(&mut self) {
        let mut alive = !self.plan.start.is_empty();
        for container in &spec::spec(self.pod).containers {
            let Some(status) = self.observed.latest(&container.name) else {
                self.plan.start.push(first_start(Kind::Regular, &container.name));
                alive = true;
                continue;
            };
            match status.state {
                ContainerState::Running => {
                    self.look_after(Kind::Regular, container, status);
                    alive = true;
                }
                ContainerState::Exited => {
                    if spec::restarts(self.pod, Kind::Regular, container, status.exit_code) {
                        self.start_again(Kind::Regular, container);
                        alive = true;
                    }
                }
                ContainerState::Created | ContainerState::Unknown => {
                    self.plan.start.push(self.next_start(Kind::Regular, container));
                    alive = true;
                }
            }
        }
        if !alive {
            // Sidecars do not keep a pod alive.
            self.plan.start.clear();
            self.plan.finished = true;
        }
    }

    /// Ends a running container when it must be replaced; says whether it may go on.
    fn look_after(&mut self, kind: Kind, container: &Container, status: &ContainerStatus) -> bool {
        if self.memory.ending.contains(&status.id) {
            return false;
        }
        let noted = status.annotations.get(labels::CONTAINER_HASH);
        let reason = if noted.is_some_and(|hash| *hash != spec::container_hash(container)) {
            KillReason::SpecChanged
        } else if self.memory.unhealthy.contains(&status.id) {
            KillReason::Liveness
        } else if self.memory.never_started.contains(&status.id) {
            KillReason::Startup
        } else {
            match resize(self.pod, container, status) {
                None => return true,
                Some(Resizing::InPlace(resources)) => {
                    let (name, id) = (container.name.clone(), status.id.clone());
                    let present = status.resources.as_ref().map_or(0, |r| r.memory_limit_in_bytes);
                    let takes_memory = is_less(resources.memory_limit_in_bytes, present);
                    self.plan.resize.push(Resize { name, id, resources, takes_memory });
                    return true;
                }
                Some(Resizing::Restart) => KillReason::Resize,
            }
        };
        let (name, id) = (container.name.clone(), status.id.clone());
        self.plan.kill.push(Kill { kind, name, id, reason });
        false
    }

    fn start_again(&mut self, kind: Kind, container: &Container) {
        let start = self.next_start(kind, container);
        let since = start.after.unwrap_or(self.now);
        let key = backoff_key(container);
        match self.memory.backoff.waiting(&key, since, self.now) {
            None => self.plan.start.push(start),
            Some((delay, left)) => {
                self.plan.waiting.push(Wait { kind, name: start.name, delay, left });
            }
        }
    }

    fn next_start(&self, kind: Kind, container: &Container) -> Start {
        let latest = self.observed.latest(&container.name);
        Start {
            kind,
            name: container.name.clone(),
            attempt: latest.map_or(0, |status| status.metadata.attempt + 1),
            after: latest.map(ended_at),
        }
    }

    /// The newest container of a name, when it belongs to the present sandbox: an init container
    /// that ran in an earlier one runs again.
    fn in_sandbox(&self, name: &str) -> Option<&ContainerStatus> {
        let made_at = self.observed.ready_sandbox()?.created_at;
        self.observed.latest(name).filter(|status| status.created_at >= made_at)
    }
}

/// Whether the limits in force are not those of the spec.
pub(crate) fn is_to_be_resized(pod: &Pod, container: &Container, status: &ContainerStatus) -> bool {
    resize(pod, container, status).is_some()
}

enum Resizing {
    InPlace(LinuxContainerResources),
    Restart,
}

/// What is to be done when the limits in force are not those of the spec.
fn resize(pod: &Pod, container: &Container, status: &ContainerStatus) -> Option<Resizing> {
    let present = status.resources.as_ref()?;
    // The score is given at the start only, so the node's memory does not matter.
    let wanted = qos::linux_resources(pod, container, 0);
    // 0 is not given, −1 is without a limit: the same for a container that runs.
    let differ = |a: i64, b: i64| a.max(0) != b.max(0);
    let cpu = differ(present.cpu_shares, wanted.cpu_shares)
        || differ(present.cpu_quota, wanted.cpu_quota);
    let memory = differ(present.memory_limit_in_bytes, wanted.memory_limit_in_bytes);
    if !cpu && !memory {
        return None;
    }
    let restart = container.resize_policy.iter().flatten().any(|policy| {
        let changed = if policy.resource_name == "cpu" { cpu } else { memory };
        changed && policy.restart_policy == "RestartContainer"
    });
    if restart {
        return Some(Resizing::Restart);
    }
    let without = |limit: i64| if limit == 0 { -1 } else { limit };
    Some(Resizing::InPlace(LinuxContainerResources {
        cpu_shares: wanted.cpu_shares,
        cpu_period: wanted.cpu_period,
        cpu_quota: if cpu { without(wanted.cpu_quota) } else { 0 },
        memory_limit_in_bytes: if memory { without(wanted.memory_limit_in_bytes) } else { 0 },
        ..LinuxContainerResources::default()
    }))
}

/// Whether a limit allows less than another; what is not above 0 is none.
pub(crate) fn is_less(limit: i64, than: i64) -> bool {
    limit > 0 && (than <= 0 || limit < than)
}

fn first_start(kind: Kind, name: &str) -> Start {
    Start { kind, name: name.to_owned(), attempt: 0, after: None }
}

/// What a back-off is kept for.
pub(crate) fn backoff_key(container: &Container) -> String {
    format!("{}_{}", container.name, spec::container_hash(container))
}

#[cfg(test)]
mod tests;
