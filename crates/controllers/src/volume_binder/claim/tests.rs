//! What becomes of claims.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

fn claim(metadata: &Value, spec: &Value) -> PersistentVolumeClaim {
    let mut claim = json!({ "metadata": { "name": "c", "namespace": "n", "uid": "u" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    for (part, change) in [("metadata", metadata), ("spec", spec)] {
        for (field, value) in change.as_object().unwrap() {
            claim[part][field] = value.clone();
        }
    }
    serde_json::from_value(claim).unwrap()
}

fn volume(name: &str, spec: &Value) -> Arc<PersistentVolume> {
    let mut volume = json!({ "metadata": { "name": name }, "status": { "phase": "Available" },
        "spec": { "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "2Gi" } } });
    for (field, value) in spec.as_object().unwrap() {
        volume["spec"][field] = value.clone();
    }
    Arc::new(serde_json::from_value(volume).unwrap())
}

fn class(name: &str, mode: &str, provisioner: &str, created: &str) -> Arc<StorageClass> {
    let annotations =
        json!({ volumes::DEFAULT_CLASS: if created.is_empty() { "false" } else { "true" } });
    let mut class = json!({ "metadata": { "name": name, "annotations": annotations },
        "provisioner": provisioner, "volumeBindingMode": mode });
    if !created.is_empty() {
        class["metadata"]["creationTimestamp"] = created.into();
    }
    Arc::new(serde_json::from_value(class).unwrap())
}

fn world(volumes: &[Arc<PersistentVolume>]) -> World {
    let classes = vec![
        class("now", "Immediate", "example.com/p", ""),
        class("later", "WaitForFirstConsumer", "example.com/p", ""),
        class("none", "Immediate", volumes::NO_PROVISIONER, ""),
        class("here", "Immediate", "kubernetes.io/host-path", ""),
    ];
    World { volumes: volumes.to_vec(), classes, pods: Vec::new(), provisions: true }
}

/// The step in short.
fn decided(claim: &PersistentVolumeClaim, world: &World) -> String {
    match decide(claim, world) {
        Step::Bind(volume) => format!("bind {}", volume.metadata.name.as_deref().unwrap()),
        Step::Wait(None) => "wait".to_owned(),
        Step::Wait(Some(Told(_, reason, text))) => format!("{reason}: {text}"),
        Step::Lose(Told(_, reason, _)) => format!("lost: {reason}"),
        Step::Classify(class) => format!("class {class}"),
        Step::Provision(by) => format!("provision {by}"),
        Step::Make => "make".to_owned(),
    }
}

#[test]
fn a_claim_without_a_class_takes_what_there_is() {
    let none = json!({});
    let all = [volume("v", &none)];
    assert_eq!(decided(&claim(&none, &none), &world(&all)), "bind v");
    let text = "no persistent volumes available for this claim and no storage class is set";
    assert_eq!(decided(&claim(&none, &none), &world(&[])), format!("FailedBinding: {text}"));
}

#[test]
fn a_claim_that_says_nothing_gets_the_youngest_default_class() {
    let mut world = world(&[]);
    world.classes.push(class("old", "Immediate", "p", "2026-01-01T00:00:00Z"));
    world.classes.push(class("new", "Immediate", "p", "2026-01-02T00:00:00Z"));
    let none = json!({});
    assert_eq!(decided(&claim(&none, &none), &world), "class new");
    let empty = claim(&none, &json!({ "storageClassName": "" }));
    assert!(decided(&empty, &world).starts_with("FailedBinding"));
}

#[test]
fn a_claim_is_provisioned_now_or_when_its_pod_has_a_node() {
    let none = json!({});
    let of = |class: &str| json!({ "storageClassName": class });
    let mut world = world(&[]);
    assert_eq!(decided(&claim(&none, &of("now")), &world), "provision example.com/p");
    let later = claim(&none, &of("later"));
    let text = "WaitForFirstConsumer: waiting for first consumer to be created before binding";
    assert_eq!(decided(&later, &world), text);
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [] } });
    world.pods.push(Arc::new(PodView::new(serde_json::from_value::<Pod>(pod).unwrap())));
    let text = "WaitForPodScheduled: waiting for pod p to be scheduled";
    assert_eq!(decided(&later, &world), text);
    let chosen = json!({ "annotations": { volumes::SELECTED_NODE: "a" } });
    assert_eq!(decided(&claim(&chosen, &of("later")), &world), "provision example.com/p");
    let text = "ProvisioningFailed: storageclass.storage.k8s.io \"absent\" not found";
    assert_eq!(decided(&claim(&none, &of("absent")), &world), text);
    let text = "ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner";
    assert_eq!(decided(&claim(&none, &of("none")), &world), text);
}

#[test]
fn a_claim_that_waits_is_bound_only_to_what_refers_to_it() {
    let later = claim(&json!({}), &json!({ "storageClassName": "later" }));
    let free = volume("free", &json!({ "storageClassName": "later" }));
    let reference = json!({ "name": "c", "namespace": "n" });
    let ours = volume("ours", &json!({ "storageClassName": "later", "claimRef": reference }));
    assert!(decided(&later, &world(std::slice::from_ref(&free))).starts_with("WaitFor"));
    assert_eq!(decided(&later, &world(&[free, ours])), "bind ours");
}

#[test]
fn a_claim_gets_the_volume_it_names_if_it_fits() {
    let none = json!({});
    let naming = claim(&none, &json!({ "volumeName": "v" }));
    assert_eq!(decided(&naming, &world(&[])), "wait");
    assert_eq!(decided(&naming, &world(&[volume("v", &none)])), "bind v");
    let small = volume("v", &json!({ "capacity": { "storage": "1Mi" } }));
    let text = "VolumeMismatch: Cannot bind to requested volume \"v\": requested PV is too small";
    assert_eq!(decided(&naming, &world(&[small])), text);
    let reference = json!({ "name": "other", "namespace": "n", "uid": "x" });
    let taken = volume("v", &json!({ "claimRef": reference }));
    let text = "FailedBinding: volume \"v\" already bound to a different claim.";
    assert_eq!(decided(&naming, &world(&[taken])), text);
}

#[test]
fn a_bound_claim_is_lost_with_its_volume() {
    let bound = json!({ "annotations": { volumes::BIND_COMPLETED: "yes" } });
    let naming = json!({ "volumeName": "v" });
    assert_eq!(decided(&claim(&bound, &json!({})), &world(&[])), "lost: ClaimLost");
    assert_eq!(decided(&claim(&bound, &naming), &world(&[])), "lost: ClaimLost");
    let of = |uid: &str| {
        let reference = json!({ "name": "c", "namespace": "n", "uid": uid });
        world(&[volume("v", &json!({ "claimRef": reference }))])
    };
    assert_eq!(decided(&claim(&bound, &naming), &of("u")), "bind v");
    assert_eq!(decided(&claim(&bound, &naming), &of("x")), "lost: ClaimMisbound");
    assert_eq!(decided(&claim(&bound, &naming), &world(&[volume("v", &json!({}))])), "bind v");
}
