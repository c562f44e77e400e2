//! Statuses of pods in all kinds of states.

use cri::ContainerState as Runs;
use k8s_openapi::api::core::v1::PodReadinessGate;

use super::*;
use crate::pod::fixture::{at, container, pod, status, with_sandbox};

struct Case {
    pod: Pod,
    observed: Observed,
    errors: BTreeMap<String, StartError>,
    stopping: bool,
    ready: bool,
    words: String,
}

impl Case {
    fn new(policy: &str, states: &[(Runs, i32)]) -> Self {
        let containers: Vec<Container> =
            (0..states.len()).map(|n| container(&format!("c{n}"))).collect();
        let observed = containers
            .iter()
            .zip(states)
            .filter(|(_, (state, _))| *state != Runs::Unknown)
            .map(|(container, (state, code))| status(container, *state, *code))
            .collect();
        Self {
            pod: pod(policy, vec![], containers),
            observed: with_sandbox(observed),
            errors: BTreeMap::new(),
            stopping: false,
            ready: true,
            words: String::new(),
        }
    }

    fn status(&self) -> PodStatus {
        let facts = Facts {
            observed: &self.observed,
            start_errors: &self.errors,
            previous: &PodStatus::default(),
            node_ip: [10, 0, 0, 1].into(),
            start_time: at(1),
            verdict: None,
            resize: Vec::new(),
            in_force: true,
            removed: &|_| false,
            stopping: self.stopping,
            ready: &|_| self.ready,
            started: &|_| true,
            message: &|_| self.words.clone(),
        };
        pod_status(&self.pod, &facts, at(9))
    }

    fn phase(&self) -> String {
        self.status().phase.unwrap()
    }
}

fn told(status: &PodStatus, kind: &str) -> (String, String, String) {
    let condition =
        status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == kind).unwrap().clone();
    (condition.status, condition.reason.unwrap_or_default(), condition.message.unwrap_or_default())
}

#[test]
fn the_phase_follows_from_the_containers() {
    let absent = (Runs::Unknown, 0);
    let running = (Runs::Running, 0);
    let (good, bad) = ((Runs::Exited, 0), (Runs::Exited, 1));
    type Row<'a> = (&'a str, &'a [(Runs, i32)], &'a str);
    let cases: [Row<'_>; 9] = [
        ("Always", &[absent], "Pending"),
        ("Always", &[running, absent], "Pending"),
        ("Always", &[running, running], "Running"),
        ("Always", &[bad], "Running"),
        ("Never", &[bad], "Failed"),
        ("Never", &[good, bad], "Failed"),
        ("Never", &[good, good], "Succeeded"),
        ("OnFailure", &[good, bad], "Running"),
        ("OnFailure", &[good, running], "Running"),
    ];
    for (policy, states, phase) in cases {
        assert_eq!(Case::new(policy, states).phase(), phase, "{policy} {states:?}");
    }
    let mut stopping = Case::new("Always", &[good]);
    stopping.stopping = true;
    assert_eq!(stopping.phase(), "Succeeded");
}

#[test]
fn a_ready_pod_has_all_conditions() {
    let status = Case::new("Always", &[(Runs::Running, 0)]).status();
    for kind in
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    {
        assert_eq!(told(&status, kind).0, "True", "{kind}");
    }
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.9"));
    assert_eq!(status.host_ip.as_deref(), Some("10.0.0.1"));
    let container = &status.container_statuses.unwrap()[0];
    assert!(container.ready && container.started == Some(true));
    assert_eq!(container.container_id.as_deref(), Some("ironclad://c0-id"));
}

#[test]
fn unready_containers_are_named() {
    let mut case = Case::new("Always", &[(Runs::Running, 0), (Runs::Unknown, 0)]);
    case.ready = false;
    let (status, reason, message) = told(&case.status(), "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ContainersNotReady"));
    assert_eq!(message, "containers with unready status: [c0 c1]");
}

#[test]
fn a_readiness_gate_must_be_opened() {
    let mut case = Case::new("Always", &[(Runs::Running, 0)]);
    let gates = vec![PodReadinessGate { condition_type: "example.com/gate".into() }];
    case.pod.spec.as_mut().unwrap().readiness_gates = Some(gates);
    let status = case.status();
    assert_eq!(told(&status, "ContainersReady").0, "True");
    assert_eq!(
        told(&status, "Ready"),
        (
            "False".into(),
            "ReadinessGatesNotReady".into(),
            "corresponding condition of pod readiness gate \"example.com/gate\" does not exist."
                .into()
        )
    );
}

#[test]
fn a_container_in_back_off_waits_and_keeps_its_last_state() {
    let mut case = Case::new("Always", &[(Runs::Exited, 1)]);
    let error = StartError { reason: "CrashLoopBackOff", message: "back-off 10s".into() };
    case.errors.insert("c0".into(), error);
    let container = case.status().container_statuses.unwrap().remove(0);
    let waiting = container.state.unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(container.last_state.unwrap().terminated.unwrap().exit_code, 1);
    case.stopping = true;
    let container = case.status().container_statuses.unwrap().remove(0);
    assert!(container.state.unwrap().terminated.is_some(), "a pod that stops waits for nothing");
}

#[test]
fn an_unfinished_init_container_keeps_the_pod_pending() {
    let init = container("init");
    let mut case = Case::new("Always", &[(Runs::Unknown, 0)]);
    case.pod.spec.as_mut().unwrap().init_containers = Some(vec![init.clone()]);
    case.observed = with_sandbox(vec![status(&init, Runs::Running, 0)]);
    let pending = case.status();
    assert_eq!(pending.phase.as_deref(), Some("Pending"));
    assert_eq!(told(&pending, "Initialized").2, "containers with incomplete status: [init]");
    let waiting = pending.container_statuses.unwrap().remove(0).state.unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"));
}

#[test]
fn many_containers_share_the_room_for_last_words() {
    let mut case = Case::new("Never", &[(Runs::Exited, 1); 12]);
    case.words = "x".repeat(4096);
    let told = case.status().container_statuses.unwrap().remove(0);
    let words = told.state.unwrap().terminated.unwrap().message.unwrap();
    assert_eq!(words.len(), 1024);
}
