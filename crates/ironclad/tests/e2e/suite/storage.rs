//! G13: volumes and claims beside the controllers that follow them.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{at, condition, name};
use crate::harness::{Harness, collection};

const VOLUMES: &str = "/api/v1/persistentvolumes";
const CLAIMS: &str = "persistentvolumeclaims";
const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";

fn volume(name: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": { "e2e": "pv" } }, "spec": {
        "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"],
        "storageClassName": "own", "hostPath": { "path": "/tmp/none" } } })
}

fn claim(name: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": { "e2e": "pvc" } }, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "own",
        "resources": { "requests": { "storage": "1Gi" } } } })
}

fn post(harness: &Harness, path: &str, object: &Value) -> Value {
    harness.request(Method::POST, path, Some(object)).unwrap()
}

fn label(harness: &Harness, path: &str, key: &str) {
    let patch = json!({ "metadata": { "labels": { key: "patched" } } });
    assert_eq!(harness.merge(path, &patch)["metadata"]["labels"][key], "patched");
    let updated =
        harness.update(path, |object| object["metadata"]["labels"][key] = json!("updated"));
    assert_eq!(updated["metadata"]["labels"][key], "updated");
}

/// \[sig-storage\] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a
/// PVC
#[test]
fn a_volume_and_its_claim_are_changed_and_deleted_one_by_one_and_by_label() {
    let harness = Harness::start();
    let volume_path = format!("{VOLUMES}/v");
    let claim_path = at(CLAIMS, "c");
    for by_label in [false, true] {
        post(&harness, VOLUMES, &volume("v"));
        harness.create(CLAIMS, &claim("c"));
        assert_eq!(harness.items(&format!("{VOLUMES}?labelSelector=e2e=pv")).len(), 1);
        let bound =
            harness.becomes(&claim_path, "is bound", |claim| claim["status"]["phase"] == "Bound");
        assert_eq!(bound["spec"]["volumeName"], "v");
        assert_eq!(bound["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
        let volume = harness.get(&volume_path);
        assert_eq!(volume["spec"]["claimRef"]["uid"], bound["metadata"]["uid"]);
        assert_eq!(volume["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]));
        label(&harness, &volume_path, "own");
        label(&harness, &claim_path, "own");
        if by_label {
            harness.delete(&format!("{}?labelSelector=e2e=pvc", collection(CLAIMS)));
            harness.goes(&claim_path);
            harness.delete(&format!("{VOLUMES}?labelSelector=e2e=pv"));
        } else {
            harness.delete(&claim_path);
            harness.goes(&claim_path);
            harness.delete(&volume_path);
        }
        harness.goes(&volume_path);
    }
}

/// \[sig-storage\] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status
#[test]
fn the_status_of_volumes_and_claims_keeps_what_others_write() {
    let harness = Harness::start();
    post(&harness, VOLUMES, &volume("v"));
    harness.create(CLAIMS, &claim("c"));
    let (claim, volume) = (at(CLAIMS, "c"), format!("{VOLUMES}/v"));
    harness.becomes(&claim, "is bound", |claim| claim["status"]["phase"] == "Bound");
    let own = |kind: &str| json!({ "type": kind, "status": "True", "reason": "E2E", "message": "set from a test" });
    let status = |path: &str| format!("{path}/status");
    let patch = json!({ "status": { "conditions": [own("StatusPatched")] } });
    harness.merge(&status(&claim), &patch);
    let words = json!({ "status": { "message": "patched", "reason": "E2E" } });
    harness.merge(&status(&volume), &words);
    harness.stays("they keep it", Duration::from_secs(1), || {
        let volume = harness.get(&status(&volume));
        condition(&harness.get(&status(&claim)), "StatusPatched")["status"] == "True"
            && volume["status"]["message"] == "patched"
            && volume["status"]["phase"] == "Bound"
    });
    harness.update(&status(&claim), |claim| {
        claim["status"]["conditions"].as_array_mut().unwrap().push(own("StatusUpdated"));
    });
    harness.update(&status(&volume), |volume| volume["status"]["message"] = json!("updated"));
    assert_eq!(condition(&harness.get(&status(&claim)), "StatusUpdated")["reason"], "E2E");
    assert_eq!(harness.get(&status(&volume))["status"]["message"], "updated");
}

fn attachment(name: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": { "e2e": "va" } }, "spec": {
        "attacher": "e2e-test.storage.k8s.io", "nodeName": "node-1",
        "source": { "persistentVolumeName": "nobodys" } } })
}

/// \[sig-storage\] VolumeAttachment Conformance should run through the lifecycle of a
/// VolumeAttachment; should apply changes to a volumeattachment status: what the controller did not
/// attach it does not detach
#[test]
fn attachments_of_others_are_left_alone() {
    let harness = Harness::start();
    let path = format!("{ATTACHMENTS}/one");
    post(&harness, ATTACHMENTS, &attachment("one"));
    label(&harness, &path, "own");
    assert_eq!(harness.items(&format!("{ATTACHMENTS}?labelSelector=e2e=va")).len(), 1);
    let status = format!("{path}/status");
    assert_eq!(harness.get(&status)["status"]["attached"], false);
    harness.merge(&status, &json!({ "status": { "attached": true } }));
    harness.stays("it stays attached", Duration::from_secs(3), || {
        harness.get(&status)["status"]["attached"] == true
    });
    harness.update(&status, |one| one["status"]["attached"] = json!(false));
    assert_eq!(harness.get(&path)["status"]["attached"], false);
    harness.delete(&path);
    harness.goes(&path);
    for name in ["two", "three"] {
        post(&harness, ATTACHMENTS, &attachment(name));
        label(&harness, &format!("{ATTACHMENTS}/{name}"), "own");
    }
    harness.delete(&format!("{ATTACHMENTS}?labelSelector=own=updated"));
    harness.goes(&format!("{ATTACHMENTS}/two"));
    harness.goes(&format!("{ATTACHMENTS}/three"));
}

/// \[sig-storage\] VolumeAttributesClass should run through the lifecycle of a VolumeAttributesClass;
/// StorageClasses CSI Conformance should run through the lifecycle of a StorageClass: with the
/// controllers that protect them
#[test]
fn classes_are_changed_and_deleted_one_by_one_and_by_label() {
    let harness = Harness::start();
    for (plural, more) in [
        (
            "volumeattributesclasses",
            json!({ "driverName": "d.example", "parameters": { "a": "b" } }),
        ),
        ("storageclasses", json!({ "provisioner": "d.example" })),
    ] {
        let all = format!("/apis/storage.k8s.io/v1/{plural}");
        let path = format!("{all}/own");
        let mut class = more;
        class["metadata"] = json!({ "name": "own", "labels": { "e2e": "class" } });
        for by_label in [false, true] {
            let since = harness.now(&all);
            post(&harness, &all, &class);
            assert_eq!(harness.get(&path)["metadata"]["name"], "own");
            label(&harness, &path, "own");
            harness.delete(&if by_label {
                format!("{all}?labelSelector=e2e=class")
            } else {
                path.clone()
            });
            harness.goes(&path);
            let seen = harness.seen(&all, "e2e=class", &since);
            assert_eq!((&*seen[0].0, &*seen.last().unwrap().0), ("ADDED", "DELETED"));
            assert_eq!(name(&seen[0].1), "own");
        }
    }
}
