//! What the controllers make of autoscalers.

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, namespace};

const WIDGETS: &str = "/apis/example.io/v1/namespaces/n/widgets";
const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/n/horizontalpodautoscalers";
const METRICS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/n/pods";

fn widget(api: &MemoryApi, replicas: i32) {
    api.create(
        WIDGETS,
        json!({ "apiVersion": "example.io/v1", "kind": "Widget", "metadata": { "name": "w" },
            "spec": { "replicas": replicas },
            "status": { "replicas": replicas, "selector": "app=w" } }),
    );
}

fn autoscaler(api: &MemoryApi) {
    api.create(
        AUTOSCALERS,
        json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": { "name": "a" }, "spec": { "minReplicas": 1, "maxReplicas": 5,
                "scaleTargetRef": {
                    "apiVersion": "example.io/v1", "kind": "Widget", "name": "w" },
                "metrics": [{ "type": "Resource", "resource": { "name": "cpu",
                    "target": { "type": "Utilization", "averageUtilization": 50 } } }] } }),
    );
}

/// A pod that asks for a processor, and what it uses of it.
fn pod(api: &MemoryApi, name: &str, used: &str) {
    let labels = json!({ "app": "w" });
    api.create(
        PODS,
        json!({ "metadata": { "name": name, "labels": labels },
            "spec": { "containers": [
                { "name": "c", "resources": { "requests": { "cpu": "1" } } }] },
            "status": { "phase": "Running", "startTime": "2020-01-01T00:00:00Z",
                "conditions": [{ "type": "Ready", "status": "True",
                    "lastTransitionTime": "2020-01-01T00:00:00Z" }] } }),
    );
    api.create(
        METRICS,
        json!({ "metadata": { "name": name }, "timestamp": "2026-01-01T00:00:00Z",
            "window": "30s", "containers": [{ "name": "c", "usage": { "cpu": used } }] }),
    );
}

fn condition(api: &MemoryApi, kind: &str) -> Value {
    let status = &api.get(&format!("{AUTOSCALERS}/a")).unwrap()["status"];
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|c| c["type"] == kind).unwrap_or_default()
}

#[tokio::test]
async fn a_target_grows_with_what_its_pods_use() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    widget(api, 2);
    ["a", "b"].into_iter().for_each(|name| pod(api, name, "900m"));
    autoscaler(api);
    api.eventually("four replicas", |api| {
        api.get(&format!("{WIDGETS}/w")).unwrap()["spec"]["replicas"] == 4
    })
    .await;
    api.eventually("the status", |api| {
        let status = api.get(&format!("{AUTOSCALERS}/a")).unwrap()["status"].clone();
        status["desiredReplicas"] == 4
            && status["currentReplicas"] == 2
            && status["currentMetrics"][0]["resource"]["current"]["averageUtilization"] == 90
            && condition(api, "AbleToScale")["reason"] == "SucceededRescale"
            && condition(api, "ScalingActive")["reason"] == "ValidMetricFound"
            && status["lastScaleTime"].is_string()
    })
    .await;
    api.eventually("the event", |api| {
        let text = "New size: 4; reason: cpu resource utilization (percentage of request) above \
                    target";
        api.list("/apis/events.k8s.io/v1/events").iter().any(|event| event["note"] == text)
            || api.list("/api/v1/events").iter().any(|event| event["message"] == text)
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_measured_or_found_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    autoscaler(api);
    api.eventually("there is no target", |api| {
        condition(api, "AbleToScale")["reason"] == "FailedGetScale"
    })
    .await;
    widget(api, 2);
    let spec = json!({ "spec": { "maxReplicas": 6 } });
    api.patch(&format!("{AUTOSCALERS}/a"), &spec);
    api.eventually("there are no metrics", |api| {
        let active = condition(api, "ScalingActive");
        active["reason"] == "FailedGetResourceMetric" && active["status"] == "False"
    })
    .await;
    assert_eq!(api.get(&format!("{WIDGETS}/w")).unwrap()["spec"]["replicas"], 2);
}

#[tokio::test]
async fn two_autoscalers_of_one_pod_scale_nothing() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    widget(api, 2);
    ["a", "b"].into_iter().for_each(|name| pod(api, name, "900m"));
    api.create(
        WIDGETS,
        json!({ "apiVersion": "example.io/v1", "kind": "Widget", "metadata": { "name": "x" },
            "spec": { "replicas": 2 },
            "status": { "replicas": 2, "selector": "app in (w,x)" } }),
    );
    api.create(
        AUTOSCALERS,
        json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": { "name": "z" }, "spec": { "minReplicas": 1, "maxReplicas": 2,
                "scaleTargetRef": {
                    "apiVersion": "example.io/v1", "kind": "Widget", "name": "x" },
                "metrics": [] } }),
    );
    api.eventually("the other one is at work", |api| {
        let status = &api.get(&format!("{AUTOSCALERS}/z")).unwrap()["status"];
        status["currentReplicas"] == 2
    })
    .await;
    autoscaler(api);
    api.eventually("neither knows whose they are", |api| {
        let active = condition(api, "ScalingActive");
        active["reason"] == "AmbiguousSelector"
            && active["message"]
                == "pods by selector app=w are controlled by multiple HPAs: [{a n} {z n}]"
    })
    .await;
    assert_eq!(api.get(&format!("{WIDGETS}/w")).unwrap()["spec"]["replicas"], 2);
}
