//! Which pods come and go, in which order.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

fn set(spec: &Value) -> StatefulSet {
    let mut set = json!({ "metadata": { "name": "web", "namespace": "n" },
        "spec": { "selector": {}, "template": {}, "replicas": 3,
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } } } });
    for (name, value) in spec.as_object().unwrap() {
        set["spec"][name] = value.clone();
    }
    serde_json::from_value(set).unwrap()
}

/// Pods by ordinal, revision and state: `ready`, `pending`, `running`, `failed` or `going`.
fn pods(all: &[(i32, &str, &str)]) -> Vec<Arc<PodView>> {
    let pod = |(ordinal, revision, state): &(i32, &str, &str)| {
        let phase = match *state {
            "pending" => "Pending",
            "failed" => "Failed",
            _ => "Running",
        };
        let ready = if ["ready", "going"].contains(state) { "True" } else { "False" };
        let name = format!("web-{ordinal}");
        let mut pod = json!({ "metadata": { "name": name, "namespace": "n", "labels": {
                HASH: revision, "statefulset.kubernetes.io/pod-name": name } },
            "spec": { "containers": [] },
            "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready,
                "lastTransitionTime": "1970-01-01T00:00:50Z" }] } });
        if *state == "going" {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        Arc::new(PodView::new(serde_json::from_value::<Pod>(pod).unwrap()))
    };
    all.iter().map(pod).collect()
}

/// The steps in short: `+2` creates, `+2 old` of the current revision, `-2` deletes.
fn steps(spec: &Value, all: &[(i32, &str, &str)]) -> Vec<String> {
    let plan = planned(spec, all);
    let text = |step: &Step| match step {
        Step::Create { ordinal, is_current: false } => format!("+{ordinal}"),
        Step::Create { ordinal, is_current: true } => format!("+{ordinal} old"),
        Step::Claims { ordinal } => format!("claims {ordinal}"),
        Step::Relabel(pod) => format!("label {}", pod.key.name),
        Step::Owners { ordinal, .. } => format!("owners {ordinal}"),
        Step::Delete(pod) => pod.key.name.replace("web-", "-"),
    };
    plan.steps.iter().map(text).collect()
}

fn planned(spec: &Value, all: &[(i32, &str, &str)]) -> Plan {
    let (set, pods) = (set(spec), pods(all));
    let now = Timestamp::from_second(100).unwrap();
    View { set: &set, pods: &pods, current: "old", update: "new", now }.plan()
}

#[test]
fn pods_come_one_after_the_other_when_those_before_are_ready() {
    let ordered = json!({});
    assert_eq!(steps(&ordered, &[]), ["+0"]);
    assert_eq!(steps(&ordered, &[(0, "new", "pending")]), [""; 0]);
    assert_eq!(steps(&ordered, &[(0, "new", "running")]), [""; 0]);
    assert_eq!(steps(&ordered, &[(0, "new", "ready")]), ["+1"]);
    assert_eq!(steps(&ordered, &[(0, "new", "ready"), (2, "new", "ready")]), ["+1"]);
    assert_eq!(steps(&ordered, &[(0, "new", "going")]), [""; 0]);
}

#[test]
fn parallel_pods_come_and_go_at_once() {
    let parallel = json!({ "podManagementPolicy": "Parallel" });
    assert_eq!(steps(&parallel, &[]), ["+0", "+1", "+2"]);
    assert_eq!(steps(&parallel, &[(1, "new", "pending")]), ["+0", "+2"]);
    let scaled = json!({ "podManagementPolicy": "Parallel", "replicas": 1 });
    let all = [(0, "new", "pending"), (1, "new", "ready"), (2, "new", "pending")];
    assert_eq!(steps(&scaled, &all), ["-2", "-1"]);
}

#[test]
fn pods_go_from_the_highest_down_and_wait_for_broken_ones() {
    let one = json!({ "replicas": 1 });
    let all = [(0, "new", "ready"), (1, "new", "ready"), (2, "new", "ready")];
    assert_eq!(steps(&one, &all), ["-2"]);
    let going = [(0, "new", "ready"), (1, "new", "ready"), (2, "new", "going")];
    assert_eq!(steps(&one, &going), [""; 0]);
    // The first that is broken may go, another one has to wait for it.
    let broken = [(0, "new", "ready"), (1, "new", "ready"), (2, "new", "running")];
    assert_eq!(steps(&one, &broken), ["-2"]);
    let two = [(0, "new", "ready"), (1, "new", "running"), (2, "new", "running")];
    assert_eq!(steps(&one, &two), [""; 0]);
    assert_eq!(steps(&one, &[(0, "new", "running"), (1, "new", "ready")]), [""; 0]);
}

#[test]
fn pods_that_have_ended_are_replaced_in_two_steps() {
    assert_eq!(steps(&json!({}), &[(0, "new", "failed")]), ["-0"]);
    let parallel = json!({ "podManagementPolicy": "Parallel" });
    assert_eq!(steps(&parallel, &[(0, "new", "failed"), (1, "old", "ready")]), ["-0", "+2"]);
}

#[test]
fn ordinals_begin_where_they_should() {
    let shifted = json!({ "ordinals": { "start": 5 }, "replicas": 2 });
    assert_eq!(steps(&shifted, &[]), ["+5"]);
    let all = [(5, "new", "ready"), (6, "new", "ready"), (0, "new", "ready")];
    assert_eq!(steps(&shifted, &all), ["-0"]);
}

#[test]
fn an_update_goes_down_and_waits_for_each_pod() {
    let all = [(0, "old", "ready"), (1, "old", "ready"), (2, "old", "ready")];
    assert_eq!(steps(&json!({}), &all), ["-2"]);
    let next = [(0, "old", "ready"), (1, "old", "ready"), (2, "new", "ready")];
    assert_eq!(steps(&json!({}), &next), ["-1"]);
    let waiting = [(0, "old", "ready"), (1, "old", "ready"), (2, "new", "running")];
    assert_eq!(steps(&json!({}), &waiting), [""; 0]);
    // A parallel set goes on past its broken pods, but does not replace others meanwhile.
    let parallel = json!({ "podManagementPolicy": "Parallel" });
    let broken = [(0, "old", "running"), (1, "old", "ready"), (2, "new", "running")];
    assert_eq!(steps(&parallel, &broken), [""; 0]);
    let broken = [(0, "old", "running"), (1, "old", "ready"), (2, "old", "running")];
    assert_eq!(steps(&parallel, &broken), ["-2"]);
}

#[test]
fn a_partition_keeps_the_pods_below_it_old() {
    let partition = |at: i32| {
        json!({ "updateStrategy": { "type": "RollingUpdate",
            "rollingUpdate": { "partition": at } } })
    };
    let all = [(0, "old", "ready"), (1, "old", "ready"), (2, "old", "ready")];
    assert_eq!(steps(&partition(2), &all), ["-2"]);
    assert_eq!(steps(&partition(3), &all), [""; 0]);
    assert_eq!(steps(&partition(2), &[(0, "old", "ready")]), ["+1 old"]);
    assert_eq!(steps(&partition(1), &[(0, "old", "ready")]), ["+1"]);
}

#[test]
fn several_pods_may_be_missing_during_an_update() {
    let most = |most: Value| {
        json!({ "updateStrategy": { "type": "RollingUpdate",
            "rollingUpdate": { "maxUnavailable": most } } })
    };
    let all = [(0, "old", "ready"), (1, "old", "ready"), (2, "old", "ready")];
    assert_eq!(steps(&most(json!(2)), &all), ["-2", "-1"]);
    assert_eq!(steps(&most(json!("70%")), &all), ["-2", "-1"]);
    assert_eq!(steps(&most(json!("10%")), &all), ["-2"]);
}

#[test]
fn nothing_is_updated_on_delete_only_but_new_pods_are_new() {
    let on_delete = json!({ "updateStrategy": { "type": "OnDelete" } });
    let all = [(0, "old", "ready"), (1, "old", "ready"), (2, "old", "ready")];
    assert_eq!(steps(&on_delete, &all), [""; 0]);
    assert_eq!(steps(&on_delete, &all[..2]), ["+2"]);
}

#[test]
fn claims_are_looked_after_where_there_are_templates() {
    let claims = json!({ "replicas": 1, "volumeClaimTemplates": [
        { "metadata": { "name": "data" }, "spec": {} }] });
    assert_eq!(steps(&claims, &[(0, "new", "pending")]), ["claims 0"]);
    let all = [(0, "new", "ready"), (1, "new", "ready")];
    assert_eq!(steps(&claims, &all), ["owners 0", "owners 1", "-1"]);
}

#[test]
fn a_pod_is_counted_and_waited_for_until_it_has_been_ready_for_long() {
    let patient = json!({ "minReadySeconds": 60 });
    let plan = planned(&patient, &[(0, "new", "ready"), (1, "old", "going")]);
    let counts = Counts { replicas: 2, ready: 2, available: 0, current: 0, updated: 1 };
    assert_eq!(plan.counts, counts);
    assert_eq!(plan.wait, Some(Duration::from_secs(10)));
    assert_eq!(plan.steps, []);
    let soon = planned(&json!({ "minReadySeconds": 50 }), &[(0, "new", "ready")]);
    assert_eq!(soon.counts.available, 1);
    assert!(matches!(soon.steps[..], [Step::Create { ordinal: 1, .. }]));
}
