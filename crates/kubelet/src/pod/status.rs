//! The status of a pod: a pure function of its spec and of what runs.
//!
//! Phases, conditions and their reasons are upstream's `kubelet_pods.go` and
//! `status/generate.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::container_status::{self, StartError};
use crate::pod::observed::Observed;
use crate::pod::pod_resources;
use crate::pod::preemption::{self, PREEMPTING};
use crate::pod::qos::qos;
use crate::pod::spec::{self, Kind};

/// The last words of all containers of a pod: upstream `MaxPodTerminationMessageLogLength`.
const MESSAGES_BYTES_MAX: usize = 12 << 10;

/// Why a pod has ended, when its containers do not say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// The reason of a pod that used more than it may of what others need.
pub(crate) const EVICTED: &str = "Evicted";

/// A condition about a resize; it is there or it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResizeCondition {
    pub(crate) kind: &'static str,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) generation: Option<i64>,
}

impl ResizeCondition {
    /// What was granted is not in force everywhere.
    pub(crate) fn in_progress(generation: Option<i64>) -> Self {
        let kind = api::pod::RESIZE_IN_PROGRESS;
        Self { kind, reason: String::new(), message: String::new(), generation }
    }
}

/// Everything a pod's status is made of beside the spec.
pub(crate) struct Facts<'a> {
    pub(crate) observed: &'a Observed,
    /// Why containers could not be run, by name.
    pub(crate) start_errors: &'a BTreeMap<String, StartError>,
    /// The status of before.
    pub(crate) previous: &'a PodStatus,
    pub(crate) node_ip: IpAddr,
    pub(crate) start_time: Timestamp,
    /// Set when the node ended the pod.
    pub(crate) verdict: Option<&'a Verdict>,
    /// No container will run any more, whatever the restart policy says.
    pub(crate) stopping: bool,
    pub(crate) resize: Vec<ResizeCondition>,
    /// Whether the pod as a whole has the resources that it was granted.
    pub(crate) in_force: bool,
    /// Whether the container of a name was removed to begin anew.
    pub(crate) removed: &'a dyn Fn(&str) -> bool,
    /// Whether a running container passes its readiness probe or has none.
    pub(crate) ready: &'a dyn Fn(&cri::ContainerStatus) -> bool,
    /// Whether a running container passed its startup probe or has none.
    pub(crate) started: &'a dyn Fn(&cri::ContainerStatus) -> bool,
    /// The last words of a container.
    pub(crate) message: &'a dyn Fn(&cri::ContainerStatus) -> String,
}

impl Facts<'_> {
    /// Whether a container's end has all of them begin anew.
    pub(crate) fn is_restarting_all(&self, pod: &Pod) -> bool {
        let mut all = spec::init_containers(pod).iter().chain(&spec::spec(pod).containers);
        !self.stopping
            && all.any(|container| {
                self.observed.latest(&container.name).is_some_and(|status| {
                    status.state == cri::ContainerState::Exited
                        && spec::restarts_all(container, status.exit_code)
                })
            })
    }
}

/// The status at `now`.
pub(crate) fn pod_status(pod: &Pod, facts: &Facts<'_>, now: Timestamp) -> PodStatus {
    let spec = spec::spec(pod);
    let list = |kind: Kind, containers: &[Container]| -> Vec<ContainerStatus> {
        containers.iter().map(|c| container_status::status(pod, kind, c, facts)).collect()
    };
    let init = list(Kind::Init, spec::init_containers(pod));
    let containers = list(Kind::Regular, &spec.containers);
    let ephemeral: Vec<Container> =
        spec.ephemeral_containers.iter().flatten().map(spec::ephemeral_container).collect();
    let ephemeral = list(Kind::Ephemeral, &ephemeral);
    let phase = phase(pod, &init, &containers, facts);
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        qos_class: Some(qos(pod).as_str().to_owned()),
        start_time: Some(Time(facts.start_time)),
        observed_generation: pod.metadata.generation,
        host_ip: Some(facts.node_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: facts.node_ip.to_string() }]),
        reason: facts.verdict.map(|verdict| verdict.reason.clone()),
        message: facts.verdict.map(|verdict| verdict.message.clone()),
        resource_claim_statuses: facts.previous.resource_claim_statuses.clone(),
        ..PodStatus::default()
    };
    if pod_resources::are_set(pod) {
        let before = facts.previous.resources.as_ref().filter(|_| !facts.in_force);
        status.resources = before.or(spec.resources.as_ref()).cloned();
        status.allocated_resources =
            spec.resources.as_ref().and_then(|resources| resources.requests.clone());
    }
    addresses(pod, facts, &mut status);
    let (mut init, mut containers, mut ephemeral) = (init, containers, ephemeral);
    let count = init.len() + containers.len() + ephemeral.len();
    for status in init.iter_mut().chain(&mut containers).chain(&mut ephemeral) {
        container_status::shorten_messages(status, MESSAGES_BYTES_MAX / count.max(1));
    }
    status.conditions = Some(conditions(pod, phase, &init, &containers, facts, now));
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.ephemeral_container_statuses = (!ephemeral.is_empty()).then_some(ephemeral);
    status.container_statuses = Some(containers);
    status
}

fn addresses(pod: &Pod, facts: &Facts<'_>, status: &mut PodStatus) {
    let ips: Vec<String> = if spec::host_network(pod) {
        vec![facts.node_ip.to_string()]
    } else {
        let sandbox = facts.observed.ready_sandbox();
        sandbox.map(|s| s.ips.iter().map(ToString::to_string).collect()).unwrap_or_default()
    };
    if ips.is_empty() {
        // A pod that ended keeps its address in the status.
        if facts.stopping || is_terminal(facts.previous.phase.as_deref()) {
            status.pod_ip.clone_from(&facts.previous.pod_ip);
            status.pod_ips.clone_from(&facts.previous.pod_ips);
        }
        return;
    }
    status.pod_ip = ips.first().cloned();
    status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect());
}

fn is_terminal(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn phase(
    pod: &Pod,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
    facts: &Facts<'_>,
) -> &'static str {
    if facts.verdict.is_some() {
        return "Failed";
    }
    match facts.previous.phase.as_deref() {
        Some("Failed") => return "Failed",
        Some("Succeeded") => return "Succeeded",
        _ => {}
    }
    let count = Count::of(pod, init, containers);
    if count.init_failed_for_good {
        return "Failed";
    }
    if count.init_pending && count.running == 0 && !facts.stopping {
        return "Pending";
    }
    if count.waiting > 0 && !facts.stopping {
        return "Pending";
    }
    if count.running > 0 {
        return "Running";
    }
    if count.stopped == 0 {
        // A pod that is deleted before anything ran has not failed.
        return "Pending";
    }
    if facts.stopping || count.stopped_for_good == containers.len() {
        return if count.succeeded == containers.len() { "Succeeded" } else { "Failed" };
    }
    "Running"
}

#[derive(Default)]
struct Count {
    init_pending: bool,
    init_failed_for_good: bool,
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
    stopped_for_good: usize,
}

impl Count {
    fn of(pod: &Pod, init: &[ContainerStatus], containers: &[ContainerStatus]) -> Self {
        let mut count = Self::default();
        for (container, status) in spec::init_containers(pod).iter().zip(init) {
            match ended(status) {
                Some(code) if !api::pod::is_sidecar(container) => {
                    if code != 0 {
                        if spec::restarts(pod, Kind::Init, container, code) {
                            count.init_pending = true;
                        } else {
                            count.init_failed_for_good = true;
                        }
                    }
                }
                _ => {
                    let up = api::pod::is_sidecar(container) && status.started == Some(true);
                    count.init_pending |= !up && ended(status).is_none();
                }
            }
        }
        for (container, status) in spec::spec(pod).containers.iter().zip(containers) {
            let state = status.state.as_ref();
            if state.is_some_and(|state| state.running.is_some()) {
                count.running += 1;
                continue;
            }
            let Some(code) = ended(status).or_else(|| ended_before(status)) else {
                count.waiting += 1;
                continue;
            };
            count.stopped += 1;
            if ended(status).is_some() {
                count.succeeded += usize::from(code == 0);
                let again = spec::restarts(pod, Kind::Regular, container, code);
                count.stopped_for_good += usize::from(!again);
            }
        }
        count
    }
}

fn ended(status: &ContainerStatus) -> Option<i32> {
    status.state.as_ref()?.terminated.as_ref().map(|terminated| terminated.exit_code)
}

fn ended_before(status: &ContainerStatus) -> Option<i32> {
    status.last_state.as_ref()?.terminated.as_ref().map(|terminated| terminated.exit_code)
}

fn conditions(
    pod: &Pod,
    phase: &str,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
    facts: &Facts<'_>,
    now: Timestamp,
) -> Vec<PodCondition> {
    let containers_ready = containers_ready(pod, phase, init, containers);
    let ready = match &containers_ready {
        Told::Yes => readiness_gates(pod, facts.previous),
        no => no.clone(),
    };
    let sandbox = facts
        .observed
        .ready_sandbox()
        .is_some_and(|sandbox| spec::host_network(pod) || !sandbox.ips.is_empty());
    let sandbox = if sandbox { Told::Yes } else { Told::No("", String::new()) };
    let told = [
        (api::pod::READY_TO_START_CONTAINERS, sandbox),
        (api::pod::INITIALIZED, initialized(pod, phase, init, containers)),
        (api::pod::READY, ready),
        (api::pod::CONTAINERS_READY, containers_ready),
        (api::pod::POD_SCHEDULED, Told::Yes),
    ];
    let told = told.into_iter().map(|(kind, told)| condition(pod, kind, told, facts, now));
    let resize = facts.resize.iter().map(|resize| {
        let told = Told::As(resize.reason.clone(), resize.message.clone());
        let observed_generation = resize.generation;
        PodCondition { observed_generation, ..condition(pod, resize.kind, told, facts, now) }
    });
    let disrupted = facts.verdict.and_then(|verdict| match verdict.reason.as_str() {
        EVICTED => Some(verdict.message.clone()),
        PREEMPTING => Some(preemption::CONDITION.to_owned()),
        _ => None,
    });
    let evicted = disrupted.map(|message| {
        let told = Told::As("TerminationByKubelet".to_owned(), message);
        condition(pod, api::pod::DISRUPTION_TARGET, told, facts, now)
    });
    let restarting = spec::may_restart_all(pod).then(|| {
        let told =
            if facts.is_restarting_all(pod) { Told::Yes } else { Told::No("", String::new()) };
        condition(pod, api::pod::ALL_CONTAINERS_RESTARTING, told, facts, now)
    });
    told.chain(restarting).chain(resize).chain(evicted).collect()
}

#[derive(Clone)]
enum Told {
    Yes,
    /// True, with a reason.
    Because(&'static str),
    No(&'static str, String),
    /// True, with whatever there is to tell.
    As(String, String),
}

fn condition(pod: &Pod, kind: &str, told: Told, facts: &Facts<'_>, now: Timestamp) -> PodCondition {
    let (status, reason, message) = match told {
        Told::Yes => ("True", String::new(), String::new()),
        Told::Because(reason) => ("True", reason.to_owned(), String::new()),
        Told::No(reason, message) => ("False", reason.to_owned(), message),
        Told::As(reason, message) => ("True", reason, message),
    };
    let given = |text: String| (!text.is_empty()).then_some(text);
    let before = facts
        .previous
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind && condition.status == status);
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: given(reason),
        message: given(message),
        last_probe_time: None,
        last_transition_time: before
            .and_then(|condition| condition.last_transition_time.clone())
            .or(Some(Time(now))),
        observed_generation: pod.metadata.generation,
    }
}

fn initialized(
    pod: &Pod,
    phase: &str,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Told {
    if phase == "Succeeded" {
        return Told::Because("PodCompleted");
    }
    let begun = containers.iter().any(|status| {
        let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
        running || ended(status).is_some() || ended_before(status).is_some()
    });
    let incomplete: Vec<&str> = spec::init_containers(pod)
        .iter()
        .zip(init)
        .filter(|(container, status)| {
            if api::pod::is_sidecar(container) {
                status.started != Some(true) && !begun
            } else {
                !status.ready && !begun
            }
        })
        .map(|(container, _)| container.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return Told::Yes;
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    Told::No("ContainersNotInitialized", message)
}

fn containers_ready(
    pod: &Pod,
    phase: &str,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Told {
    match phase {
        "Succeeded" => return Told::No("PodCompleted", String::new()),
        "Failed" => return Told::No("PodFailed", String::new()),
        _ => {}
    }
    let sidecars = spec::init_containers(pod)
        .iter()
        .zip(init)
        .filter(|(container, _)| api::pod::is_sidecar(container))
        .map(|(_, status)| status);
    let unready: Vec<&str> = sidecars
        .chain(containers)
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    if unready.is_empty() {
        return Told::Yes;
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Told::No("ContainersNotReady", message)
}

fn readiness_gates(pod: &Pod, previous: &PodStatus) -> Told {
    let mut problems = Vec::new();
    for gate in spec::spec(pod).readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        let found = previous.conditions.iter().flatten().find(|c| c.type_ == *kind);
        match found {
            None => problems.push(format!(
                "corresponding condition of pod readiness gate \"{kind}\" does not exist."
            )),
            Some(condition) if condition.status != "True" => problems.push(format!(
                "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                condition.status
            )),
            Some(_) => {}
        }
    }
    if problems.is_empty() {
        return Told::Yes;
    }
    Told::No("ReadinessGatesNotReady", problems.join(", "))
}

#[cfg(test)]
#[path = "status/tests.rs"]
mod tests;
