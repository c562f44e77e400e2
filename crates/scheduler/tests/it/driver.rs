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

const CLAIMS: &str = "/api/v1/namespaces/n/persistentvolumeclaims";

fn claim(api: &MemoryApi, name: &str, class: &str) {
    api.create(
        CLAIMS,
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": name, "namespace": "n" },
            "spec": { "storageClassName": class, "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": "1Gi" } } } }),
    );
    api.create(
        "/apis/storage.k8s.io/v1/storageclasses",
        json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": { "name": class }, "provisioner": class,
            "volumeBindingMode": "WaitForFirstConsumer" }),
    );
}

/// Plays the binder.
fn bind(api: &MemoryApi, claim: &str, volume: &str) {
    let bound = json!({ "metadata": { "annotations": { "pv.kubernetes.io/bind-completed": "yes" } },
        "spec": { "volumeName": volume } });
    api.patch(&format!("{CLAIMS}/{claim}"), &bound);
}

fn mounting(claim: &str) -> Value {
    json!({ "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": claim } }] })
}

#[tokio::test]
async fn a_pod_is_bound_when_its_claim_has_the_volume_of_its_node() {
    let running = start().await;
    let api = &running.api;
    node(api, "a");
    node(api, "b");
    claim(api, "c", "kubernetes.io/no-provisioner");
    pod(api, "p", mounting("c"));
    api.eventually("no volume is found", |api| {
        let pod = api.get(&format!("{PODS}/p")).unwrap();
        let text = pod["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
        text.contains("didn't find available persistent volumes to bind")
    })
    .await;
    api.patch("/api/v1/nodes/b", &json!({ "metadata": { "labels": { "disk": "yes" } } }));
    let affinity = json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [
        { "key": "disk", "operator": "Exists" }] }] } });
    api.create(
        "/api/v1/persistentvolumes",
        json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "v" },
            "spec": { "storageClassName": "kubernetes.io/no-provisioner",
                "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" },
                "nodeAffinity": affinity },
            "status": { "phase": "Available" } }),
    );
    api.eventually("the volume is given to the claim", |api| {
        let volume = api.get("/api/v1/persistentvolumes/v").unwrap();
        volume["spec"]["claimRef"]["name"] == "c"
    })
    .await;
    assert_eq!(node_of(api, "p"), None, "it waits for the binder");
    bind(api, "c", "v");
    api.eventually("binding", |api| node_of(api, "p").as_deref() == Some("b")).await;
}

#[tokio::test]
async fn a_volume_is_made_on_the_node_that_was_chosen_or_the_pod_is_tried_again() {
    let running = start().await;
    let api = &running.api;
    node(api, "a");
    claim(api, "c", "example.com/p");
    pod(api, "p", mounting("c"));
    let key = "volume.kubernetes.io/selected-node";
    let is_chosen = |api: &MemoryApi| {
        api.get(&format!("{CLAIMS}/c")).unwrap()["metadata"]["annotations"][key] == "a"
    };
    api.eventually("the node is chosen", is_chosen).await;
    // The provisioner cannot make it there.
    api.patch(&format!("{CLAIMS}/c"), &json!({ "metadata": { "annotations": { key: null } } }));
    api.eventually("that is told", |api| {
        let pod = api.get(&format!("{PODS}/p")).unwrap();
        let text = pod["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
        text.contains("provisioning failed for PVC \"c\"")
    })
    .await;
    api.eventually("the node is chosen again", is_chosen).await;
    bind(api, "c", "v");
    api.eventually("binding", |api| node_of(api, "p").as_deref() == Some("a")).await;
}

#[tokio::test]
async fn a_pod_waits_until_its_node_may_have_its_volume() {
    let running = start().await;
    let api = &running.api;
    node(api, "a");
    let csi_node = |count: i32| {
        json!({ "metadata": { "name": "a" }, "spec": { "drivers": [
            { "name": "d", "nodeID": "a", "allocatable": { "count": count } }] } })
    };
    api.create("/apis/storage.k8s.io/v1/csinodes", csi_node(1));
    api.create(
        "/apis/storage.k8s.io/v1/volumeattachments",
        json!({ "metadata": { "name": "x" }, "spec": { "nodeName": "a", "attacher": "d",
            "source": { "persistentVolumeName": "other" } } }),
    );
    claim(api, "c", "d");
    bind(api, "c", "v");
    api.create(
        "/api/v1/persistentvolumes",
        json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "v" },
            "spec": { "storageClassName": "d", "accessModes": ["ReadWriteOnce"],
                "capacity": { "storage": "1Gi" },
                "csi": { "driver": "d", "volumeHandle": "h" } } }),
    );
    pod(api, "p", mounting("c"));
    api.eventually("the node has enough", |api| {
        let pod = api.get(&format!("{PODS}/p")).unwrap();
        let text = pod["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
        text.contains("node(s) exceed max volume count")
    })
    .await;
    api.delete("/apis/storage.k8s.io/v1/volumeattachments/x");
    api.eventually("binding", |api| node_of(api, "p").as_deref() == Some("a")).await;
}

#[tokio::test]
async fn a_pod_waits_for_its_devices_and_is_noted_in_their_claim() {
    let running = start().await;
    let api = &running.api;
    node(api, "a");
    let claims = "/apis/resource.k8s.io/v1/namespaces/n/resourceclaims";
    api.create(claims, json!({ "metadata": { "name": "c" }, "spec": {} }));
    pod(api, "p", json!({ "resourceClaims": [{ "name": "gpu", "resourceClaimName": "c" }] }));
    api.eventually("it waits", |api| {
        let pod = api.get(&format!("{PODS}/p")).unwrap();
        let text = pod["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
        text.contains("resourceclaim \"c\" is not allocated")
    })
    .await;
    api.patch(&format!("{claims}/c"), &json!({ "status": { "allocation": { "devices": {} } } }));
    api.eventually("binding", |api| node_of(api, "p").as_deref() == Some("a")).await;
    let claim = api.get(&format!("{claims}/c")).unwrap();
    assert_eq!(claim["status"]["reservedFor"][0]["name"], "p");
}
