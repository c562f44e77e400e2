//! What controllers do that run only where a gate is open.

use http::Method;
use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, namespace};

const BUNDLES: &str = "/apis/certificates.k8s.io/v1beta1/clustertrustbundles";
const GROUPS: &str = "/apis/scheduling.k8s.io/v1alpha2/namespaces/n/podgroups";
const MIGRATIONS: &str = "/apis/storagemigration.k8s.io/v1beta1/storageversionmigrations";
const MAPS: &str = "/api/v1/namespaces/n/configmaps";

#[tokio::test]
async fn the_authority_is_published_and_former_ones_are_removed() {
    let running = Running::start_on({
        let api = MemoryApi::default();
        let bundle = |name: &str, signer: &str| {
            json!({ "metadata": { "name": name },
                "spec": { "signerName": signer, "trustBundle": "OLD" } })
        };
        let ours = "kubernetes.io/kube-apiserver-serving";
        api.create(BUNDLES, bundle("kubernetes.io:kube-apiserver-serving:former", ours));
        api.create(BUNDLES, bundle("example.com:signer:x", "example.com/signer"));
        api
    });
    let api = &running.api;
    api.eventually("the new one beside another signer's", |api| {
        let bundles = api.list(BUNDLES);
        let of = |bundle: &Value| bundle["spec"]["trustBundle"].clone();
        bundles.len() == 2 && of(&bundles[0]) == "OLD" && of(&bundles[1]) == "PEM"
    })
    .await;
    let name = api.list(BUNDLES)[1]["metadata"]["name"].as_str().unwrap().to_owned();
    api.delete(&format!("{BUNDLES}/{name}"));
    api.eventually("it comes back", |api| api.get(&format!("{BUNDLES}/{name}")).is_some()).await;
}

#[tokio::test]
async fn old_requests_of_pods_for_certificates_are_deleted() {
    let requests = "/apis/certificates.k8s.io/v1beta1/namespaces/n/podcertificaterequests";
    // What the API in memory makes was made long ago.
    let api = MemoryApi::default();
    api.create(
        requests,
        json!({ "metadata": { "name": "old" }, "spec": { "maxExpirationSeconds": 3600,
            "nodeName": "n", "nodeUID": "n", "podName": "p", "podUID": "p",
            "serviceAccountName": "s", "serviceAccountUID": "s", "signerName": "a.io/b" } }),
    );
    let running = Running::start_on(api);
    running.api.eventually("it is gone", |api| api.list(requests).is_empty()).await;
}

#[tokio::test]
async fn a_group_of_pods_stays_as_long_as_one_of_them_runs() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let group = |name: &str| {
        json!({ "metadata": { "name": name }, "spec": {
        "schedulingPolicy": { "basic": {} } } })
    };
    ["g", "empty"].into_iter().for_each(|name| drop(api.create(GROUPS, group(name))));
    for (pod, phase) in [("runs", "Running"), ("done", "Succeeded")] {
        let spec = json!({ "schedulingGroup": { "podGroupName": "g" } });
        let pod =
            json!({ "metadata": { "name": pod }, "spec": spec, "status": { "phase": phase } });
        api.create(PODS, pod);
    }
    let is_kept = |api: &MemoryApi, name: &str| {
        api.get(&format!("{GROUPS}/{name}")).is_some_and(|group| {
            group["metadata"]["finalizers"][0] == "scheduling.k8s.io/podgroup-protection"
        })
    };
    api.eventually("both are protected", |api| is_kept(api, "g") && is_kept(api, "empty")).await;
    ["g", "empty"].into_iter().for_each(|name| api.delete(&format!("{GROUPS}/{name}")));
    api.eventually("nobody holds the empty one", |api| {
        api.get(&format!("{GROUPS}/empty")).is_none()
    })
    .await;
    assert!(is_kept(api, "g"));
    api.patch(&format!("{PODS}/runs"), &json!({ "status": { "phase": "Failed" } }));
    api.eventually("it goes with the last", |api| api.get(&format!("{GROUPS}/g")).is_none()).await;
}

fn migrate(api: &MemoryApi, group: &str, resource: &str) {
    let resource = json!({ "group": group, "resource": resource });
    api.create(
        MIGRATIONS,
        json!({ "metadata": { "name": "m" }, "spec": { "resource": resource } }),
    );
}

/// Waits for the condition; status and reason of each.
async fn ends(api: &MemoryApi, kind: &str) -> Value {
    let conditions = |api: &MemoryApi| {
        let status = api.get(&format!("{MIGRATIONS}/m")).unwrap()["status"].clone();
        status["conditions"].as_array().cloned().unwrap_or_default()
    };
    api.eventually(kind, |api| conditions(api).iter().any(|one| one["type"] == kind)).await;
    let told = conditions(api).into_iter();
    told.map(|one| json!([one["type"], one["status"], one["reason"], one["message"]])).collect()
}

#[tokio::test]
async fn every_object_of_a_resource_is_written() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let map = |name: &str| api.create(MAPS, json!({ "metadata": { "name": name } }));
    ["a", "b"].into_iter().for_each(|name| drop(map(name)));
    migrate(api, "", "configmaps");
    let told = ends(api, "Succeeded").await;
    let expected = json!([
        ["Running", "False", "StorageVersionMigrationInProgress", ""],
        ["Succeeded", "True", "StorageVersionMigrationSucceeded", ""]
    ]);
    assert_eq!(told, expected);
    let applied = |name: &str| api.get(&format!("{MAPS}/{name}")).unwrap()["kind"].clone();
    assert_eq!((applied("a"), applied("b")), (json!("ConfigMap"), json!("ConfigMap")));
    let status = &api.get(&format!("{MIGRATIONS}/m")).unwrap()["status"];
    assert!(status["resourceVersion"].is_string());
}

#[tokio::test]
async fn a_migration_that_cannot_be_has_failed() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    migrate(api, "example.io", "gadgets");
    let told = ends(api, "Failed").await;
    let failed = json!([["Failed", "True", "StorageVersionMigrationFailed", "resource not found"]]);
    assert_eq!(told, failed);
    api.delete(&format!("{MIGRATIONS}/m"));
    api.create(MAPS, json!({ "metadata": { "name": "a" } }));
    api.refuse(Method::PATCH, "/configmaps/a");
    migrate(api, "", "configmaps");
    let told = ends(api, "Failed").await;
    assert_eq!(told[1][3], "migration encountered unhandled error");
}
