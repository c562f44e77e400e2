//! What autoscalers make of the metrics of other servers.

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, namespace};

const WIDGETS: &str = "/apis/example.io/v1/namespaces/n/widgets";
const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/n/horizontalpodautoscalers";
const CUSTOM: &str = "/apis/custom.metrics.k8s.io";

/// A target of two pods and an autoscaler that asks for one metric.
fn scaled_by(api: &MemoryApi, metric: &Value) {
    namespace(api);
    api.create(
        WIDGETS,
        json!({ "apiVersion": "example.io/v1", "kind": "Widget", "metadata": { "name": "w" },
            "spec": { "replicas": 2 }, "status": { "replicas": 2, "selector": "app=w" } }),
    );
    for name in ["a", "b"] {
        api.create(
            PODS,
            json!({ "metadata": { "name": name, "labels": { "app": "w" } },
                "spec": { "containers": [
                    { "name": "c", "resources": { "requests": { "cpu": "1" } } },
                    { "name": "d", "resources": { "requests": { "cpu": "1" } } }] },
                "status": { "phase": "Running", "startTime": "2020-01-01T00:00:00Z",
                    "conditions": [{ "type": "Ready", "status": "True",
                        "lastTransitionTime": "2020-01-01T00:00:00Z" }] } }),
        );
    }
    api.create(
        AUTOSCALERS,
        json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": { "name": "a" }, "spec": { "minReplicas": 1, "maxReplicas": 9,
                "metrics": [metric], "scaleTargetRef": {
                    "apiVersion": "example.io/v1", "kind": "Widget", "name": "w" } } }),
    );
}

/// Waits until the target has twice as many pods, because of this.
async fn doubles(api: &MemoryApi, because: &str, current: &Value) {
    api.tells("SuccessfulRescale", &format!("New size: 4; reason: {because} above target")).await;
    assert_eq!(api.get(&format!("{WIDGETS}/w")).unwrap()["spec"]["replicas"], 4);
    let active =
        format!("the HPA was able to successfully calculate a replica count from {because}");
    api.eventually("the status", |api| {
        let status = api.get(&format!("{AUTOSCALERS}/a")).unwrap()["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        status["currentMetrics"][0] == *current
            && conditions
                .iter()
                .any(|one| one["reason"] == "ValidMetricFound" && one["message"] == active.as_str())
    })
    .await;
}

fn item(name: &str, value: &str) -> Value {
    json!({ "describedObject": { "name": name }, "value": value,
        "timestamp": "2026-01-01T00:00:00Z" })
}

fn serve_custom(api: &MemoryApi, path: &str, items: &Value) {
    api.answers(CUSTOM, json!({ "preferredVersion": { "version": "v1beta1" } }));
    api.answers(&format!("{CUSTOM}/v1beta1/namespaces/n/{path}"), json!({ "items": items }));
}

#[tokio::test]
async fn a_metric_of_every_pod_is_averaged() {
    let running = Running::start();
    let api = &running.api;
    serve_custom(api, "pods/*/hits", &json!([item("a", "14"), item("b", "6")]));
    let target = json!({ "type": "AverageValue", "averageValue": "5" });
    let metric = json!({ "metric": { "name": "hits" }, "target": target });
    scaled_by(api, &json!({ "type": "Pods", "pods": metric }));
    let current = json!({ "type": "Pods", "pods": { "metric": { "name": "hits" },
        "current": { "averageValue": "10" } } });
    doubles(api, "pods metric hits", &current).await;
}

#[tokio::test]
async fn a_metric_of_an_object_is_compared_or_shared() {
    let object = json!({ "apiVersion": "example.io/v1", "kind": "Widget", "name": "w" });
    // The words for a share are upstream's.
    for (target, current, because) in [
        (json!({ "type": "Value", "value": "10" }), json!({ "value": "20" }), "Widget metric hits"),
        (
            json!({ "type": "AverageValue", "averageValue": "5" }),
            json!({ "averageValue": "10" }),
            "external metric hits(nil)",
        ),
    ] {
        let running = Running::start();
        let api = &running.api;
        serve_custom(api, "widgets.example.io/w/hits", &json!([item("w", "20")]));
        let metric = json!({ "metric": { "name": "hits" }, "describedObject": object,
            "target": target });
        scaled_by(api, &json!({ "type": "Object", "object": metric }));
        let current = json!({ "type": "Object", "object": { "metric": { "name": "hits" },
            "describedObject": object, "current": current } });
        doubles(api, because, &current).await;
    }
}

#[tokio::test]
async fn a_metric_of_something_else_is_summed() {
    let running = Running::start();
    let api = &running.api;
    let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/n/queue";
    api.answers(path, json!({ "items": [{ "value": "12" }, { "value": "8" }] }));
    let target = json!({ "type": "AverageValue", "averageValue": "5" });
    let metric = json!({ "metric": { "name": "queue" }, "target": target });
    scaled_by(api, &json!({ "type": "External", "external": metric }));
    let current = json!({ "type": "External", "external": { "metric": { "name": "queue" },
        "current": { "averageValue": "10" } } });
    doubles(api, "external metric queue(nil)", &current).await;
}

#[tokio::test]
async fn one_container_of_a_pod_may_be_what_counts() {
    let running = Running::start();
    let api = &running.api;
    for name in ["a", "b"] {
        let usage = |cpu: &str| json!({ "cpu": cpu });
        api.create(
            "/apis/metrics.k8s.io/v1beta1/namespaces/n/pods",
            json!({ "metadata": { "name": name }, "timestamp": "2026-01-01T00:00:00Z",
                "window": "30s", "containers": [
                    { "name": "c", "usage": usage("900m") },
                    { "name": "d", "usage": usage("10m") }] }),
        );
    }
    let target = json!({ "type": "Utilization", "averageUtilization": 50 });
    let metric = json!({ "name": "cpu", "container": "c", "target": target });
    scaled_by(api, &json!({ "type": "ContainerResource", "containerResource": metric }));
    let current = json!({ "type": "ContainerResource", "containerResource": {
        "name": "cpu", "container": "c",
        "current": { "averageUtilization": 90, "averageValue": "900m" } } });
    doubles(api, "cpu container resource utilization (percentage of request)", &current).await;
}
