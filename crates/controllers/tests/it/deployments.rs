//! Deployments that are held up: by whoever pauses them, or by pods that never serve.

use std::time::Duration;

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, name, namespace};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/n/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/n/replicasets";

fn deployment(api: &MemoryApi, deadline: i32) {
    let labels = json!({ "app": "w" });
    api.create(
        DEPLOYMENTS,
        json!({ "metadata": { "name": "w" }, "spec": { "replicas": 2,
            "progressDeadlineSeconds": deadline, "selector": { "matchLabels": labels },
            "strategy": { "type": "RollingUpdate",
                "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "template": { "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "c", "image": "one" }] } } } }),
    );
}

fn change(api: &MemoryApi, spec: &Value) {
    api.patch(&format!("{DEPLOYMENTS}/w"), &json!({ "spec": spec }));
}

fn image(name: &str) -> Value {
    json!({ "spec": { "containers": [{ "name": "c", "image": name }] } })
}

fn run_pods(api: &MemoryApi) {
    for pod in api.list(PODS).iter().filter(|pod| pod["status"]["phase"].is_null()) {
        let ready = json!([{ "type": "Ready", "status": "True" }]);
        let status = json!({ "status": { "phase": "Running", "conditions": ready } });
        api.patch(&format!("{PODS}/{}", name(pod)), &status);
    }
}

fn progressing(api: &MemoryApi) -> Value {
    let status = api.get(&format!("{DEPLOYMENTS}/w")).unwrap()["status"].clone();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|one| one["type"] == "Progressing");
    let found = found.unwrap_or_default();
    json!([found["status"], found["reason"], found["message"]])
}

#[tokio::test]
async fn a_deployment_that_is_paused_is_scaled_and_not_rolled_out() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 600);
    let sizes = |api: &MemoryApi| {
        run_pods(api);
        let size = |set: &Value| set["spec"]["replicas"].as_i64().unwrap();
        api.list(SETS).iter().map(size).collect::<Vec<_>>()
    };
    api.eventually("two pods", |api| sizes(api) == [2]).await;
    change(api, &json!({ "paused": true }));
    api.eventually("it is paused", |api| progressing(api)[1] == "DeploymentPaused").await;
    change(api, &json!({ "template": image("two"), "replicas": 3 }));
    api.eventually("it is scaled", |api| sizes(api) == [3]).await;
    let observed = |api: &MemoryApi| {
        let object = api.get(&format!("{DEPLOYMENTS}/w")).unwrap();
        object["status"]["observedGeneration"] == object["metadata"]["generation"]
    };
    api.eventually("the template is seen", observed).await;
    assert_eq!(api.list(SETS).len(), 1, "nothing is rolled out");
    change(api, &json!({ "paused": false }));
    api.eventually("it is rolled out", |api| {
        let mut sizes = sizes(api);
        sizes.sort_unstable();
        sizes == [0, 3]
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_roll_out_without_progress_is_late_and_may_still_be_completed() {
    let running = Running::start_timed();
    let api = &running.api;
    namespace(api);
    deployment(api, 60);
    api.eventually("two pods", |api| api.list(PODS).len() == 2).await;
    let set = name(&api.list(SETS)[0]);
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(progressing(api)[0], "True");
    tokio::time::sleep(Duration::from_secs(15)).await;
    let text = format!("ReplicaSet \"{set}\" has timed out progressing.");
    let late = json!(["False", "ProgressDeadlineExceeded", text]);
    api.eventually("it is late", |api| progressing(api) == late).await;
    // Paused or not, it stays late until there is progress.
    change(api, &json!({ "paused": true }));
    change(api, &json!({ "paused": false }));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(progressing(api), late);
    let text = format!("ReplicaSet \"{set}\" has successfully progressed.");
    let done = json!(["True", "NewReplicaSetAvailable", text]);
    api.eventually("it is complete", |api| {
        run_pods(api);
        progressing(api) == done
    })
    .await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_made_another() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 600);
    api.eventually("its set", |api| api.list(SETS).len() == 1).await;
    let taken = name(&api.list(SETS)[0]);
    api.delete(&format!("{DEPLOYMENTS}/w"));
    api.eventually("all are gone", |api| api.list(SETS).is_empty()).await;
    let labels = json!({ "app": "other" });
    api.create(
        SETS,
        json!({ "metadata": { "name": taken, "labels": labels }, "spec": { "replicas": 0,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [] } } } }),
    );
    deployment(api, 600);
    api.eventually("a set of another name", |api| {
        api.list(SETS).iter().any(|set| name(set) != taken && set["spec"]["replicas"] == 2)
    })
    .await;
    api.eventually("the collision is counted", |api| {
        api.get(&format!("{DEPLOYMENTS}/w")).unwrap()["status"]["collisionCount"] == 1
    })
    .await;
}
