//! From a pod's creation to its binding.

use std::sync::Arc;

use serde_json::{Value, json};
use stdx::shutdown::Shutdown;

use crate::memory_api::MemoryApi;

const PODS: &str = "/api/v1/namespaces/n/pods";

struct Running {
    api: MemoryApi,
    shutdown: Shutdown,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

async fn start() -> Running {
    let api = MemoryApi::default();
    let deps = scheduler::Deps {
        client: api.client(),
        clock: Arc::new(clock::SystemClock),
        metrics: telemetry::Registry::new(),
    };
    let shutdown = Shutdown::new();
    let (ready, mut readiness) = stdx::ready::signal();
    let run = scheduler::run(scheduler::Config::default(), deps, ready, shutdown.clone());
    drop(stdx::task::spawn("scheduler", run));
    assert!(readiness.wait().await);
    Running { api, shutdown }
}

fn node(api: &MemoryApi, name: &str) {
    api.create(
        "/api/v1/nodes",
        json!({ "metadata": { "name": name },
            "status": { "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "10" } } }),
    );
}

fn pod(api: &MemoryApi, name: &str, more: Value) {
    let mut spec = json!({ "schedulerName": "default-scheduler", "containers": [
        { "name": "c", "resources": { "requests": { "cpu": "1500m" } } }] });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    api.create(PODS, json!({ "metadata": { "name": name }, "spec": spec }));
}

fn node_of(api: &MemoryApi, name: &str) -> Option<String> {
    let pod = api.get(&format!("{PODS}/{name}"))?;
    pod["spec"]["nodeName"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_pod_is_bound_and_an_event_says_so() {
    let running = start().await;
    let api = &running.api;
    node(api, "a");
    pod(api, "p", json!({}));
    api.eventually("binding", |api| node_of(api, "p").as_deref() == Some("a")).await;
    api.eventually("event", |api| {
        let events = api.list("/api/v1/namespaces/n/events");
        events.iter().any(|event| {
            event["reason"] == "Scheduled" && event["message"] == "Successfully assigned n/p to a"
        })
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_is_told_why_and_tried_again() {
    let running = start().await;
    let api = &running.api;
    pod(api, "p", json!({}));
    api.eventually("condition", |api| {
        let pod = api.get(&format!("{PODS}/p")).unwrap();
        let condition = &pod["status"]["conditions"][0];
        condition["reason"] == "Unschedulable"
            && condition["message"] == "no nodes available to schedule pods"
    })
    .await;
    node(api, "a");
    api.eventually("binding", |api| node_of(api, "p").is_some()).await;
}

#[tokio::test]
async fn other_schedulers_pods_and_gated_ones_are_left_alone() {
    let running = start().await;
    let api = &running.api;
    node(api, "a");
    pod(api, "other", json!({ "schedulerName": "mine" }));
    pod(api, "gated", json!({ "schedulingGates": [{ "name": "g" }] }));
    pod(api, "p", json!({}));
    api.eventually("binding", |api| node_of(api, "p").is_some()).await;
    assert_eq!((node_of(api, "other"), node_of(api, "gated")), (None, None));
}

#[tokio::test]
async fn a_more_important_pod_takes_the_place_of_another() {
    let running = start().await;
    let api = &running.api;
    node(api, "a");
    pod(api, "low", json!({ "priority": 1 }));
    api.eventually("binding", |api| node_of(api, "low").is_some()).await;
    pod(api, "high", json!({ "priority": 10 }));
    api.eventually("preemption", |api| node_of(api, "high").as_deref() == Some("a")).await;
    assert!(api.get(&format!("{PODS}/low")).is_none());
}

#[tokio::test]
async fn room_that_becomes_free_is_used() {
    let running = start().await;
    let api = &running.api;
    node(api, "a");
    pod(api, "first", json!({}));
    api.eventually("binding", |api| node_of(api, "first").is_some()).await;
    pod(api, "second", json!({}));
    api.eventually("rejection", |api| {
        let pod = api.get(&format!("{PODS}/second")).unwrap();
        pod["status"]["conditions"][0]["reason"] == "Unschedulable"
    })
    .await;
    api.delete(&format!("{PODS}/first"));
    api.eventually("binding", |api| node_of(api, "second").is_some()).await;
    // A node that becomes larger is as good as room.
    pod(api, "third", json!({}));
    let larger = json!({ "status": { "allocatable": { "cpu": "8" } } });
    api.patch("/api/v1/nodes/a", &larger);
    api.eventually("binding", |api| node_of(api, "third").is_some()).await;
}
