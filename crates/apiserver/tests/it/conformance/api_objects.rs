//! The life of plain objects.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{MERGE, STRATEGIC, delete, names, patch, put, read};
use crate::fixture::Fixture;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

/// `[sig-node] ConfigMap should run through a ConfigMap lifecycle`.
#[tokio::test]
async fn a_config_map_is_created_patched_found_everywhere_and_deleted_by_collection() {
    let server = Fixture::start().await;
    let labels = json!({"test-configmap-static": "true"});
    let map = json!({"metadata": {"name": "test-configmap", "labels": labels},
        "data": {"valueName": "value"}});
    server.create(CONFIG_MAPS, &map).await;
    let change = json!({"metadata": {"labels": {"test-configmap": "patched"}},
        "data": {"valueName": "value1"}});
    patch(&server, &format!("{CONFIG_MAPS}/test-configmap"), STRATEGIC, &change).await;
    let found = read(&server, &format!("{CONFIG_MAPS}/test-configmap")).await;
    assert_eq!(found["data"]["valueName"], "value1");
    assert_eq!(found["metadata"]["labels"]["test-configmap"], "patched");
    let everywhere = "/api/v1/configmaps?labelSelector=test-configmap-static%3Dtrue";
    let list = read(&server, everywhere).await;
    assert_eq!(list["items"][0]["data"]["valueName"], "value1");
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    delete(&server, &format!("{CONFIG_MAPS}?labelSelector=test-configmap-static%3Dtrue")).await;
    let own = format!("{CONFIG_MAPS}?labelSelector=test-configmap-static%3Dtrue");
    assert!(names(&server, &own).await.is_empty());
}

/// `[sig-node] ConfigMap should fail to create ConfigMap with empty key`.
#[tokio::test]
async fn a_config_map_with_an_empty_key_is_refused() {
    let server = Fixture::start().await;
    let map = json!({"metadata": {"name": "empty"}, "data": {"": "value-1"}});
    let (code, status) = server.admin(Method::POST, CONFIG_MAPS, &map).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(status["details"]["causes"][0]["field"], "data[]");
}

/// `[sig-node] Lease lease API should be available`.
#[tokio::test]
async fn a_lease_lives_and_its_collection_is_deleted_by_label() {
    let server = Fixture::start().await;
    let path = format!("{LEASES}/lease");
    let spec = json!({"holderIdentity": "holder", "leaseDurationSeconds": 30,
        "acquireTime": "2024-01-02T03:04:05.000006Z", "renewTime": "2024-01-02T03:04:10.000000Z",
        "leaseTransitions": 0});
    server.create(LEASES, &json!({"metadata": {"name": "lease"}, "spec": spec})).await;
    let mut lease = read(&server, &path).await;
    assert_eq!(lease["spec"], spec);
    lease["spec"] = json!({"holderIdentity": "holder2", "leaseDurationSeconds": 60,
        "acquireTime": "2024-01-02T03:05:05.000000Z", "renewTime": "2024-01-02T03:05:10.000000Z",
        "leaseTransitions": 1});
    put(&server, &path, &lease).await;
    assert_eq!(read(&server, &path).await["spec"], lease["spec"]);
    for content_type in [MERGE, STRATEGIC] {
        let seconds = if content_type == MERGE { 61 } else { 62 };
        let change = json!({"spec": {"leaseDurationSeconds": seconds}});
        patch(&server, &path, content_type, &change).await;
        lease["spec"]["leaseDurationSeconds"] = json!(seconds);
        assert_eq!(read(&server, &path).await["spec"], lease["spec"]);
    }
    let other = json!({"metadata": {"name": "lease2", "labels": {"deletecollection": "true"}}});
    server.create(LEASES, &other).await;
    assert_eq!(names(&server, LEASES).await, ["lease", "lease2"]);
    delete(&server, &format!("{LEASES}?labelSelector=deletecollection%3Dtrue")).await;
    assert_eq!(names(&server, LEASES).await, ["lease"]);
    delete(&server, &path).await;
    let (code, status) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!((code, &status["reason"]), (StatusCode::NOT_FOUND, &json!("NotFound")));
}

/// `[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace`: what the
/// controller that keeps the map needs from the server.
#[tokio::test]
async fn the_root_certificate_of_a_namespace_is_watched_by_name_and_restored() {
    let server = Fixture::start().await;
    let path = format!("{CONFIG_MAPS}/kube-root-ca.crt");
    let map = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "x"}});
    let first = server.create(CONFIG_MAPS, &map).await;
    let by_name = format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dkube-root-ca.crt");
    assert_eq!(names(&server, &by_name).await, ["kube-root-ca.crt"]);
    let changed =
        json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"": null, "ca.crt": ""}});
    let (code, _) = server.admin(Method::PUT, &path, &changed).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    put(&server, &path, &json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {}})).await;
    let restored = put(&server, &path, &map).await;
    assert_eq!(restored["data"], json!({"ca.crt": "x"}));
    delete(&server, &path).await;
    let second = server.create(CONFIG_MAPS, &map).await;
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
}
