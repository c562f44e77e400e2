//! Volumes that are scrubbed when their claim is gone, by controllers that have the rights of their
//! accounts, no more.

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use crate::alone::kubeconfig_of;
use crate::harness::collection;
use crate::parts::Parts;

const VOLUME: &str = "/api/v1/persistentvolumes/v";

/// A pod that removes the file `left`.
fn template() -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "default" }, "spec": {
        "restartPolicy": "Never", "volumes": [{ "name": "v" }],
        "containers": [{ "name": "c", "image": POD_IMAGE, "args": ["remove", "/scrub/left"],
            "volumeMounts": [{ "name": "v", "mountPath": "/scrub" }] }] } })
}

#[test]
fn a_volume_is_scrubbed_by_the_operators_pod() {
    let mut parts = Parts::new();
    parts.start_api_server();
    let file = |name: &str, text: &str| {
        let path = parts.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad = file("bad.json", &json!({ "apiVersion": "v1", "kind": "Pod" }).to_string());
    let (is_ok, log) =
        parts.run("controller-manager", &["--pv-recycler-pod-template-filepath-nfs", &bad]);
    assert!(!is_ok && log.contains("does not contain any volume(s)"), "{log}");

    let template = file("template.json", &template().to_string());
    let kubeconfig = kubeconfig_of(&parts, "system:kube-controller-manager");
    parts.start_as(
        "controller-manager",
        &kubeconfig,
        &[
            "--use-service-account-credentials",
            "--pvclaimbinder-sync-period=1s",
            "--pv-recycler-pod-template-filepath-hostpath",
            &template,
        ],
    );
    parts.start("scheduler", &[]);
    parts.start_kubelet();
    parts.node_is_ready();
    let directory = parts.path("volume");
    std::fs::create_dir(&directory).unwrap();
    let left = directory.join("left");
    std::fs::write(&left, "by whoever had it").unwrap();
    let spec = json!({ "capacity": { "storage": "1Mi" }, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Recycle", "hostPath": { "path": directory } });
    let volume = json!({ "metadata": { "name": "v" }, "spec": spec });
    parts.request(Method::POST, "/api/v1/persistentvolumes", Some(&volume)).unwrap();
    let claims = collection("persistentvolumeclaims");
    let claim = json!({ "metadata": { "name": "c" }, "spec": { "storageClassName": "",
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Mi" } } } });
    parts.request(Method::POST, &claims, Some(&claim)).unwrap();
    let becomes = |phase: &str| {
        parts.until(&format!("it is {phase}"), || {
            parts.get(VOLUME).filter(|volume| volume["status"]["phase"] == phase)
        })
    };
    becomes("Bound");
    parts.request(Method::DELETE, &format!("{claims}/c"), None).unwrap();
    let volume = becomes("Available");
    assert!(!left.exists() && directory.exists());
    assert!(volume["spec"]["claimRef"].is_null());
    assert!(parts.get(&format!("{}/recycler-for-v", collection("pods"))).is_none());
    for (reason, text) in [
        ("RecyclerPod", "Recycler pod: Successfully assigned default/recycler-for-v to node-1"),
        ("VolumeRecycled", "Volume recycled"),
    ] {
        parts.until(reason, || {
            let events = parts.get(&collection("events"))?["items"].as_array()?.clone();
            let is_told = |event: &Value| {
                event["reason"] == reason
                    && event["message"] == text
                    && event["involvedObject"]["name"] == "v"
            };
            events.iter().any(is_told).then_some(())
        });
    }
    let log = parts.log("controller-manager");
    assert!(!log.contains("orbidden"), "{log}");
}
