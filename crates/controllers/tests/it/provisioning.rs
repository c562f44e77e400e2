//! What the controllers agree upon with provisioners outside of them.

use http::Method;
use serde_json::{Value, json};

use crate::memory_api::{MemoryApi, REFUSED};
use crate::workloads::{Running, namespace};

const CLAIMS: &str = "/api/v1/namespaces/n/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const PROVISIONER: &str = "csi.example.com";
const KEPT: &str = "external-provisioner.volume.kubernetes.io/finalizer";
const ASKED: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
const CHOSEN: &str = "volume.kubernetes.io/selected-node";

/// One round of a provisioner as sidecars of drivers are: makes the volumes of the claims that ask
/// it, and removes its own that are released.
fn provision(api: &MemoryApi) {
    for claim in api.list(CLAIMS) {
        let annotations = &claim["metadata"]["annotations"];
        let class = claim["spec"]["storageClassName"].as_str().unwrap_or_default();
        let waits = class == "delayed" && annotations[CHOSEN].is_null();
        if ASKED.iter().any(|key| annotations[*key] != PROVISIONER)
            || waits
            || !claim["spec"]["volumeName"].is_null()
        {
            continue;
        }
        let name = format!("pvc-{}", claim["metadata"]["uid"].as_str().unwrap());
        if api.get(&format!("{VOLUMES}/{name}")).is_none() {
            make(api, &name, &claim);
        }
    }
    for volume in api.list(VOLUMES) {
        let name = volume["metadata"]["name"].as_str().unwrap();
        let path = format!("{VOLUMES}/{name}");
        let is_free = volume["status"]["phase"] == "Released";
        let is_ours = volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"]
            == PROVISIONER
            && volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete";
        if is_ours && is_free {
            if volume["metadata"]["deletionTimestamp"].is_null() {
                api.delete(&path);
            }
            let Some(volume) = api.get(&path) else { continue };
            let finalizers = volume["metadata"]["finalizers"].as_array().cloned();
            let mut rest = finalizers.unwrap_or_default();
            rest.retain(|finalizer| finalizer != KEPT);
            api.patch(&path, &json!({ "metadata": { "finalizers": rest } }));
        }
    }
}

fn make(api: &MemoryApi, name: &str, claim: &Value) {
    let class = &claim["spec"]["storageClassName"];
    api.create(
        VOLUMES,
        json!({ "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": { "name": name, "finalizers": [KEPT],
                "annotations": { "pv.kubernetes.io/provisioned-by": PROVISIONER } },
            "spec": { "storageClassName": class, "accessModes": ["ReadWriteOnce"],
                "capacity": { "storage": "1Gi" }, "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": { "kind": "PersistentVolumeClaim", "namespace": "n",
                    "name": claim["metadata"]["name"], "uid": claim["metadata"]["uid"] },
                "csi": { "driver": PROVISIONER, "volumeHandle": name } } }),
    );
}

fn start() -> Running {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    for (name, mode) in [("at-once", "Immediate"), ("delayed", "WaitForFirstConsumer")] {
        api.create(
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
                "metadata": { "name": name }, "provisioner": PROVISIONER,
                "volumeBindingMode": mode }),
        );
    }
    running
}

fn claim(api: &MemoryApi, class: &str) {
    api.create(
        CLAIMS,
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": "c", "namespace": "n" },
            "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "resources": { "requests": { "storage": "1Gi" } } } }),
    );
}

fn phase(api: &MemoryApi) -> Value {
    api.get(&format!("{CLAIMS}/c")).unwrap_or_default()["status"]["phase"].clone()
}

fn has_event(api: &MemoryApi, reason: &str, text: &str) -> bool {
    api.list("/api/v1/events")
        .iter()
        .any(|event| event["reason"] == reason && event["message"].as_str().unwrap().contains(text))
}

/// Waits while the provisioner works.
async fn eventually(api: &MemoryApi, what: &str, holds: impl Fn(&MemoryApi) -> bool) {
    api.eventually(what, |api| {
        provision(api);
        holds(api)
    })
    .await;
}

#[tokio::test]
async fn a_volume_is_made_for_a_claim_and_deleted_after_it() {
    let running = start();
    let api = &running.api;
    claim(api, "at-once");
    eventually(api, "the claim is bound", |api| phase(api) == "Bound").await;
    assert!(has_event(api, "ExternalProvisioning", "external provisioner 'csi.example.com'"));
    let volume = api.list(VOLUMES).remove(0);
    assert_eq!(volume["status"]["phase"], "Bound");
    api.delete(&format!("{CLAIMS}/c"));
    eventually(api, "the volume goes", |api| api.list(VOLUMES).is_empty()).await;
}

#[tokio::test]
async fn a_claim_that_waits_is_asked_for_when_its_node_is_chosen() {
    let running = start();
    let api = &running.api;
    claim(api, "delayed");
    eventually(api, "it waits", |api| {
        has_event(api, "WaitForFirstConsumer", "waiting for first consumer")
    })
    .await;
    assert!(api.get(&format!("{CLAIMS}/c")).unwrap()["metadata"]["annotations"].is_null());
    let path = format!("{CLAIMS}/c");
    api.patch(&path, &json!({ "metadata": { "annotations": { CHOSEN: "a" } } }));
    eventually(api, "the claim is bound", |api| phase(api) == "Bound").await;
}

#[tokio::test]
async fn a_volume_that_is_deleted_first_goes_after_its_claim() {
    let running = start();
    let api = &running.api;
    claim(api, "at-once");
    eventually(api, "the claim is bound", |api| phase(api) == "Bound").await;
    let name = api.list(VOLUMES)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let path = format!("{VOLUMES}/{name}");
    // As an older control plane may have left it: it is of no use for volumes of drivers.
    api.patch(
        &path,
        &json!({ "metadata": { "finalizers": [KEPT, "kubernetes.io/pv-controller"] } }),
    );
    api.delete(&path);
    eventually(api, "it stays, without what nobody would take away", |api| {
        let finalizers = &api.get(&path).unwrap()["metadata"]["finalizers"];
        let has =
            |name: &str| finalizers.as_array().is_some_and(|all| all.iter().any(|one| one == name));
        has(KEPT) && !has("kubernetes.io/pv-controller")
    })
    .await;
    assert_eq!(phase(api), "Bound");
    api.delete(&format!("{CLAIMS}/c"));
    eventually(api, "both are gone", |api| {
        api.list(VOLUMES).is_empty() && api.list(CLAIMS).is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_claim_of_a_class_that_is_not_there_is_told() {
    let running = start();
    let api = &running.api;
    claim(api, "nothing");
    let text = "storageclass.storage.k8s.io \"nothing\" not found";
    eventually(api, "it is told", |api| has_event(api, "ProvisioningFailed", text)).await;
    assert_eq!(api.list(VOLUMES).len(), 0);
}

#[tokio::test]
async fn that_a_claim_cannot_name_who_makes_its_volume_is_told() {
    let running = start();
    let api = &running.api;
    api.refuse(Method::PUT, "/persistentvolumeclaims");
    claim(api, "at-once");
    api.tells("ProvisioningFailed", &format!("Error saving claim: {REFUSED}")).await;
    api.refuse_nothing();
    eventually(api, "the claim is bound", |api| phase(api) == "Bound").await;
}
