//! What the controllers make of the policies of Jobs.

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, name, namespace, ready_node};

const JOBS: &str = "/apis/batch/v1/namespaces/n/jobs";

fn job(api: &MemoryApi, spec: &Value) {
    let labels = json!({ "batch.kubernetes.io/controller-uid": "job" });
    let mut job = json!({ "metadata": { "name": "j", "uid": "job" },
        "spec": { "parallelism": 3, "completions": 3, "backoffLimit": 6,
            "completionMode": "Indexed", "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels },
                "spec": { "restartPolicy": "Never", "containers": [{ "name": "c" }] } } } });
    for (field, value) in spec.as_object().unwrap() {
        job["spec"][field] = value.clone();
    }
    api.create(JOBS, job);
}

/// Plays the kubelet: pods end with the code that their index is given.
fn end(api: &MemoryApi, codes: [i32; 3]) {
    for pod in api.list(PODS).iter().filter(|pod| pod["status"]["phase"].is_null()) {
        let index = &pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
        let code = codes[index.as_str().unwrap().parse::<usize>().unwrap()];
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let status = json!({ "phase": phase, "containerStatuses": [{ "name": "c", "ready": false,
            "restartCount": 0, "image": "", "imageID": "",
            "state": { "terminated": { "exitCode": code, "finishedAt": "2020-01-01T00:00:00Z" } } }] });
        api.patch(&format!("{PODS}/{}", name(pod)), &json!({ "status": status }));
    }
}

async fn ends(api: &MemoryApi, codes: [i32; 3], kind: &str, reason: &str) -> Value {
    api.eventually(&format!("{kind} {reason}"), |api| {
        end(api, codes);
        let job = api.get(&format!("{JOBS}/j")).unwrap();
        let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == kind && c["reason"] == reason)
    })
    .await;
    api.get(&format!("{JOBS}/j")).unwrap()["status"].clone()
}

#[tokio::test]
async fn a_code_that_a_policy_names_fails_the_job() {
    let running = Running::start();
    namespace(&running.api);
    let policy = json!({ "podFailurePolicy": { "rules": [
        { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } }] } });
    job(&running.api, &policy);
    ends(&running.api, [0, 42, 0], "Failed", "PodFailurePolicy").await;
}

#[tokio::test]
async fn an_index_fails_alone_and_every_pod_is_counted_and_freed() {
    let running = Running::start();
    namespace(&running.api);
    job(&running.api, &json!({ "backoffLimitPerIndex": 1 }));
    let status = ends(&running.api, [0, 1, 0], "Failed", "FailedIndexes").await;
    assert_eq!(status["failedIndexes"], "1");
    assert_eq!(status["completedIndexes"], "0,2");
    assert_eq!((&status["failed"], &status["succeeded"]), (&json!(2), &json!(2)));
    let pods = running.api.list(PODS);
    assert_eq!(pods.len(), 4);
    running
        .api
        .eventually("no pod is held", |api| {
            api.list(PODS).iter().all(|pod| pod["metadata"]["finalizers"] == json!([]))
        })
        .await;
}

#[tokio::test]
async fn a_job_succeeds_with_the_indexes_that_its_policy_names() {
    let running = Running::start();
    namespace(&running.api);
    let policy = json!({ "parallelism": 1,
        "successPolicy": { "rules": [{ "succeededIndexes": "0" }] } });
    job(&running.api, &policy);
    let status = ends(&running.api, [0, 1, 1], "Complete", "SuccessPolicy").await;
    assert_eq!(status["completedIndexes"], "0");
}

#[tokio::test]
async fn a_pod_of_a_job_that_is_gone_is_let_go_though_another_has_its_name() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    job(api, &json!({ "suspend": true }));
    let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "before",
        "controller": true });
    let pod = |name: &str, owners: &Value| {
        json!({ "metadata": { "name": name, "ownerReferences": owners,
            "finalizers": ["batch.kubernetes.io/job-tracking"] }, "spec": {} })
    };
    api.create(PODS, pod("of-another", &json!([owner])));
    api.create(PODS, pod("of-nobody", &json!([])));
    for name in ["of-another", "of-nobody"] {
        api.delete(&format!("{PODS}/{name}"));
    }
    api.eventually("both are gone", |api| api.list(PODS).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_going_is_replaced_now_or_when_it_is_gone() {
    for (policy, before) in [("TerminatingOrFailed", 2), ("Failed", 1)] {
        let running = Running::start_timed();
        let api = &running.api;
        namespace(api);
        let one = json!({ "parallelism": 1, "completions": 1, "completionMode": "NonIndexed",
            "podReplacementPolicy": policy });
        ready_node(api, "a");
        job(api, &one);
        api.eventually("a pod", |api| api.list(PODS).len() == 1).await;
        let path = format!("{PODS}/{}", name(&api.list(PODS)[0]));
        let held = json!({ "metadata": { "finalizers":
            ["batch.kubernetes.io/job-tracking", "test/held"] },
            "spec": { "nodeName": "a" }, "status": { "phase": "Running" } });
        api.patch(&path, &held);
        api.delete(&path);
        let status = |api: &MemoryApi| api.get(&format!("{JOBS}/j")).unwrap()["status"].clone();
        api.eventually("it is going", |api| status(api)["terminating"] == 1).await;
        api.eventually(&format!("{policy}: {before} pods"), |api| {
            let active = status(api)["active"].as_i64().unwrap_or(0);
            api.list(PODS).len() == before && active == i64::try_from(before).unwrap() - 1
        })
        .await;
        // Its end is what the other policy waits for.
        let ended = json!({ "status": { "phase": "Failed" } });
        api.patch(&path, &ended);
        tokio::time::sleep(std::time::Duration::from_secs(15)).await;
        api.eventually("another runs", |api| status(api)["active"] == 1).await;
    }
}

#[tokio::test]
async fn a_job_of_another_manager_is_left_alone() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    job(api, &json!({ "managedBy": "example.io/manager" }));
    let labels = json!({ "batch.kubernetes.io/controller-uid": "ours" });
    let ours = json!({ "metadata": { "name": "ours", "uid": "ours" }, "spec": {
        "managedBy": "kubernetes.io/job-controller", "parallelism": 1, "completions": 1,
        "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "c" }] } } } });
    api.create(JOBS, ours);
    api.eventually("the other one has its pod", |api| {
        api.get(&format!("{JOBS}/ours")).unwrap()["status"]["active"] == 1
    })
    .await;
    assert!(api.list(PODS).iter().all(|pod| name(pod).starts_with("ours-")));
    assert!(api.get(&format!("{JOBS}/j")).unwrap()["status"].is_null());
}
