//! What the control plane does for drivers outside of it: of volumes, and of devices.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Harness, collection, pod_path};

/// A pod on the node, although nothing there can start it.
fn pod(name: &str, more: Value) -> Value {
    let mut spec = json!({ "nodeName": "node-1", "terminationGracePeriodSeconds": 0,
        "tolerations": [{ "operator": "Exists" }],
        "containers": [{ "name": "c", "image": "none" }] });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({ "metadata": { "name": name }, "spec": spec })
}

/// Writes a status as a driver does.
fn report(harness: &Harness, path: &str, status: &Value) {
    let patch = json!({ "status": status });
    harness.request(Method::PATCH, &format!("{path}/status"), Some(&patch)).unwrap();
}

/// Ends a pod as somebody who is sure that its node will not.
fn remove(harness: &Harness, name: &str) {
    let now = json!({ "gracePeriodSeconds": 0 });
    harness.request(Method::DELETE, &pod_path(name), Some(&now)).unwrap();
}

#[test]
fn volumes_are_attached_and_claims_for_devices_are_made() {
    let harness = Harness::start();
    harness.until("the node is there", || harness.exists("/api/v1/nodes/node-1").then_some(()));
    let volumes = "/api/v1/persistentvolumes";
    let volume = json!({ "metadata": { "name": "v" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Mi" },
        "csi": { "driver": "csi.example.com", "volumeHandle": "h" },
        "claimRef": { "namespace": "default", "name": "c" } } });
    harness.request(Method::POST, volumes, Some(&volume)).unwrap();
    let claim = json!({ "metadata": { "name": "c" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": "v",
        "resources": { "requests": { "storage": "1Mi" } } } });
    harness.create("persistentvolumeclaims", &claim);
    let mounted = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]);
    harness.create("pods", &pod("p", json!({ "volumes": mounted })));
    let attachments = "/apis/storage.k8s.io/v1/volumeattachments";
    let attached = harness
        .until("the attachment", || harness.get(attachments)["items"].as_array()?.first().cloned());
    let path = format!("{attachments}/{}", attached["metadata"]["name"].as_str().unwrap());
    report(&harness, &path, &json!({ "attached": true }));
    let of_node = || harness.get("/api/v1/nodes/node-1")["status"]["volumesAttached"].clone();
    harness.until("the node is told", || {
        (of_node()[0]["name"] == "kubernetes.io/csi/csi.example.com^h").then_some(())
    });

    let template = json!({ "metadata": { "name": "t" }, "spec": { "spec": { "devices": {
        "requests": [{ "name": "r", "exactly": { "deviceClassName": "d" } }] } } } });
    harness.create("resource.k8s.io/v1/resourceclaimtemplates", &template);
    let claims = json!([{ "name": "gpu", "resourceClaimTemplateName": "t" }]);
    harness.create("pods", &pod("d", json!({ "resourceClaims": claims })));
    let made = harness.until("the pod has a claim", || {
        let pod = harness.get(&pod_path("d"));
        pod["status"]["resourceClaimStatuses"][0]["resourceClaimName"].as_str().map(str::to_owned)
    });
    let made = format!("{}/{made}", collection("resource.k8s.io/v1/resourceclaims"));
    let device = json!({ "request": "r", "driver": "d.example.com", "pool": "p", "device": "one" });
    let allocation = json!({ "allocation": { "devices": { "results": [device] } } });
    report(&harness, &made, &allocation);
    harness.until("the claim says who has it", || {
        (harness.get(&made)["status"]["reservedFor"][0]["name"] == "d").then_some(())
    });

    remove(&harness, "p");
    remove(&harness, "d");
    harness.until("the volume is detached", || (!harness.exists(&path)).then_some(()));
    harness.until("the claim has gone with its pod", || (!harness.exists(&made)).then_some(()));
    assert!(of_node().is_null() || of_node() == json!([]));
    let log = harness.cluster.log();
    assert!(!log.contains("forbidden"), "{log}");
}
