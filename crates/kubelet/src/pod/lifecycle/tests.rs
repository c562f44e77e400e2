//! Plans for pods in all kinds of states.

use super::*;
use crate::pod::fixture::{at, container, pod, status, with_sandbox};

fn decide(pod: &Pod, observed: &Observed) -> Plan {
    decide_with(pod, observed, &BTreeSet::new(), &CrashBackoff::default())
}

fn decide_with(
    pod: &Pod,
    observed: &Observed,
    unhealthy: &BTreeSet<ContainerId>,
    backoff: &CrashBackoff,
) -> Plan {
    let none = BTreeSet::new();
    let memory =
        Memory { unhealthy, never_started: &none, started: &|_| true, ending: &none, backoff };
    plan(pod, observed, &memory, at(4))
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.start.iter().map(|start| start.name.as_str()).collect()
}

#[test]
fn a_new_pod_gets_a_sandbox_first() {
    let plan = decide(&pod("Always", vec![], vec![container("a")]), &Observed::default());
    assert_eq!(plan.create_sandbox, Some(0));
    assert!(!plan.kill_sandbox && plan.start.is_empty());
}

#[test]
fn all_containers_of_a_pod_start_together() {
    let pod = pod("Always", vec![], vec![container("a"), container("b")]);
    assert_eq!(names(&decide(&pod, &with_sandbox(vec![]))), ["a", "b"]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let (one, two) = (container("one"), container("two"));
    let pod = pod("Always", vec![one.clone(), two.clone()], vec![container("a")]);
    assert_eq!(names(&decide(&pod, &with_sandbox(vec![]))), ["one"]);
    let running = with_sandbox(vec![status(&one, ContainerState::Running, 0)]);
    assert_eq!(decide(&pod, &running), Plan::default());
    let done = with_sandbox(vec![status(&one, ContainerState::Exited, 0)]);
    assert_eq!(names(&decide(&pod, &done)), ["two"]);
    let both = with_sandbox(vec![
        status(&two, ContainerState::Exited, 0),
        status(&one, ContainerState::Exited, 0),
    ]);
    assert_eq!(names(&decide(&pod, &both)), ["a"]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let init = container("init");
    let observed = with_sandbox(vec![status(&init, ContainerState::Exited, 1)]);
    let never = pod("Never", vec![init.clone()], vec![container("a")]);
    assert!(decide(&never, &observed).finished);
    let always = pod("Always", vec![init], vec![container("a")]);
    assert_eq!(names(&decide(&always, &observed)), ["init"]);
}

#[test]
fn a_sidecar_starts_before_the_containers_and_is_restarted_while_they_run() {
    let sidecar = Container { restart_policy: Some("Always".into()), ..container("side") };
    let a = container("a");
    let pod = pod("Never", vec![sidecar.clone()], vec![a.clone()]);
    assert_eq!(names(&decide(&pod, &with_sandbox(vec![]))), ["side"]);
    let up = status(&sidecar, ContainerState::Running, 0);
    assert_eq!(names(&decide(&pod, &with_sandbox(vec![up.clone()]))), ["a"]);
    let down = status(&sidecar, ContainerState::Exited, 0);
    let running = status(&a, ContainerState::Running, 0);
    assert_eq!(names(&decide(&pod, &with_sandbox(vec![down, running]))), ["side"]);
    let ended = status(&a, ContainerState::Exited, 0);
    assert!(decide(&pod, &with_sandbox(vec![up, ended])).finished);
}

#[test]
fn a_container_that_ended_is_run_again_by_the_restart_policy() {
    let a = container("a");
    let failed = with_sandbox(vec![status(&a, ContainerState::Exited, 1)]);
    for (policy, again) in [("Always", true), ("OnFailure", true), ("Never", false)] {
        let plan = decide(&pod(policy, vec![], vec![a.clone()]), &failed);
        assert_eq!(!plan.start.is_empty(), again, "{policy}");
        assert_eq!(plan.finished, !again, "{policy}");
    }
    let start = decide(&pod("Always", vec![], vec![a]), &failed).start.remove(0);
    assert_eq!((start.attempt, start.after), (1, Some(at(3))));
}

#[test]
fn a_container_in_back_off_waits() {
    let a = container("a");
    let mut backoff = CrashBackoff::default();
    backoff.next(&backoff_key(&a), at(1), at(1));
    let observed = with_sandbox(vec![status(&a, ContainerState::Exited, 1)]);
    let plan = decide_with(&pod("Always", vec![], vec![a]), &observed, &BTreeSet::new(), &backoff);
    assert!(plan.start.is_empty());
    assert_eq!(plan.waiting[0].delay, Duration::from_secs(10));
    assert_eq!(plan.wake_after(), Some(Duration::from_secs(9)));
}

#[test]
fn an_unhealthy_or_changed_container_is_ended() {
    let a = container("a");
    let running = status(&a, ContainerState::Running, 0);
    let unhealthy = BTreeSet::from([running.id.clone()]);
    let observed = with_sandbox(vec![running]);
    let same = pod("Always", vec![], vec![a.clone()]);
    let plan = decide_with(&same, &observed, &unhealthy, &CrashBackoff::default());
    assert_eq!(plan.kill[0].reason, KillReason::Liveness);
    let newer = Container { image: Some("x:2".into()), ..a };
    let plan = decide(&pod("Always", vec![], vec![newer]), &observed);
    assert_eq!(plan.kill[0].reason, KillReason::SpecChanged);
}

#[test]
fn a_lost_sandbox_is_replaced_unless_everything_has_ended_for_good() {
    let a = container("a");
    let mut observed = with_sandbox(vec![status(&a, ContainerState::Exited, 0)]);
    observed.sandboxes[0].state = cri::PodSandboxState::NotReady;
    let again = decide(&pod("Always", vec![], vec![a.clone()]), &observed);
    assert_eq!((again.kill_sandbox, again.create_sandbox), (true, Some(1)));
    let over = decide(&pod("OnFailure", vec![], vec![a]), &observed);
    assert!(over.finished && over.create_sandbox.is_none());
}

#[test]
fn new_limits_are_given_in_place_unless_a_restart_is_asked_for() {
    use k8s_openapi::api::core::v1::{ContainerResizePolicy, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    let limited = |cpu: &str| {
        let limits = [("cpu".to_owned(), Quantity(cpu.into()))];
        let resources =
            ResourceRequirements { limits: Some(limits.into()), ..ResourceRequirements::default() };
        Container { resources: Some(resources), ..container("a") }
    };
    let before = limited("1");
    let mut running = status(&before, ContainerState::Running, 0);
    let of = pod("Always", vec![], vec![before.clone()]);
    running.resources = Some(qos::linux_resources(&of, &before, 0));
    let observed = with_sandbox(vec![running]);
    assert_eq!(decide(&of, &observed), Plan::default());
    let mut after = limited("2");
    let plan = decide(&pod("Always", vec![], vec![after.clone()]), &observed);
    assert_eq!(plan.resize[0].resources.cpu_quota, 200_000);
    assert_eq!(plan.resize[0].resources.memory_limit_in_bytes, 0, "memory stays as it is");
    after.resize_policy = Some(vec![ContainerResizePolicy {
        resource_name: "cpu".into(),
        restart_policy: "RestartContainer".into(),
    }]);
    let plan = decide(&pod("Always", vec![], vec![after]), &observed);
    assert_eq!(plan.kill[0].reason, KillReason::Resize);
}
