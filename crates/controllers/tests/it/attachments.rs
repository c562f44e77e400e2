//! What the controllers make of volumes that have to be attached.

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, namespace};

const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";
const UNIQUE: &str = "kubernetes.io/csi/csi.example.com^handle-v";

/// A node that reads in its status what is attached to it.
fn node(api: &MemoryApi, name: &str, ready: &str) {
    api.create(
        "/api/v1/nodes",
        json!({ "metadata": { "name": name, "annotations": {
                "volumes.kubernetes.io/controller-managed-attach-detach": "true" } },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] } }),
    );
}

/// A claim, and the volume of a driver that is bound to it.
fn volume(api: &MemoryApi) {
    namespace(api);
    api.create(
        "/api/v1/persistentvolumes",
        json!({ "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": { "name": "v" },
            "spec": { "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" },
                "csi": { "driver": "csi.example.com", "volumeHandle": "handle-v" } } }),
    );
    api.create(
        "/api/v1/namespaces/n/persistentvolumeclaims",
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": "c", "namespace": "n" },
            "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                "resources": { "requests": { "storage": "1Gi" } } } }),
    );
}

fn pod(api: &MemoryApi, name: &str, node: &str) {
    api.create(
        PODS,
        json!({ "metadata": { "name": name }, "spec": { "nodeName": node, "containers": [],
            "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }] } }),
    );
}

fn attachment_to(api: &MemoryApi, node: &str) -> Option<Value> {
    api.list(ATTACHMENTS).into_iter().find(|one| one["spec"]["nodeName"] == node)
}

/// Plays the driver's attacher: says that everything is attached.
fn attach(api: &MemoryApi) {
    for one in api.list(ATTACHMENTS) {
        let path = format!("{ATTACHMENTS}/{}", one["metadata"]["name"].as_str().unwrap());
        api.patch(&path, &json!({ "status": { "attached": true } }));
    }
}

fn status(api: &MemoryApi, node: &str, field: &str) -> Value {
    api.get(&format!("/api/v1/nodes/{node}")).unwrap()["status"][field].clone()
}

fn uses(api: &MemoryApi, node: &str, volumes: Value) {
    api.patch(&format!("/api/v1/nodes/{node}"), &json!({ "status": { "volumesInUse": volumes } }));
}

fn events(api: &MemoryApi, reason: &str) -> Vec<(String, String)> {
    let events = api.list("/api/v1/events").into_iter().filter(|event| event["reason"] == reason);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events.map(|event| (text(&event["involvedObject"]["name"]), text(&event["message"]))).collect()
}

#[tokio::test]
async fn a_volume_is_attached_for_a_pod_and_detached_when_its_node_lets_go() {
    let running = Running::start();
    let api = &running.api;
    node(api, "a", "True");
    volume(api);
    pod(api, "p", "a");
    api.eventually("the attachment", |api| attachment_to(api, "a").is_some()).await;
    let attachment = attachment_to(api, "a").unwrap();
    assert_eq!(attachment["spec"]["attacher"], "csi.example.com");
    assert_eq!(attachment["spec"]["source"]["persistentVolumeName"], "v");
    uses(api, "a", json!([UNIQUE]));
    attach(api);
    api.eventually("node and pod are told", |api| {
        status(api, "a", "volumesAttached") == json!([{ "name": UNIQUE, "devicePath": "" }])
            && events(api, "SuccessfulAttachVolume")
                == [("p".to_owned(), "AttachVolume.Attach succeeded for volume \"v\" ".to_owned())]
    })
    .await;
    api.delete(&format!("{PODS}/p"));
    // Nothing happens while the node uses it; another pod's wish shows that all was looked at.
    node(api, "b", "True");
    pod(api, "q", "b");
    api.eventually("the other pod is refused", |api| {
        let text = "Multi-Attach error for volume \"v\" Volume is already exclusively attached to \
                    one node and can't be attached to another";
        events(api, "FailedAttachVolume").contains(&("q".to_owned(), text.to_owned()))
    })
    .await;
    assert!(attachment_to(api, "a").is_some() && attachment_to(api, "b").is_none());
    uses(api, "a", json!([]));
    api.eventually("it goes over to the other node", |api| {
        attachment_to(api, "a").is_none() && attachment_to(api, "b").is_some()
    })
    .await;
    assert_eq!(status(api, "a", "volumesAttached"), json!([]));
}

#[tokio::test]
async fn a_node_that_is_out_of_service_loses_its_volumes() {
    let running = Running::start();
    let api = &running.api;
    node(api, "a", "Unknown");
    volume(api);
    pod(api, "p", "a");
    api.eventually("the attachment", |api| attachment_to(api, "a").is_some()).await;
    attach(api);
    uses(api, "a", json!([UNIQUE]));
    api.delete(&format!("{PODS}/p"));
    let taint = json!([{ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" }]);
    api.patch("/api/v1/nodes/a", &json!({ "spec": { "taints": taint } }));
    api.eventually("it is detached", |api| attachment_to(api, "a").is_none()).await;
}

#[tokio::test]
async fn drivers_say_whether_and_why_not() {
    let running = Running::start();
    let api = &running.api;
    node(api, "a", "True");
    volume(api);
    let drivers = "/apis/storage.k8s.io/v1/csidrivers";
    api.create(
        drivers,
        json!({ "metadata": { "name": "csi.example.com" }, "spec": { "attachRequired": false } }),
    );
    pod(api, "p", "a");
    api.eventually("the claim is bound", |api| {
        api.get("/api/v1/namespaces/n/persistentvolumeclaims/c").unwrap()["status"]["phase"]
            == "Bound"
    })
    .await;
    assert!(attachment_to(api, "a").is_none());
    api.delete(&format!("{drivers}/csi.example.com"));
    api.eventually("the attachment", |api| attachment_to(api, "a").is_some()).await;
    let name = attachment_to(api, "a").unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    let error = json!({ "status": { "attached": false, "attachError": { "message": "no disk" } } });
    api.patch(&format!("{ATTACHMENTS}/{name}"), &error);
    api.eventually("the pod is told", |api| {
        let text = "AttachVolume.Attach failed for volume \"v\" : no disk";
        events(api, "FailedAttachVolume").contains(&("p".to_owned(), text.to_owned()))
    })
    .await;
}
