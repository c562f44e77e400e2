//! Claims that name no class: directories of nodes.

use http::Method;
use serde_json::json;
use testkit::POD_IMAGE;

use crate::harness::{Harness, collection, pod_path};

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

/// The pod comes back to where its data is, whatever node the scheduler would like better.
#[test]
fn a_pod_of_a_stateful_set_finds_what_the_one_before_it_left() {
    let harness = Harness::start();
    let labels = json!({ "app": "db" });
    let container = json!({ "name": "c", "image": POD_IMAGE,
        "args": ["note", "/data/starts", "serve", "8080"],
        "volumeMounts": [{ "name": "data", "mountPath": "/data" }] });
    let claim = json!({ "metadata": { "name": "data" }, "spec": {
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": "1Mi" } } } });
    let set = json!({ "metadata": { "name": "db" }, "spec": { "replicas": 2, "serviceName": "db",
        "selector": { "matchLabels": labels }, "volumeClaimTemplates": [claim],
        "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Delete",
            "whenScaled": "Retain" },
        "template": { "metadata": { "labels": labels }, "spec": {
            "terminationGracePeriodSeconds": 1, "containers": [container] } } } });
    harness.create("apps/v1/statefulsets", &set);
    let starts = |name: &str| {
        let pod = harness.ready_pod(name);
        let address = pod["status"]["podIP"].as_str().unwrap().to_owned();
        let noted = harness.fetch(&address, 8080, "/file?/data/starts").unwrap();
        (pod["metadata"]["uid"].clone(), noted.lines().count())
    };
    let (first, other) = (starts("db-0"), starts("db-1"));
    assert_eq!((first.1, other.1), (1, 1), "each has a volume of its own");
    harness.delete(&pod_path("db-0"));
    harness.until("another pod of the name", || {
        let pod = harness.request(Method::GET, &pod_path("db-0"), None).ok()?;
        (pod["metadata"]["uid"] != first.0).then_some(())
    });
    assert_eq!(starts("db-0").1, 2);
    evicted_it_waits_for_its_node(&harness);
    assert_eq!(starts("db-0").1, 3);
    // Scaled down and up again, it still has them.
    let path = format!("{}/db", collection("apps/v1/statefulsets"));
    harness.patch(&path, &json!({ "spec": { "replicas": 1 } }));
    harness.ready_pods("app=db", 1);
    harness.patch(&path, &json!({ "spec": { "replicas": 2 } }));
    harness.ready_pods("app=db", 2);
    assert_eq!(starts("db-1").1, 2);
    harness.delete(&path);
    harness.until("the claims go with the set", || {
        let claims = harness.get(&collection("persistentvolumeclaims"));
        claims["items"].as_array()?.is_empty().then_some(())
    });
}

/// Drains the node of a pod while there is another one: the pod waits for the one that has its
/// data.
fn evicted_it_waits_for_its_node(harness: &Harness) {
    let node = |name: &str| format!("/api/v1/nodes/{name}");
    let room = json!({ "cpu": "64", "memory": "64Gi", "pods": "110" });
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    let other = json!({ "metadata": { "name": "node-2",
            "labels": { "kubernetes.io/hostname": "node-2" } },
        "status": { "capacity": room, "allocatable": room, "conditions": ready } });
    harness.request(Method::POST, "/api/v1/nodes", Some(&other)).unwrap();
    harness.until("the other node takes pods", || {
        harness.get(&node("node-2"))["spec"]["taints"].is_null().then_some(())
    });
    let cordon = |is: bool| {
        harness.patch(&node("node-1"), &json!({ "spec": { "unschedulable": is } }));
    };
    cordon(true);
    let pod = || harness.request(Method::GET, &pod_path("db-0"), None).ok();
    let uid = pod().unwrap()["metadata"]["uid"].clone();
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": "db-0", "namespace": "default" } });
    let path = format!("{}/eviction", pod_path("db-0"));
    harness.request(Method::POST, &path, Some(&eviction)).unwrap();
    let why = harness.until("the next one waits", || {
        let pod = pod().filter(|pod| pod["metadata"]["uid"] != uid)?;
        let conditions = pod["status"]["conditions"].as_array()?.clone();
        let scheduled = conditions.into_iter().find(|one| one["type"] == "PodScheduled")?;
        (scheduled["reason"] == "Unschedulable").then(|| scheduled["message"].clone())
    });
    let why = why.as_str().unwrap();
    assert!(why.contains("1 node(s) were unschedulable"), "{why}");
    assert!(why.contains("1 node(s) didn't match PersistentVolume's node affinity"), "{why}");
    let claim = harness.get(&format!("{}/data-db-0", collection("persistentvolumeclaims")));
    assert_eq!(claim["status"]["phase"], "Bound");
    cordon(false);
    assert_eq!(harness.ready_pod("db-0")["spec"]["nodeName"], "node-1");
    harness.delete(&node("node-2"));
}
