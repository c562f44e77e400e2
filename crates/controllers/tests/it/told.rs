//! Conditions and events that tell why something is as it is, each in the situation it stands for.

use std::time::Duration;

use controllers::NodeHealth;
use http::Method;
use serde_json::{Value, json};

use crate::memory_api::{MemoryApi, REFUSED};
use crate::workloads::{PODS, Running, name, namespace};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/n/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/n/replicasets";
const STATEFUL_SETS: &str = "/apis/apps/v1/namespaces/n/statefulsets";
const CLAIMS: &str = "/api/v1/namespaces/n/persistentvolumeclaims";
const NODES: &str = "/api/v1/nodes";

fn template() -> Value {
    json!({ "metadata": { "labels": { "app": "w" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] } })
}

fn workload(more: &Value) -> Value {
    let mut object = json!({ "metadata": { "name": "w" }, "spec": { "replicas": 1,
        "selector": { "matchLabels": { "app": "w" } }, "template": template() } });
    for (field, value) in more.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

fn rolling() -> Value {
    json!({ "progressDeadlineSeconds": 600, "strategy": { "type": "RollingUpdate",
        "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } } })
}

/// Status, reason and message of a condition.
fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    let found = found.cloned().unwrap_or_default();
    json!([found["status"], found["reason"], found["message"]])
}

/// Waits until an object has had this condition, be it for a moment.
pub(crate) async fn has_said(api: &MemoryApi, path: &str, kind: &str, expected: Value) {
    api.eventually(&format!("{path}: {kind}: {expected}"), |api| {
        api.history(path).iter().any(|object| condition(object, kind) == expected)
    })
    .await;
}

#[tokio::test]
async fn a_deployment_says_what_set_it_has_made() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.create(DEPLOYMENTS, workload(&rolling()));
    api.eventually("a set", |api| !api.list(SETS).is_empty()).await;
    let set = name(&api.list(SETS)[0]);
    let text = format!("Created new replica set \"{set}\"");
    let path = format!("{DEPLOYMENTS}/w");
    has_said(api, &path, "Progressing", json!(["True", "NewReplicaSetCreated", text])).await;
    api.patch(&path, &json!({ "spec": { "paused": true } }));
    let paused = json!(["Unknown", "DeploymentPaused", "Deployment is paused"]);
    has_said(api, &path, "Progressing", paused).await;
    api.patch(&path, &json!({ "spec": { "paused": false } }));
    let resumed = json!(["Unknown", "DeploymentResumed", "Deployment is resumed"]);
    has_said(api, &path, "Progressing", resumed).await;
}

#[tokio::test]
async fn a_deployment_says_what_set_it_has_found() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let mut set = workload(&json!({}));
    set["metadata"] = json!({ "name": "there", "labels": { "app": "w" } });
    api.create(SETS, set);
    api.create(DEPLOYMENTS, workload(&rolling()));
    let path = format!("{DEPLOYMENTS}/w");
    let found = json!(["True", "FoundNewReplicaSet", "Found new replica set \"there\""]);
    has_said(api, &path, "Progressing", found).await;
    assert_eq!(api.list(SETS).len(), 1);
}

#[tokio::test]
async fn a_deployment_of_which_no_progress_is_expected_says_nothing_of_it() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let mut more = rolling();
    more["progressDeadlineSeconds"] = i32::MAX.into();
    api.create(DEPLOYMENTS, workload(&more));
    let path = format!("{DEPLOYMENTS}/w");
    api.eventually("its status", |api| {
        api.get(&path).unwrap()["status"]["unavailableReplicas"] == 1
    })
    .await;
    let told = api.history(&path);
    assert!(told.iter().all(|object| condition(object, "Progressing")[0].is_null()), "{told:?}");
}

#[tokio::test]
async fn a_pod_of_a_stateful_set_that_cannot_be_put_right_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.create(STATEFUL_SETS, workload(&json!({ "serviceName": "s" })));
    api.eventually("its pod", |api| !api.list(PODS).is_empty()).await;
    api.refuse(Method::PATCH, "/pods/w-0");
    api.refuse(Method::PUT, "/pods/w-0");
    let nobody = json!({ "metadata": { "labels": {
        "statefulset.kubernetes.io/pod-name": null } },
        "status": { "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True" }] } });
    api.patch(&format!("{PODS}/w-0"), &nobody);
    let text = format!("update Pod w-0 in StatefulSet w failed error: {REFUSED}");
    api.tells("FailedUpdate", &text).await;
}

/// Nodes that are given up a moment after they were heard of.
fn impatient() -> NodeHealth {
    NodeHealth {
        grace: Duration::from_millis(600),
        startup_grace: Duration::from_millis(600),
        ..NodeHealth::default()
    }
}

#[tokio::test]
async fn a_node_that_falls_silent_is_told_and_so_are_its_pods() {
    let running = Running::start_with(impatient());
    let api = &running.api;
    namespace(api);
    let node = |name: &str, conditions: Value| {
        api.create(
            NODES,
            json!({ "metadata": { "name": name },
            "status": { "conditions": conditions } }),
        );
    };
    node(
        "a",
        json!([
        { "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z" },
        { "type": "MemoryPressure", "status": "False" }]),
    );
    node("never", json!([]));
    api.create(
        PODS,
        json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "a",
                "tolerations": [{ "operator": "Exists" }] },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } }),
    );
    api.tells("NodeNotReady", "Node a status is now: NodeNotReady").await;
    api.tells("NodeNotReady", "Node is not ready").await;
    let path = format!("{NODES}/a");
    let stopped = json!(["Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status."]);
    let never = json!(["Unknown", "NodeStatusNeverUpdated", "Kubelet never posted node status."]);
    has_said(api, &path, "Ready", stopped.clone()).await;
    has_said(api, &path, "MemoryPressure", stopped).await;
    has_said(api, &path, "DiskPressure", never.clone()).await;
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        has_said(api, &format!("{NODES}/never"), kind, never.clone()).await;
    }
    api.eventually("the pod is not ready", |api| {
        condition(&api.get(&format!("{PODS}/p")).unwrap(), "Ready")[0] == "False"
    })
    .await;
    // One that was never ready did not become anything else.
    let text = "Node never status is now: NodeNotReady";
    assert!(!api.has_told("NodeNotReady", text));
}

#[tokio::test]
async fn a_claim_says_what_it_waits_for() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.create(
        "/apis/storage.k8s.io/v1/storageclasses",
        json!({ "metadata": { "name": "late" }, "provisioner": "p.example",
            "volumeBindingMode": "WaitForFirstConsumer" }),
    );
    let claim = json!({ "metadata": { "name": "c" }, "spec": { "storageClassName": "late",
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    api.create(CLAIMS, claim);
    let text = "waiting for first consumer to be created before binding";
    api.tells("WaitForFirstConsumer", text).await;
    let user = |name: &str| {
        api.create(
            PODS,
            json!({ "metadata": { "name": name }, "spec": { "containers": [],
            "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }] } }),
        );
    };
    user("p");
    api.tells("WaitForPodScheduled", "waiting for pod p to be scheduled").await;
    user("q");
    api.tells("WaitForPodScheduled", "waiting for pods p,q to be scheduled").await;
}

#[tokio::test]
async fn a_claim_whose_volume_is_anothers_is_lost() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let other = json!({ "namespace": "n", "name": "other", "uid": "another" });
    api.create(
        "/api/v1/persistentvolumes",
        json!({ "metadata": { "name": "v" }, "spec": { "accessModes": ["ReadWriteOnce"],
            "capacity": { "storage": "1Gi" }, "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": { "path": "/x" }, "claimRef": other } }),
    );
    api.create(
        CLAIMS,
        json!({ "metadata": { "name": "c",
                "annotations": { "pv.kubernetes.io/bind-completed": "yes" } },
            "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                "volumeName": "v", "resources": { "requests": { "storage": "1Gi" } } },
            "status": { "phase": "Bound" } }),
    );
    let text = "Two claims are bound to the same volume, this one is bound incorrectly";
    api.tells("ClaimMisbound", text).await;
    let path = format!("{CLAIMS}/c");
    api.eventually("it is lost", |api| api.get(&path).unwrap()["status"]["phase"] == "Lost").await;
}

#[tokio::test]
async fn nodes_may_take_no_part_in_balancing() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let node = |name: &str, address: &str, labels: Value| {
        api.create(
            NODES,
            json!({ "metadata": { "name": name, "labels": labels }, "status": {
                "conditions": [{ "type": "Ready", "status": "True" }],
                "addresses": [{ "type": "InternalIP", "address": address }] } }),
        );
    };
    node("a", "192.0.2.1", json!({}));
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    node("b", "192.0.2.2", json!({ label: "" }));
    let services = "/api/v1/namespaces/n/services";
    api.create(
        services,
        json!({ "metadata": { "name": "s" },
            "spec": { "type": "LoadBalancer", "ipFamilies": ["IPv4"] } }),
    );
    let addresses = |api: &MemoryApi| {
        let service = api.get(&format!("{services}/s")).unwrap();
        service["status"]["loadBalancer"]["ingress"].clone()
    };
    let is = |api: &MemoryApi, wanted: &[&str]| {
        let found = addresses(api);
        let found = found.as_array().into_iter().flatten().map(|one| one["ip"].clone());
        found.collect::<Vec<_>>() == wanted
    };
    api.eventually("the first alone", |api| is(api, &["192.0.2.1"])).await;
    api.patch(&format!("{NODES}/b"), &json!({ "metadata": { "labels": { label: null } } }));
    api.eventually("both", |api| is(api, &["192.0.2.1", "192.0.2.2"])).await;
    api.tells("UpdatedLoadBalancer", "Updated load balancer with new hosts").await;
    api.refuse(Method::PATCH, "/services/s/status");
    api.delete(&format!("{NODES}/a"));
    let text = format!(
        "Error updating load balancer with new hosts [b] [node names limited, total number of \
         nodes: 1], error: {REFUSED}"
    );
    api.tells("UpdateLoadBalancerFailed", &text).await;
    api.refuse_nothing();
    api.delete(&format!("{NODES}/b"));
    let text = "There are no available nodes for LoadBalancer";
    api.tells("UnAvailableLoadBalancer", text).await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_is_gone_have_failed_and_go() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.create(
        PODS,
        json!({ "metadata": { "name": "p", "finalizers": ["test/held"] },
            "spec": { "nodeName": "gone" }, "status": { "phase": "Running" } }),
    );
    let path = format!("{PODS}/p");
    // The node may only have been deleted to come back.
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert_eq!(api.get(&path).unwrap()["status"]["phase"], "Running");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let why = json!(["True", "DeletionByPodGC", "PodGC: node no longer exists"]);
    has_said(api, &path, "DisruptionTarget", why).await;
    api.eventually("it is to go", |api| {
        let pod = api.get(&path).unwrap();
        pod["status"]["phase"] == "Failed" && pod["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
}
