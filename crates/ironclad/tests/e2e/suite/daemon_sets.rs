//! G18: DaemonSets, on nodes that run their pods and on nodes whose kubelet the test plays.

use http::Method;
use serde_json::{Value, json};

use super::{ABSENT, at, broken, name, template, workload};
use crate::harness::{Harness, collection, is_ready, pod_path};

const SETS: &str = "apps/v1/daemonsets";

fn labels() -> Value {
    json!({ "app": "d" })
}

fn counts(harness: &Harness, scheduled: u32) -> Value {
    harness.becomes(&at(SETS, "d"), &format!("serves on {scheduled} nodes"), |set| {
        let status = &set["status"];
        status["observedGeneration"] == set["metadata"]["generation"]
            && ["desiredNumberScheduled", "currentNumberScheduled", "numberReady"]
                .iter()
                .all(|field| status[*field] == scheduled)
            && status["updatedNumberScheduled"].as_u64().unwrap_or(0) == u64::from(scheduled)
            && status["numberMisscheduled"] == 0
    })
}

/// \[sig-apps\] Daemon set should run and stop simple daemon; should retry creating failed daemon
/// pods; should update pod when spec was updated and update strategy is RollingUpdate; should list
/// and delete a collection of DaemonSets
#[test]
fn a_daemon_comes_back_whatever_happens_and_is_updated() {
    let harness = Harness::start();
    harness.create(SETS, &workload("d", &template(&labels()), &json!({})));
    counts(&harness, 1);
    let pod = harness.ready_pods("app=d", 1).remove(0);
    assert_eq!(pod["spec"]["nodeName"], "node-1");
    let tolerations = pod["spec"]["tolerations"].as_array().unwrap();
    for (key, effect) in [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ] {
        let key = format!("node.kubernetes.io/{key}");
        let is = |one: &Value| one["key"] == key && one["effect"] == effect;
        assert!(tolerations.iter().any(is), "{key}");
    }

    // One that is deleted.
    harness.delete(&pod_path(&name(&pod)));
    let another = |before: &Value| {
        harness.until("another daemon", || {
            let now = harness.pods("app=d").into_iter().find(is_ready)?;
            (name(&now) != name(before)).then_some(now)
        })
    };
    let pod = another(&pod);
    // One that fails: it goes, too.
    let status = format!("{}/status", pod_path(&name(&pod)));
    harness.patch(&status, &json!({ "status": { "phase": "Failed" } }));
    harness.goes(&pod_path(&name(&pod)));
    let failed = format!("Found failed daemon pod default/{} on node node-1", name(&pod));
    harness.tells("FailedDaemonPod", &format!("{failed}, will try to kill it"));
    let pod = another(&pod);

    let before = harness.items(&collection("apps/v1/controllerrevisions"));
    assert_eq!(before.len(), 1);
    let hash = &pod["metadata"]["labels"]["controller-revision-hash"];
    assert_eq!(before[0]["metadata"]["labels"]["controller-revision-hash"], *hash);
    assert_eq!(before[0]["revision"], 1);
    let env = json!({ "spec": { "template": { "spec": { "containers": [
        { "name": "c", "env": [{ "name": "NEW", "value": "yes" }] }] } } } });
    harness.merge(&at(SETS, "d"), &env);
    counts(&harness, 1);
    let pod = harness.ready_pods("app=d", 1).remove(0);
    assert_eq!(pod["spec"]["containers"][0]["env"][0]["name"], "NEW");
    let after = harness.items(&collection("apps/v1/controllerrevisions"));
    let second = after.iter().find(|revision| revision["revision"] == 2).unwrap();
    let new = &pod["metadata"]["labels"]["controller-revision-hash"];
    assert_eq!(second["metadata"]["labels"]["controller-revision-hash"], *new);
    assert_ne!(new, hash);

    let all = collection(SETS);
    let since = harness.now(&all);
    harness.delete(&format!("{all}?labelSelector=app=d"));
    harness.goes(&at(SETS, "d"));
    harness.ready_pods("app=d", 0);
    assert_eq!(harness.seen(&all, "app=d", &since).last().unwrap().0, "DELETED");
}

/// \[sig-apps\] Daemon set should run and stop complex daemon
#[test]
fn a_daemon_follows_the_labels_of_its_node() {
    let harness = Harness::start();
    let mut blue = template(&labels());
    blue["spec"]["nodeSelector"] = json!({ "color": "blue" });
    harness.create(SETS, &workload("d", &blue, &json!({})));
    counts(&harness, 0);
    assert!(harness.pods("app=d").is_empty());
    let paint = |color: &str| {
        let label = json!({ "metadata": { "labels": { "color": color } } });
        harness.patch("/api/v1/nodes/node-1", &label);
    };
    paint("blue");
    counts(&harness, 1);
    harness.ready_pods("app=d", 1);
    paint("green");
    counts(&harness, 0);
    harness.ready_pods("app=d", 0);
    let green = json!({ "spec": { "template": { "spec": { "nodeSelector": { "color": "green" } } },
        "updateStrategy": { "type": "RollingUpdate" } } });
    harness.merge(&at(SETS, "d"), &green);
    counts(&harness, 1);
    harness.ready_pods("app=d", 1);
}

/// A node that nobody runs: the test says what becomes of its pods.
fn node(harness: &Harness, name: &str) {
    let node = json!({ "metadata": { "name": name, "labels": { "played": "yes" } },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }],
            "allocatable": { "pods": "10", "cpu": "4", "memory": "8Gi" } } });
    harness.request(Method::POST, "/api/v1/nodes", Some(&node)).unwrap();
}

/// Plays the kubelet, which never has one image: the rest runs, and what is deleted goes.
fn play(harness: &Harness) {
    for pod in harness.pods("app=d") {
        let path = pod_path(&name(&pod));
        let is_bound = pod["spec"]["nodeName"].is_string();
        if pod["metadata"]["deletionTimestamp"].is_string() {
            harness.request(Method::DELETE, &format!("{path}?gracePeriodSeconds=0"), None).ok();
        } else if is_bound
            && pod["status"]["phase"] == "Pending"
            && pod["spec"]["containers"][0]["image"] != ABSENT
        {
            let ready = json!([{ "type": "Ready", "status": "True" }]);
            let status = json!({ "status": { "phase": "Running", "conditions": ready } });
            harness.patch(&format!("{path}/status"), &status);
        }
    }
}

/// \[sig-apps\] Daemon set should rollback without unnecessary restarts
#[test]
fn a_rollback_restarts_only_what_was_updated() {
    let harness = Harness::start();
    ["a", "b"].into_iter().for_each(|name| node(&harness, name));
    let on_played = |mut template: Value| {
        template["spec"]["nodeSelector"] = json!({ "played": "yes" });
        template
    };
    let good = on_played(template(&labels()));
    harness.create(SETS, &workload("d", &good, &json!({})));
    let images = |expected: &[&str], available: u32| {
        harness.until(&format!("{expected:?}"), || {
            play(&harness);
            let pods = harness.pods("app=d");
            let image =
                |pod: &Value| pod["spec"]["containers"][0]["image"].as_str().map(str::to_owned);
            let mut images: Vec<_> = pods.iter().filter_map(image).collect();
            images.sort();
            let status = harness.get(&at(SETS, "d"))["status"].clone();
            (images == expected && status["numberAvailable"].as_u64() == Some(available.into()))
                .then_some(pods)
        })
    };
    let image = good["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
    let before = images(&[&image, &image], 2);
    harness.patch(&at(SETS, "d"), &json!({ "spec": { "template": on_played(broken(&labels())) } }));
    let stuck = images(&[ABSENT, &image], 1);
    let rolled_back = json!({ "spec": { "template": { "spec": good["spec"] } } });
    harness.patch(&at(SETS, "d"), &rolled_back);
    let after = images(&[&image, &image], 2);
    let uids = |pods: &[Value]| -> Vec<Value> {
        pods.iter().map(|pod| pod["metadata"]["uid"].clone()).collect()
    };
    let (before, stuck, after) = (uids(&before), uids(&stuck), uids(&after));
    let kept: Vec<_> = before.iter().filter(|uid| stuck.contains(uid)).collect();
    assert_eq!(kept.len(), 1);
    assert!(after.contains(kept[0]), "a healthy daemon was restarted");
}
