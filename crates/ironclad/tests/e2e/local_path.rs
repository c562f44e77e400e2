//! Claims that name no class: directories of nodes.

use serde_json::json;
use testkit::POD_IMAGE;

use crate::harness::{Harness, collection};

#[test]
fn a_claim_without_a_class_gets_a_directory_that_goes_with_it() {
    let harness = Harness::start();
    let claim = json!({ "metadata": { "name": "data" }, "spec": {
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": "1Mi" } } } });
    harness.create("persistentvolumeclaims", &claim);
    let path = format!("{}/data", collection("persistentvolumeclaims"));
    let told = |reason: &str| {
        harness.until(reason, || {
            let events = harness.get(&collection("events"));
            let events = events["items"].as_array()?.clone();
            events.iter().any(|event| event["reason"] == reason).then_some(())
        });
    };
    told("WaitForFirstConsumer");
    assert_eq!(harness.get(&path)["spec"]["storageClassName"], "local-path");
    let pod = json!({ "metadata": { "name": "writer" }, "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "c", "image": POD_IMAGE, "args": ["serve", "8080"],
            "volumeMounts": [{ "name": "v", "mountPath": "/data" }] }],
        "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }] } });
    harness.create("pods", &pod);
    told("ProvisioningSucceeded");
    let bound = harness.until("the claim is bound", || {
        let claim = harness.get(&path);
        (claim["status"]["phase"] == "Bound").then_some(claim)
    });
    let name = bound["spec"]["volumeName"].as_str().unwrap();
    let volume = format!("/api/v1/persistentvolumes/{name}");
    let spec = harness.get(&volume)["spec"].clone();
    let directory = std::path::PathBuf::from(spec["hostPath"]["path"].as_str().unwrap());
    assert!(directory.ends_with(format!("storage/{name}_default_data")), "{directory:?}");
    let pod = format!("{}/writer", collection("pods"));
    harness.ready_pod("writer");
    assert!(directory.is_dir(), "the kubelet makes it");
    std::fs::create_dir_all(directory.join("inner")).unwrap();
    harness.delete(&pod);
    harness.until("the pod is gone", || (!harness.exists(&pod)).then_some(()));
    harness.delete(&path);
    harness.until("the claim is gone", || (!harness.exists(&path)).then_some(()));
    harness.until("the volume is gone", || (!harness.exists(&volume)).then_some(()));
    assert!(!directory.exists());
    // Every controller has the rights it needs, under its own identity.
    let log = harness.cluster.log();
    assert!(!log.contains("forbidden"), "{log}");
}
