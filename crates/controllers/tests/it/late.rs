//! Controllers that hear late of what they did themselves: nothing is made twice.

use std::time::Duration;

use serde_json::{Value, json};

use crate::workloads::{PODS, Running, namespace, ready_node};

/// Makes an object that wants so many pods while nobody hears of pods, and looks whether it gets
/// more of them when it is handled again and again.
async fn makes_no_more_than(collection: &str, more: &Value, wanted: usize, counted: &str) {
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
    makes_no_more_than(&apps("replicasets"), &three, 3, "replicas").await;
    let daemons = json!({ "revisionHistoryLimit": 10 });
    makes_no_more_than(&apps("daemonsets"), &daemons, 1, "currentNumberScheduled").await;
    let jobs = "/apis/batch/v1/namespaces/n/jobs";
    let two = json!({ "parallelism": 2, "completions": 2, "backoffLimit": 6 });
    makes_no_more_than(jobs, &two, 2, "active").await;
}
