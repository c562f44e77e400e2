//! G19: StatefulSets, whose pods are ready as long as they have a file.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use super::{at, name, workload};
use crate::harness::{Harness, collection, is_ready, pod_path};

const SETS: &str = "apps/v1/statefulsets";

fn set(replicas: u32, number: &str, more: &Value) -> Value {
    let probe = json!({ "exec": { "command": ["/testkit-pod", "check", "/state/healthy"] },
        "periodSeconds": 1, "successThreshold": 1, "failureThreshold": 1 });
    let template = json!({ "metadata": { "labels": { "app": "ss" } }, "spec": {
        "terminationGracePeriodSeconds": 1, "volumes": [{ "name": "state", "emptyDir": {} }],
        "containers": [{ "name": "c", "image": POD_IMAGE, "readinessProbe": probe,
            "args": ["note", "/state/healthy", "serve", "8080"],
            "env": [{ "name": "NUMBER", "value": number }],
            "volumeMounts": [{ "name": "state", "mountPath": "/state" }] }] } });
    let mut object =
        workload("ss", &template, &json!({ "serviceName": "ss", "replicas": replicas }));
    object["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

/// Runs a command in a pod.
fn exec(harness: &Harness, pod: &str, words: &[&str]) {
    let words: Vec<String> = words.iter().map(|word| format!("command={word}")).collect();
    let path = format!(
        "{}/exec?stdout=1&stderr=1&command=/testkit-pod&{}",
        pod_path(pod),
        words.join("&")
    );
    harness.websocket(&path, "v4.channel.k8s.io");
}

fn break_pod(harness: &Harness, pod: &str) {
    exec(harness, pod, &["remove", "/state/healthy"]);
    harness.becomes(&pod_path(pod), "is not ready", |pod| !is_ready(pod));
}

fn begin_to_heal(harness: &Harness, pod: &str) {
    exec(harness, pod, &["note", "/state/healthy", "print"]);
}

fn heal(harness: &Harness, pod: &str) {
    begin_to_heal(harness, pod);
    harness.ready_pod(pod);
}

fn serves(harness: &Harness, replicas: u32) -> Value {
    harness.becomes(&at(SETS, "ss"), &format!("{replicas} serve"), |set| {
        let status = &set["status"];
        let count = |field: &str| status[field].as_u64().unwrap_or(0) == u64::from(replicas);
        status["observedGeneration"] == set["metadata"]["generation"]
            && count("replicas")
            && count("readyReplicas")
            && count("availableReplicas")
    })
}

fn scale(harness: &Harness, replicas: u32) {
    let path = at(SETS, "ss");
    harness.merge(&format!("{path}/scale"), &json!({ "spec": { "replicas": replicas } }));
}

/// What became of the pods since then: what came and what went, in order.
fn story(harness: &Harness, since: &str) -> Vec<String> {
    let seen = harness.seen(&collection("pods"), "app=ss", since);
    let told = seen.iter().filter(|event| event.0 != "MODIFIED");
    told.map(|(sort, pod)| format!("{sort} {}", name(pod))).collect()
}

/// The numbers in the templates of the pods, by ordinal.
fn numbers(harness: &Harness) -> Vec<String> {
    let mut pods = harness.pods("app=ss");
    pods.sort_by_key(name);
    let number =
        |pod: &Value| pod["spec"]["containers"][0]["env"][0]["value"].as_str().unwrap().to_owned();
    pods.iter().map(number).collect()
}

fn is_rolled_out(harness: &Harness, expected: &[&str]) {
    harness.until(&format!("{expected:?}"), || {
        let pods = harness.pods("app=ss");
        (numbers(harness) == expected && pods.iter().all(is_ready)).then_some(())
    });
}

fn change(harness: &Harness, number: &str) {
    let container = json!({ "name": "c", "env": [{ "name": "NUMBER", "value": number }] });
    let template = json!({ "spec": { "containers": [container] } });
    harness.merge(&at(SETS, "ss"), &json!({ "spec": { "template": template } }));
}

/// \[sig-apps\] StatefulSet Scaling should happen in predictable order and halt if any stateful pod
/// is unhealthy
#[test]
fn pods_come_and_go_in_order_and_wait_for_one_that_is_ill() {
    let harness = Harness::start();
    let pods = collection("pods");
    let since = harness.now(&pods);
    harness.create(SETS, &set(1, "1", &json!({})));
    serves(&harness, 1);
    break_pod(&harness, "ss-0");
    scale(&harness, 3);
    harness.becomes(&at(SETS, "ss"), "knows of the scale", |set| {
        set["status"]["observedGeneration"] == set["metadata"]["generation"]
            && set["status"]["readyReplicas"].as_u64().unwrap_or(0) == 0
    });
    let halted = |count: usize| {
        harness.stays("it waits", Duration::from_secs(2), || harness.pods("app=ss").len() == count);
    };
    halted(1);
    heal(&harness, "ss-0");
    serves(&harness, 3);
    assert_eq!(story(&harness, &since), ["ADDED ss-0", "ADDED ss-1", "ADDED ss-2"]);

    let since = harness.now(&pods);
    let all = ["ss-0", "ss-1", "ss-2"];
    all.iter().for_each(|pod| break_pod(&harness, pod));
    scale(&harness, 0);
    halted(3);
    // The last one first: it goes as soon as it is well.
    all.iter().rev().for_each(|pod| begin_to_heal(&harness, pod));
    serves(&harness, 0);
    assert_eq!(story(&harness, &since), ["DELETED ss-2", "DELETED ss-1", "DELETED ss-0"]);
}

/// \[sig-apps\] StatefulSet Burst scaling should run to completion even with unhealthy pods; should
/// have a working scale subresource
#[test]
fn pods_that_need_no_order_wait_for_nobody() {
    let harness = Harness::start();
    harness.create(SETS, &set(1, "1", &json!({ "podManagementPolicy": "Parallel" })));
    serves(&harness, 1);
    let path = format!("{}/scale", at(SETS, "ss"));
    let mut found = harness.get(&path);
    assert_eq!((&found["spec"]["replicas"], &found["status"]["replicas"]), (&json!(1), &json!(1)));
    break_pod(&harness, "ss-0");
    found["spec"]["replicas"] = json!(3);
    found["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    harness.request(Method::PUT, &path, Some(&found)).unwrap();
    harness.ready_pod("ss-1");
    harness.ready_pod("ss-2");
    break_pod(&harness, "ss-1");
    heal(&harness, "ss-0");
    heal(&harness, "ss-1");
    serves(&harness, 3);
    break_pod(&harness, "ss-1");
    harness.merge(&path, &json!({ "spec": { "replicas": 0 } }));
    serves(&harness, 0);
    harness.ready_pods("app=ss", 0);
}

/// \[sig-apps\] StatefulSet should perform rolling updates and roll backs of template modifications;
/// should list, patch and delete a collection of StatefulSets
#[test]
fn pods_are_updated_one_by_one_from_the_last_and_back() {
    let harness = Harness::start();
    harness.create(SETS, &set(3, "1", &json!({})));
    let first = serves(&harness, 3)["status"]["currentRevision"].clone();
    for pod in harness.pods("app=ss") {
        assert_eq!(pod["metadata"]["labels"]["controller-revision-hash"], first);
    }
    let pods = collection("pods");
    let order =
        ["DELETED ss-2", "ADDED ss-2", "DELETED ss-1", "ADDED ss-1", "DELETED ss-0", "ADDED ss-0"];
    for number in ["2", "1"] {
        let since = harness.now(&pods);
        // One that is ill holds it up until it is well.
        break_pod(&harness, "ss-1");
        change(&harness, number);
        let begun = harness.becomes(&at(SETS, "ss"), "has two revisions", |set| {
            set["status"]["currentRevision"] != set["status"]["updateRevision"]
        });
        let update = &begun["status"]["updateRevision"];
        assert_eq!(*update == first, number == "1", "a rollback finds the revision there was");
        assert!(story(&harness, &since).is_empty());
        heal(&harness, "ss-1");
        is_rolled_out(&harness, &[number; 3]);
        harness.becomes(&at(SETS, "ss"), "has one revision", |set| {
            set["status"]["currentRevision"] == *update
                && set["status"]["updateRevision"] == *update
                && set["status"]["currentReplicas"] == 3
                && set["status"]["updatedReplicas"] == 3
        });
        assert_eq!(story(&harness, &since), order);
    }
    let revisions = harness.items(&collection("apps/v1/controllerrevisions"));
    let mut revisions: Vec<_> = revisions.iter().map(|one| one["revision"].as_u64()).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [Some(2), Some(3)]);

    let all = collection(SETS);
    harness.patch(&at(SETS, "ss"), &json!({ "metadata": { "labels": { "e2e": "yes" } } }));
    let everywhere = "/apis/apps/v1/statefulsets?labelSelector=e2e=yes";
    assert_eq!(harness.items(everywhere).len(), 1);
    harness.delete(&format!("{all}?labelSelector=e2e=yes"));
    harness.goes(&at(SETS, "ss"));
    harness.ready_pods("app=ss", 0);
}

/// \[sig-apps\] StatefulSet should perform canary updates and phased rolling updates of template
/// modifications
#[test]
fn a_partition_holds_pods_back_whatever_happens_to_them() {
    let harness = Harness::start();
    let partition = |at: u32| json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": at } } });
    harness.create(SETS, &set(3, "1", &partition(3)));
    let old = serves(&harness, 3)["status"]["currentRevision"].clone();
    change(&harness, "2");
    let path = at(SETS, "ss");
    let new =
        harness.becomes(&path, "has a new revision", |set| set["status"]["updateRevision"] != old)
            ["status"]["updateRevision"]
            .clone();
    harness.stays("nobody is updated", Duration::from_secs(1), || {
        numbers(&harness) == ["1", "1", "1"]
    });

    let hashes = |expected: [&Value; 3]| {
        harness.until("the revisions", || {
            let mut pods = harness.pods("app=ss");
            pods.sort_by_key(name);
            let labels: Vec<_> = pods
                .iter()
                .map(|pod| &pod["metadata"]["labels"]["controller-revision-hash"])
                .collect();
            (labels == expected && pods.iter().all(is_ready)).then_some(())
        });
    };
    // The canary.
    harness.patch(&path, &json!({ "spec": partition(2) }));
    is_rolled_out(&harness, &["1", "1", "2"]);
    hashes([&old, &old, &new]);
    // What is lost comes back as what it was.
    for pod in ["ss-0", "ss-2"] {
        let before = harness.get(&pod_path(pod))["metadata"]["uid"].clone();
        harness.delete(&pod_path(pod));
        harness.until("another one", || {
            let pod = harness.request(Method::GET, &pod_path(pod), None).ok()?;
            (pod["metadata"]["uid"] != before).then_some(())
        });
    }
    is_rolled_out(&harness, &["1", "1", "2"]);
    hashes([&old, &old, &new]);
    // The phases.
    for (at, expected) in [(1, ["1", "2", "2"]), (0, ["2", "2", "2"])] {
        harness.patch(&path, &json!({ "spec": partition(at) }));
        is_rolled_out(&harness, &expected);
    }
    hashes([&new, &new, &new]);
    harness.becomes(&path, "is of one revision", |set| set["status"]["currentRevision"] == new);
}

/// \[sig-apps\] StatefulSet Should recreate evicted statefulset
#[test]
fn a_pod_that_its_node_refuses_is_made_again_until_it_fits() {
    let harness = Harness::start();
    let ports = json!([{ "name": "conflict", "containerPort": 21017, "hostPort": 21017 }]);
    let bound = |name: &str| {
        let mut pod = crate::harness::server(name);
        pod["spec"]["containers"][0]["ports"] = ports.clone();
        pod["spec"]["nodeName"] = json!("node-1");
        pod
    };
    harness.create("pods", &bound("test-pod"));
    harness.ready_pod("test-pod");
    let pods = collection("pods");
    let since = harness.now(&pods);
    let mut set = set(1, "1", &json!({}));
    set["spec"]["template"]["spec"]["containers"][0]["ports"] = ports.clone();
    // The scheduler would never put it there.
    set["spec"]["template"]["spec"]["nodeName"] = json!("node-1");
    harness.create(SETS, &set);
    harness.until("it was refused, and deleted", || {
        let seen = harness.seen(&pods, "app=ss", &since);
        let failed = seen.iter().any(|(_, pod)| pod["status"]["phase"] == "Failed");
        (failed && seen.iter().any(|(sort, _)| sort == "DELETED")).then_some(())
    });
    harness.delete(&pod_path("test-pod"));
    harness.goes(&pod_path("test-pod"));
    harness.ready_pod("ss-0");
    let seen = harness.seen(&pods, "app=ss", &since);
    let refused = seen.iter().find(|(_, pod)| pod["status"]["phase"] == "Failed").unwrap();
    assert_eq!(name(&refused.1), "ss-0");
    assert_eq!(refused.1["status"]["reason"], "NodePorts");
}
