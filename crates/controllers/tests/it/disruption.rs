//! What the controllers make of disruption budgets.

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, namespace};

const BUDGETS: &str = "/apis/policy/v1/namespaces/n/poddisruptionbudgets";

fn budget(api: &MemoryApi, spec: Value) {
    let mut spec = spec;
    spec["selector"] = json!({ "matchLabels": { "app": "w" } });
    api.create(
        BUDGETS,
        json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": { "name": "b", "namespace": "n" }, "spec": spec }),
    );
}

fn pod(api: &MemoryApi, name: &str, owner: &Value) {
    api.create(
        PODS,
        json!({ "metadata": { "name": name, "labels": { "app": "w" }, "ownerReferences": owner },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } }),
    );
}

/// Healthy, wanted, allowed and expected pods, and the reason of the condition.
fn status(api: &MemoryApi) -> Value {
    let status = &api.get(&format!("{BUDGETS}/b")).unwrap()["status"];
    json!([
        status["currentHealthy"],
        status["desiredHealthy"],
        status["disruptionsAllowed"],
        status["expectedPods"],
        status["conditions"][0]["reason"]
    ])
}

fn has_event(api: &MemoryApi, reason: &str, text: &str) -> bool {
    let new = api.list("/apis/events.k8s.io/v1/namespaces/n/events");
    let old = api.list("/api/v1/namespaces/n/events");
    let mut all = new.iter().chain(&old);
    all.any(|event| {
        let said = event["note"].as_str().or(event["message"].as_str()).unwrap_or_default();
        event["reason"] == reason && said.contains(text)
    })
}

#[tokio::test]
async fn a_budget_goes_by_the_scale_of_custom_resources() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let widgets = "/apis/example.io/v1/namespaces/n/widgets";
    let widget = api.create(
        widgets,
        json!({ "apiVersion": "example.io/v1", "kind": "Widget", "metadata": { "name": "w" },
            "spec": { "replicas": 4 } }),
    );
    let owner = json!([{ "apiVersion": "example.io/v1", "kind": "Widget", "name": "w",
        "uid": widget["metadata"]["uid"], "controller": true }]);
    ["a", "b", "c"].into_iter().for_each(|name| pod(api, name, &owner));
    budget(api, json!({ "maxUnavailable": "50%" }));
    api.eventually("one of three may go, of four that there should be", |api| {
        status(api) == json!([3, 2, 1, 4, "SufficientPods"])
    })
    .await;
    api.delete(&format!("{PODS}/a"));
    api.eventually("none may go", |api| status(api) == json!([2, 2, 0, 4, "InsufficientPods"]))
        .await;
}

#[tokio::test]
async fn a_budget_of_pods_without_a_scale_allows_nothing() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let owner = json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u",
        "controller": true }]);
    pod(api, "a", &owner);
    budget(api, json!({ "maxUnavailable": 1 }));
    api.eventually("the failure is told", |api| {
        let status = &api.get(&format!("{BUDGETS}/b")).unwrap()["status"];
        let text = "jobs.batch does not implement the scale subresource";
        status["conditions"][0]["reason"] == "SyncFailed"
            && status["conditions"][0]["message"] == text
            && has_event(api, "CalculateExpectedPodCountFailed", text)
    })
    .await;
}

#[tokio::test]
async fn announcements_and_evictions_that_did_not_come_are_taken_back() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    pod(api, "a", &json!([]));
    pod(api, "b", &json!([]));
    let old = "2026-01-01T00:00:00Z";
    let announced = json!({ "status": { "conditions": [
        { "type": "Ready", "status": "True" },
        { "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
          "lastTransitionTime": old }] } });
    api.patch(&format!("{PODS}/a"), &announced);
    budget(api, json!({ "minAvailable": 1 }));
    let evicted = json!({ "status": { "disruptedPods": { "a": old } } });
    api.patch(&format!("{BUDGETS}/b"), &evicted);
    api.eventually("the pod counts again and is no target", |api| {
        let conditions = api.get(&format!("{PODS}/a")).unwrap()["status"]["conditions"].clone();
        let mut conditions = conditions.as_array().unwrap().iter();
        status(api) == json!([2, 1, 1, 2, "SufficientPods"])
            && conditions.any(|c| c["type"] == "DisruptionTarget" && c["status"] == "False")
            && has_event(api, "NotDeleted", "Pod was expected by PDB n/b to be deleted")
    })
    .await;
}
