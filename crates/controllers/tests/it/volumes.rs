//! What the controllers make of volumes and claims.

use std::time::Duration;

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, name, namespace};

const CLAIMS: &str = "/api/v1/namespaces/n/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";

fn volume(api: &MemoryApi, name: &str, size: &str) {
    api.create(
        VOLUMES,
        json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
            "spec": { "accessModes": ["ReadWriteOnce"], "capacity": { "storage": size },
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": { "path": "/x" } } }),
    );
}

fn claim(api: &MemoryApi, name: &str, class: Value) {
    let mut claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": name, "namespace": "n" },
        "spec": { "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "1Gi" } } } });
    claim["spec"]["storageClassName"] = class;
    api.create(CLAIMS, claim);
}

fn phase(api: &MemoryApi, path: String) -> String {
    let object = api.get(&path).unwrap_or_default();
    object["status"]["phase"].as_str().unwrap_or_default().to_owned()
}

fn has_event(api: &MemoryApi, reason: &str) -> bool {
    ["/apis/events.k8s.io/v1/events", "/api/v1/events"]
        .iter()
        .any(|path| api.list(path).iter().any(|event| event["reason"] == reason))
}

/// Its claim never named it, so that the end of the claim told it nothing.
#[tokio::test]
async fn a_volume_is_released_whose_claim_goes_before_it_is_bound() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    claim(api, "c", json!(""));
    let uid = api.get(&format!("{CLAIMS}/c")).unwrap()["metadata"]["uid"].clone();
    api.create(
        VOLUMES,
        json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "v" },
            "spec": { "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" },
                "volumeMode": "Block", "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": { "path": "/x" },
                "claimRef": { "namespace": "n", "name": "c", "uid": uid } } }),
    );
    api.eventually("they do not fit", |api| has_event(api, "VolumeMismatch")).await;
    api.delete(&format!("{CLAIMS}/c"));
    api.eventually("it is released", |api| phase(api, format!("{VOLUMES}/v")) == "Released").await;
}

#[tokio::test]
async fn claims_take_the_smallest_volumes_and_release_them() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    claim(api, "c", json!(""));
    api.eventually("the claim waits", |api| {
        phase(api, format!("{CLAIMS}/c")) == "Pending" && has_event(api, "FailedBinding")
    })
    .await;
    volume(api, "large", "10Gi");
    api.eventually("both are bound", |api| {
        phase(api, format!("{CLAIMS}/c")) == "Bound"
            && phase(api, format!("{VOLUMES}/large")) == "Bound"
    })
    .await;
    let claim_now = api.get(&format!("{CLAIMS}/c")).unwrap();
    assert_eq!(claim_now["spec"]["volumeName"], "large");
    assert_eq!(claim_now["status"]["capacity"]["storage"], "10Gi");
    let annotations = &claim_now["metadata"]["annotations"];
    assert_eq!(annotations["pv.kubernetes.io/bind-completed"], "yes");
    assert_eq!(annotations["pv.kubernetes.io/bound-by-controller"], "yes");
    let volume_now = api.get(&format!("{VOLUMES}/large")).unwrap();
    assert_eq!(volume_now["spec"]["claimRef"]["uid"], claim_now["metadata"]["uid"]);
    volume(api, "other", "20Gi");
    volume(api, "small", "2Gi");
    api.eventually("the new ones are available", |api| {
        phase(api, format!("{VOLUMES}/small")) == "Available"
            && phase(api, format!("{VOLUMES}/other")) == "Available"
    })
    .await;
    claim(api, "d", json!(""));
    api.eventually("the smaller one is taken", |api| {
        let claim = api.get(&format!("{CLAIMS}/d")).unwrap();
        claim["spec"]["volumeName"] == "small" && claim["status"]["phase"] == "Bound"
    })
    .await;
    let counted = |name: &str| running.metric(&format!("pv_collector_{name}"), &[]);
    api.eventually("they are counted", |_| {
        counted("bound_pv_count") == 2.0
            && counted("unbound_pv_count") == 1.0
            && counted("bound_pvc_count") == 2.0
            && counted("total_pv_count") == 3.0
    })
    .await;
    let more = json!({ "spec": { "resources": { "requests": { "storage": "11Gi" } } } });
    api.patch(&format!("{CLAIMS}/c"), &more);
    api.eventually("who has to grow it is told", |api| has_event(api, "ExternalExpanding")).await;
    api.delete(&format!("{CLAIMS}/c"));
    api.eventually("its volume is released", |api| {
        phase(api, format!("{VOLUMES}/large")) == "Released"
    })
    .await;
    api.delete(&format!("{VOLUMES}/small"));
    // It is protected as long as it is bound, unless somebody insists.
    api.patch(&format!("{VOLUMES}/small"), &json!({ "metadata": { "finalizers": null } }));
    assert!(api.get(&format!("{VOLUMES}/small")).is_none());
    api.eventually("the claim is lost with its volume", |api| {
        phase(api, format!("{CLAIMS}/d")) == "Lost" && has_event(api, "ClaimLost")
    })
    .await;
}

#[tokio::test]
async fn hundreds_of_claims_get_a_volume_each() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    for at in 0..100 {
        volume(api, &format!("v{at}"), "1Gi");
        claim(api, &format!("c{at}"), json!(""));
    }
    api.eventually("all are bound", |api| {
        api.list(CLAIMS).iter().all(|claim| claim["status"]["phase"] == "Bound")
    })
    .await;
    let mut taken: Vec<_> =
        api.list(CLAIMS).iter().map(|claim| claim["spec"]["volumeName"].to_string()).collect();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), 100);
}

#[tokio::test]
async fn a_claim_without_a_class_gets_the_default_one_and_asks_its_provisioner() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    claim(api, "c", json!(null));
    api.eventually("it waits", |api| phase(api, format!("{CLAIMS}/c")) == "Pending").await;
    api.create(
        "/apis/storage.k8s.io/v1/storageclasses",
        json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": { "name": "std", "annotations": {
                "storageclass.kubernetes.io/is-default-class": "true" } },
            "provisioner": "example.com/p", "volumeBindingMode": "Immediate" }),
    );
    api.eventually("the provisioner is named", |api| {
        let claim = api.get(&format!("{CLAIMS}/c")).unwrap();
        claim["spec"]["storageClassName"] == "std"
            && claim["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"]
                == "example.com/p"
            && has_event(api, "ExternalProvisioning")
    })
    .await;
    let claims = api.list(CLAIMS);
    assert_eq!(name(&claims[0]), "c");
}

#[tokio::test]
async fn ephemeral_volumes_get_claims_that_are_their_pods() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let template = json!({ "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "resources": { "requests": { "storage": "1Gi" } } } });
    let pod = api.create(
        PODS,
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [],
            "volumes": [{ "name": "e", "ephemeral": { "volumeClaimTemplate": template } }] } }),
    );
    api.eventually("the claim is there", |api| api.get(&format!("{CLAIMS}/p-e")).is_some()).await;
    let claim = api.get(&format!("{CLAIMS}/p-e")).unwrap();
    assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], pod["metadata"]["uid"]);
}

#[tokio::test]
async fn roles_are_made_of_others_and_nodes_are_told_how_long_to_trust() {
    let running = Running::start();
    let api = &running.api;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let part = |verb: &str| {
        json!({ "metadata": { "name": verb, "labels": { "to": "whole" } },
            "rules": [{ "verbs": [verb], "apiGroups": [""], "resources": ["pods"] }] })
    };
    api.create(roles, part("get"));
    api.create(
        roles,
        json!({ "metadata": { "name": "whole" }, "aggregationRule": {
            "clusterRoleSelectors": [{ "matchLabels": { "to": "whole" } }] } }),
    );
    api.create(roles, part("list"));
    api.create("/api/v1/nodes", json!({ "metadata": { "name": "a" } }));
    api.eventually("the rules of both, and the annotation", |api| {
        let rules = api.get(&format!("{roles}/whole")).unwrap()["rules"].clone();
        let node = api.get("/api/v1/nodes/a").unwrap();
        rules.as_array().is_some_and(|rules| rules.len() == 2)
            && node["metadata"]["annotations"]["node.alpha.kubernetes.io/ttl"] == "0"
    })
    .await;
}

#[tokio::test]
async fn a_class_of_attributes_stays_as_long_as_a_claim_has_it() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let classes = "/apis/storage.k8s.io/v1/volumeattributesclasses";
    let gold = format!("{classes}/gold");
    api.create(classes, json!({ "metadata": { "name": "gold" }, "driverName": "d" }));
    claim(api, "c", json!(""));
    let want = |class: Value| {
        api.patch(
            &format!("{CLAIMS}/c"),
            &json!({ "spec": { "volumeAttributesClassName": class } }),
        )
    };
    want(json!("gold"));
    api.eventually("it is protected", |api| {
        api.get(&gold).unwrap()["metadata"]["finalizers"] == json!(["kubernetes.io/vac-protection"])
    })
    .await;
    api.delete(&gold);
    api.patch(&format!("{CLAIMS}/c"), &json!({ "metadata": { "labels": { "a": "b" } } }));
    api.eventually("the claim waits, and with it the class", |api| {
        phase(api, format!("{CLAIMS}/c")) == "Pending"
    })
    .await;
    assert!(api.get(&gold).is_some());
    want(json!(null));
    api.eventually("it goes", |api| api.get(&gold).is_none()).await;
}

/// What uses it came and went while the watch was broken.
#[tokio::test]
async fn what_is_protected_goes_after_users_that_no_watch_has_told_of() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let (claimed, pod) = (format!("{CLAIMS}/c"), "/api/v1/namespaces/n/pods/p");
    claim(api, "c", json!(""));
    let is_protected = |api: &MemoryApi, path: &str, by: &str| {
        api.get(path).unwrap()["metadata"]["finalizers"] == json!([by])
    };
    let by = "kubernetes.io/pvc-protection";
    api.eventually("it is protected", |api| is_protected(api, &claimed, by)).await;
    api.hold("/api/v1/pods");
    let mounted = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } });
    api.create(
        PODS,
        json!({ "metadata": { "name": "p" },
            "spec": { "nodeName": "a", "containers": [], "volumes": [mounted] } }),
    );
    api.delete(&claimed);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(api.get(&claimed).is_some(), "the server has the pod");
    api.delete(pod);
    api.eventually("it goes", |api| api.get(&claimed).is_none()).await;

    let classes = "/apis/storage.k8s.io/v1/volumeattributesclasses";
    let gold = format!("{classes}/gold");
    api.create(classes, json!({ "metadata": { "name": "gold" }, "driverName": "d" }));
    let by = "kubernetes.io/vac-protection";
    api.eventually("it is protected", |api| is_protected(api, &gold, by)).await;
    api.hold("/api/v1/persistentvolumeclaims");
    claim(api, "d", json!(""));
    let has = json!({ "spec": { "volumeAttributesClassName": "gold" } });
    api.patch(&format!("{CLAIMS}/d"), &has);
    api.delete(&gold);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(api.get(&gold).is_some(), "the server has the claim");
    api.delete(&format!("{CLAIMS}/d"));
    api.eventually("it goes", |api| api.get(&gold).is_none()).await;
}
