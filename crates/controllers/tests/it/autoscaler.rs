//! What the controllers make of autoscalers.

use http::Method;
use serde_json::{Value, json};

use crate::memory_api::{MemoryApi, REFUSED};
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
    autoscaler_with(api, &json!({}));
}

fn autoscaler_with(api: &MemoryApi, more: &Value) {
    let mut spec = json!({ "minReplicas": 1, "maxReplicas": 5,
        "scaleTargetRef": { "apiVersion": "example.io/v1", "kind": "Widget", "name": "w" },
        "metrics": [{ "type": "Resource", "resource": { "name": "cpu",
            "target": { "type": "Utilization", "averageUtilization": 50 } } }] });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    api.create(
        AUTOSCALERS,
        json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": { "name": "a" }, "spec": spec }),
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
    let action = ("action", "scale_up");
    let name = |rest: &str| format!("horizontal_pod_autoscaler_controller_{rest}");
    let done = [action, ("error", "none")];
    api.eventually("it is counted", |_| {
        running.metric(&name("reconciliations_total"), &done) == 1.0
    })
    .await;
    let asked = [action, ("error", "none"), ("metric_type", "Resource")];
    assert_eq!(running.metric(&name("metric_computation_total"), &asked), 1.0);
    assert_eq!(running.metric(&name("num_horizontal_pod_autoscalers"), &[]), 1.0);
    assert_eq!(running.metric(&name("desired_replicas"), &[("hpa_name", "a")]), 4.0);
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

/// Has the autoscaler ask this metric alone.
fn with_metric(api: &MemoryApi, metric: &Value) {
    autoscaler(api);
    api.patch(&format!("{AUTOSCALERS}/a"), &json!({ "spec": { "metrics": [metric] } }));
}

async fn says(api: &MemoryApi, kind: &str, expected: Value) {
    api.eventually(&format!("{kind}: {expected}"), |api| {
        let found = condition(api, kind);
        json!([found["status"], found["reason"], found["message"]]) == expected
    })
    .await;
}

/// What is told of a metric that cannot be had, and what of all metrics then.
async fn fails(metric: Value, reason: &str, why: &str, first: &str) {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    widget(api, 2);
    with_metric(api, &metric);
    api.tells(reason, why).await;
    let text = format!("the HPA was unable to compute the replica count: {why}");
    says(api, "ScalingActive", json!(["False", reason, text])).await;
    let text = format!("invalid metrics (1 invalid out of 1), first error is: {first}");
    api.tells("FailedComputeMetricsReplicas", &text).await;
    let able = "the HPA controller was able to get the target's current scale";
    says(api, "AbleToScale", json!(["True", "SucceededGetScale", able])).await;
}

#[tokio::test]
async fn a_resource_that_nobody_measures_is_told() {
    let target = json!({ "type": "Utilization", "averageUtilization": 50 });
    let why = "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics \
               returned from resource metrics API";
    fails(
        json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }),
        "FailedGetResourceMetric",
        why,
        &format!("failed to get cpu resource metric value: {why}"),
    )
    .await;
    fails(
        json!({ "type": "ContainerResource", "containerResource": {
            "name": "cpu", "container": "c", "target": target } }),
        "FailedGetContainerResourceMetric",
        why,
        &format!("failed to get c container metric value: {why}"),
    )
    .await;
}

#[tokio::test]
async fn a_metric_that_nobody_serves_is_told() {
    let target = json!({ "type": "AverageValue", "averageValue": "5" });
    let none = "unable to fetch metrics from custom metrics API: not found";
    let why = format!("unable to get metric hits: {none}");
    fails(
        json!({ "type": "Pods", "pods": { "metric": { "name": "hits" }, "target": target } }),
        "FailedGetPodsMetric",
        &why,
        &format!("failed to get pods metric value: {why}"),
    )
    .await;
    let why = format!("unable to get metric hits: Widget on n w/{none}");
    fails(
        json!({ "type": "Object", "object": { "metric": { "name": "hits" }, "target": target,
            "describedObject": {
                "apiVersion": "example.io/v1", "kind": "Widget", "name": "w" } } }),
        "FailedGetObjectMetric",
        &why,
        &format!("failed to get object metric value: {why}"),
    )
    .await;
    let why = "unable to get external metric n/queue/nil: no metrics returned from external \
               metrics API";
    fails(
        json!({ "type": "External", "external": { "metric": { "name": "queue" },
            "target": target } }),
        "FailedGetExternalMetric",
        why,
        &format!(
            "failed to get queue external metric value: failed to get queue external metric: {why}"
        ),
    )
    .await;
    let why = "unknown metric source type \"Guess\"";
    fails(json!({ "type": "Guess" }), "InvalidMetricSourceType", why, why).await;
}

#[tokio::test]
async fn a_target_without_a_usable_selector_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    widget(api, 2);
    let target = format!("{WIDGETS}/w");
    api.patch(&target, &json!({ "status": { "selector": "" } }));
    autoscaler(api);
    api.tells("SelectorRequired", "selector is required").await;
    let text = "the HPA target's scale is missing a selector";
    says(api, "ScalingActive", json!(["False", "InvalidSelector", text])).await;
    api.patch(&target, &json!({ "status": { "selector": "a in" } }));
    api.patch(&format!("{AUTOSCALERS}/a"), &json!({ "spec": { "maxReplicas": 7 } }));
    api.eventually("the selector is no selector", |api| {
        let text = "couldn't convert selector into a corresponding internal selector object: ";
        let events = api.list("/api/v1/events");
        events.iter().any(|event| {
            event["reason"] == "InvalidSelector"
                && event["message"].as_str().unwrap().starts_with(text)
        })
    })
    .await;
}

#[tokio::test]
async fn a_target_at_zero_is_left_alone() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    widget(api, 0);
    autoscaler(api);
    let text = "scaling is disabled since the replica count of the target is zero";
    says(api, "ScalingActive", json!(["False", "ScalingDisabled", text])).await;
}

#[tokio::test]
async fn a_size_that_is_refused_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    widget(api, 9);
    api.refuse(Method::PUT, "/widgets/w/scale");
    autoscaler(api);
    let text = format!(
        "New size: 5; reason: Current number of replicas above Spec.MaxReplicas; error: {REFUSED}"
    );
    api.tells("FailedRescale", &text).await;
    let text = format!("the HPA controller was unable to update the target scale: {REFUSED}");
    says(api, "AbleToScale", json!(["False", "FailedUpdateScale", text])).await;
}

#[tokio::test]
async fn a_status_that_is_refused_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    widget(api, 2);
    api.refuse(Method::PATCH, "/horizontalpodautoscalers/a/status");
    api.refuse(Method::PUT, "/horizontalpodautoscalers/a/status");
    autoscaler(api);
    api.tells("FailedUpdateStatus", REFUSED).await;
}

#[tokio::test]
async fn a_target_grows_no_faster_than_it_may_and_stays_within_its_bounds() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    widget(api, 1);
    pod(api, "a", "4500m");
    autoscaler(api);
    // Nine would be enough, of which it may have five.
    api.eventually("the limit is told", |api| {
        condition(api, "ScalingLimited")["reason"] == "ScaleUpLimit"
            || condition(api, "ScalingLimited")["reason"] == "TooManyReplicas"
    })
    .await;
    let limited = condition(api, "ScalingLimited");
    assert_eq!(limited["status"], "True", "{limited}");
    api.eventually("it has grown", |api| {
        api.get(&format!("{WIDGETS}/w")).unwrap()["spec"]["replicas"].as_i64() > Some(1)
    })
    .await;
}

const RECOMMENDED: &str = "recommended size matches current size";

/// Has so many pods, each of which uses this much, and an autoscaler with what is more.
fn balanced(api: &MemoryApi, pods: i32, used: &str, more: &Value) {
    namespace(api);
    widget(api, pods);
    (0..pods).for_each(|at| pod(api, &format!("p{at}"), used));
    autoscaler_with(api, more);
}

/// From now on the pods use this much, and the autoscaler looks at them.
fn use_now(api: &MemoryApi, pods: i32, used: &str) {
    let usage = json!({ "containers": [{ "name": "c", "usage": { "cpu": used } }] });
    (0..pods).for_each(|at| drop(api.patch(&format!("{METRICS}/p{at}"), &usage)));
    api.patch(&format!("{AUTOSCALERS}/a"), &json!({ "spec": { "maxReplicas": 6 } }));
}

fn replicas(api: &MemoryApi) -> Value {
    api.get(&format!("{WIDGETS}/w")).unwrap()["spec"]["replicas"].clone()
}

#[tokio::test]
async fn a_target_of_the_right_size_says_so() {
    let running = Running::start();
    let api = &running.api;
    balanced(api, 2, "500m", &json!({}));
    says(api, "AbleToScale", json!(["True", "ReadyForNewScale", RECOMMENDED])).await;
    let text = "the desired count is within the acceptable range";
    says(api, "ScalingLimited", json!(["False", "DesiredWithinRange", text])).await;
    let text = "the HPA was able to successfully calculate a replica count from cpu resource \
                utilization (percentage of request)";
    says(api, "ScalingActive", json!(["True", "ValidMetricFound", text])).await;
    assert_eq!(replicas(api), 2);
}

#[tokio::test]
async fn a_target_shrinks_no_further_than_its_least() {
    let running = Running::start();
    let api = &running.api;
    // At once, that is: the size it begins with would hold for minutes.
    let down = json!({ "scaleDown": { "stabilizationWindowSeconds": 0 } });
    balanced(api, 2, "10m", &json!({ "minReplicas": 2, "behavior": down }));
    let text = "the desired replica count is less than the minimum replica count";
    says(api, "ScalingLimited", json!(["True", "TooFewReplicas", text])).await;
    assert_eq!(replicas(api), 2);
}

#[tokio::test]
async fn a_target_does_not_follow_what_may_be_over_soon() {
    let running = Running::start();
    let api = &running.api;
    balanced(api, 4, "500m", &json!({}));
    says(api, "AbleToScale", json!(["True", "ReadyForNewScale", RECOMMENDED])).await;
    use_now(api, 4, "10m");
    let text = "recent recommendations were higher than current one, applying the highest recent \
                recommendation";
    says(api, "AbleToScale", json!(["True", "ScaleDownStabilized", text])).await;
    assert_eq!(replicas(api), 4);

    let running = Running::start();
    let api = &running.api;
    let slowly = json!({ "behavior": { "scaleUp": { "stabilizationWindowSeconds": 300 } } });
    balanced(api, 2, "500m", &slowly);
    says(api, "AbleToScale", json!(["True", "ReadyForNewScale", RECOMMENDED])).await;
    use_now(api, 2, "2");
    let text = "recent recommendations were lower than current one, applying the lowest recent \
                recommendation";
    says(api, "AbleToScale", json!(["True", "ScaleUpStabilized", text])).await;
    assert_eq!(replicas(api), 2);
}

#[tokio::test]
async fn a_target_shrinks_no_faster_than_it_may() {
    let running = Running::start();
    let api = &running.api;
    let one = json!([{ "type": "Pods", "value": 1, "periodSeconds": 60 }]);
    let down = json!({ "stabilizationWindowSeconds": 0, "policies": one });
    balanced(api, 4, "10m", &json!({ "behavior": { "scaleDown": down } }));
    let text = "the desired replica count is decreasing faster than the maximum scale rate";
    says(api, "ScalingLimited", json!(["True", "ScaleDownLimit", text])).await;
    api.tells("SuccessfulRescale", "New size: 3; reason: All metrics below target").await;
    let text = "the HPA controller was able to update the target scale to 3";
    says(api, "AbleToScale", json!(["True", "SucceededRescale", text])).await;
    assert_eq!(replicas(api), 3);
}

#[tokio::test]
async fn a_target_follows_only_what_is_beyond_its_tolerance() {
    for (tolerance, replicas) in [("0.5", 2), ("0.1", 3)] {
        let running = Running::start();
        let api = &running.api;
        let up = json!({ "behavior": { "scaleUp": { "tolerance": tolerance } } });
        balanced(api, 2, "600m", &up);
        let active = |api: &MemoryApi| condition(api, "ScalingActive")["status"] == "True";
        api.eventually("it is measured", active).await;
        api.eventually(tolerance, |api| self::replicas(api) == replicas).await;
    }
}

const QUEUE: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/n/queue";

/// A target that has a replica for every five in a queue, as soon as possible, but for the fewest.
fn queued(api: &MemoryApi, replicas: i32, length: &str, more: &Value) {
    namespace(api);
    widget(api, replicas);
    api.answers(QUEUE, json!({ "items": [{ "value": length }] }));
    let target = json!({ "type": "AverageValue", "averageValue": "5" });
    let metric = json!({ "type": "External",
        "external": { "metric": { "name": "queue" }, "target": target } });
    let mut spec = json!({ "minReplicas": 0, "metrics": [metric],
        "behavior": { "scaleDown": { "stabilizationWindowSeconds": 0 } } });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    autoscaler_with(api, &spec);
}

const SCALED: &str = "the HPA controller scaled the workload to zero";
const NOT_SCALED: &str = "the HPA controller did not scale the workload to zero";
const DISABLED: &str = "scaling is disabled since the replica count of the target is zero";

#[tokio::test]
async fn a_target_goes_down_to_zero_and_returns() {
    let running = Running::start();
    let api = &running.api;
    queued(api, 2, "0", &json!({}));
    api.tells("SuccessfulRescale", "New size: 0; reason: All metrics below target").await;
    says(api, "ScaledToZero", json!(["True", "ScaledToZero", SCALED])).await;
    assert_eq!(replicas(api), 0);
    api.answers(QUEUE, json!({ "items": [{ "value": "12" }] }));
    api.patch(&format!("{AUTOSCALERS}/a"), &json!({ "spec": { "maxReplicas": 6 } }));
    let text = "New size: 3; reason: external metric queue(nil) above target";
    api.tells("SuccessfulRescale", text).await;
    says(api, "ScaledToZero", json!(["False", "NotScaledToZero", NOT_SCALED])).await;
    assert_eq!(replicas(api), 3);
}

#[tokio::test]
async fn a_target_at_zero_gets_its_least_when_that_is_raised() {
    let running = Running::start();
    let api = &running.api;
    queued(api, 2, "0", &json!({}));
    says(api, "ScaledToZero", json!(["True", "ScaledToZero", SCALED])).await;
    api.patch(&format!("{AUTOSCALERS}/a"), &json!({ "spec": { "minReplicas": 2 } }));
    let text = "New size: 2; reason: Current number of replicas below Spec.MinReplicas";
    api.tells("SuccessfulRescale", text).await;
    says(api, "ScaledToZero", json!(["False", "NotScaledToZero", NOT_SCALED])).await;
}

#[tokio::test]
async fn a_target_that_somebody_else_brought_to_zero_stays_there() {
    let running = Running::start();
    let api = &running.api;
    queued(api, 0, "12", &json!({}));
    says(api, "ScalingActive", json!(["False", "ScalingDisabled", DISABLED])).await;
    assert_eq!(replicas(api), 0);
}

#[tokio::test]
async fn without_the_gate_nothing_returns_from_zero() {
    let api = MemoryApi::default();
    queued(&api, 0, "12", &json!({}));
    let scaled = json!([{ "type": "ScaledToZero", "status": "True", "reason": "ScaledToZero",
        "message": SCALED, "lastTransitionTime": "2020-01-01T00:00:00Z" }]);
    let status = json!({ "status": { "desiredReplicas": 0, "conditions": scaled } });
    api.patch(&format!("{AUTOSCALERS}/a"), &status);
    let running = Running::start_ungated(api);
    let api = &running.api;
    says(api, "ScalingActive", json!(["False", "ScalingDisabled", DISABLED])).await;
    assert_eq!(condition(api, "ScaledToZero"), Value::Null);
    assert_eq!(replicas(api), 0);
}
