//! Controllers that hear late of what they did themselves: nothing is made twice, and nothing is
//! done by what is not so any more.

use std::time::Duration;

use serde_json::{Value, json};

use crate::workloads::{PODS, Running, name, namespace, ready_node};

/// Makes an object that wants so many pods while nobody hears of pods, and looks whether it gets
/// more of them when it is handled again and again. Each time that is put off.
async fn makes_no_more_than(
    collection: &str,
    more: &Value,
    wanted: usize,
    counted: &str,
    controller: &str,
) {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    ready_node(api, "a");
    let labels = json!({ "app": "w" });
    let mut spec = json!({ "selector": { "matchLabels": labels }, "template": {
        "metadata": { "labels": labels },
        "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } } });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    api.hold("/api/v1/pods");
    api.create(collection, json!({ "metadata": { "name": "w" }, "spec": spec }));
    api.eventually("the pods", |api| api.list(PODS).len() >= wanted).await;
    let path = format!("{collection}/w");
    for at in 0..10 {
        api.patch(&path, &json!({ "metadata": { "annotations": { "at": at.to_string() } } }));
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(api.list(PODS).len(), wanted, "{collection}");
    }
    assert_ne!(api.get(&path).unwrap()["status"][counted], wanted, "it has not heard of them");
    let skips = format!("{controller}_controller_stale_sync_skips_total");
    assert!(running.metric(&skips, &[("group", ""), ("resource", "pods")]) >= 1.0, "{controller}");
    api.release();
    api.eventually(&format!("{wanted} are counted"), |api| {
        api.get(&path).unwrap()["status"][counted] == wanted
    })
    .await;
    assert_eq!(api.list(PODS).len(), wanted, "{collection}");
}

#[tokio::test]
async fn pods_that_nobody_has_seen_yet_are_not_made_again() {
    let apps = |plural: &str| format!("/apis/apps/v1/namespaces/n/{plural}");
    let three = json!({ "replicas": 3 });
    makes_no_more_than(&apps("replicasets"), &three, 3, "replicas", "replicaset").await;
    let daemons = json!({ "revisionHistoryLimit": 10 });
    let counted = "currentNumberScheduled";
    makes_no_more_than(&apps("daemonsets"), &daemons, 1, counted, "daemonset").await;
    let one = json!({ "replicas": 1, "serviceName": "s" });
    makes_no_more_than(&apps("statefulsets"), &one, 1, "replicas", "statefulset").await;
    let jobs = "/apis/batch/v1/namespaces/n/jobs";
    let two = json!({ "parallelism": 2, "completions": 2, "backoffLimit": 6 });
    makes_no_more_than(jobs, &two, 2, "active", "job").await;
}

#[tokio::test]
async fn a_set_waits_until_it_has_seen_its_own_status() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let sets = "/apis/apps/v1/namespaces/n/replicasets";
    let labels = json!({ "app": "w" });
    api.create(
        sets,
        json!({ "metadata": { "name": "w" }, "spec": { "replicas": 1,
            "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "c", "image": "i" }] } } } }),
    );
    let counts = |field: &str| api.get(&format!("{sets}/w")).unwrap()["status"][field].clone();
    api.eventually("its pod is counted", |_| counts("replicas") == 1).await;
    let pod = format!("{PODS}/{}", name(&api.list(PODS)[0]));
    let ready = |is_ready: &str| {
        let condition = json!({ "type": "Ready", "status": is_ready });
        api.patch(&pod, &json!({ "status": { "phase": "Running", "conditions": [condition] } }));
    };
    // It hears of what it has written last.
    tokio::time::sleep(Duration::from_millis(100)).await;
    api.hold("/apis/apps/v1/replicasets");
    ready("True");
    api.eventually("it is ready", |_| counts("readyReplicas") == 1).await;
    ready("False");
    let labels = [("group", "apps"), ("resource", "replicasets")];
    let skips = || running.metric("replicaset_controller_stale_sync_skips_total", &labels);
    api.eventually("a sync is put off", |_| skips() >= 1.0).await;
    assert_eq!(counts("readyReplicas"), 1);
    api.release();
    api.eventually("it is taken up", |_| counts("readyReplicas") != 1).await;
    let seen = skips();
    ready("True");
    api.eventually("it goes on", |_| counts("readyReplicas") == 1).await;
    // One that is gone is not waited for, nor the next one of its name.
    tokio::time::sleep(Duration::from_millis(100)).await;
    api.hold("/apis/apps/v1/replicasets");
    ready("False");
    api.eventually("the status is written", |_| counts("readyReplicas") != 1).await;
    api.delete(&format!("{sets}/w"));
    api.release();
    api.create(
        sets,
        json!({ "metadata": { "name": "w" }, "spec": { "replicas": 2,
            "selector": { "matchLabels": { "app": "v" } },
            "template": { "metadata": { "labels": { "app": "v" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] } } } }),
    );
    api.eventually("the next one has its pods", |_| counts("replicas") == 2).await;
    assert!(skips() >= seen);
}
