//! The API of dynamic resources, which is plain storage for the API server.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{MERGE, STRATEGIC, delete, names, patch, put, read};
use crate::fixture::{Fixture, admin};

const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
/// What Go prints of an allocation without content: a struct is never empty for it.
fn empty() -> Value {
    json!({"devices": {}})
}

const JSON: &str = "application/json-patch+json";

fn claim() -> Value {
    let exactly = json!({"deviceClassName": "class"});
    json!({"metadata": {"name": "claim", "labels": {"l": "1"}},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}})
}

/// Part of `[sig-node] DRA … ResourceClaim API …`: the three patches, and deletion by label.
#[tokio::test]
async fn claims_are_changed_by_every_patch_and_deleted_by_label() {
    let server = Fixture::start().await;
    server.create(&format!("{CLAIMS}?fieldValidation=Strict"), &claim()).await;
    let path = format!("{CLAIMS}/claim");
    let labels = |value: &Value| value["metadata"]["labels"].clone();
    let merged = json!({"metadata": {"labels": {"merge": "x"}}});
    patch(&server, &path, MERGE, &merged).await;
    let added = json!([{"op": "add", "path": "/metadata/labels/json", "value": "x"}]);
    patch(&server, &path, JSON, &added).await;
    let strategic = json!({"metadata": {"labels": {"strategic": "x"}}});
    let patched = patch(&server, &path, STRATEGIC, &strategic).await;
    assert_eq!(labels(&patched), json!({"l": "1", "merge": "x", "json": "x", "strategic": "x"}));
    let (code, refused) = server
        .admin(Method::POST, &format!("{CLAIMS}?fieldValidation=Strict"), &json!({"nope": 1}))
        .await;
    assert_eq!(code, StatusCode::BAD_REQUEST, "{refused}");
    delete(&server, &format!("{CLAIMS}?labelSelector=l%3D1")).await;
    assert!(names(&server, CLAIMS).await.is_empty());
}

/// The same suite: an allocation without content is one nevertheless.
#[tokio::test]
async fn an_empty_allocation_survives_every_way_of_writing_it() {
    let server = Fixture::start().await;
    server.create(CLAIMS, &claim()).await;
    let path = format!("{CLAIMS}/claim/status");
    let allocated = json!({"status": {"allocation": {}}});
    for content_type in [MERGE, STRATEGIC] {
        let patched = patch(&server, &path, content_type, &allocated).await;
        assert_eq!(patched["status"]["allocation"], empty(), "{content_type}");
        let found = read(&server, &path).await;
        let replaced = put(&server, &path, &found).await;
        assert_eq!(replaced["status"]["allocation"], empty());
        let nothing = json!([{"op": "remove", "path": "/status/allocation"}]);
        let (code, answer) = server.call(&admin(), Method::PATCH, &path, JSON, &nothing).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
        assert_eq!(answer["status"].get("allocation"), None);
    }
    let added = json!([{"op": "add", "path": "/status", "value": {"allocation": {}}}]);
    let patched = patch(&server, &path, JSON, &added).await;
    assert_eq!(patched["status"]["allocation"], empty());
}

/// The same suite: server-side apply, and the events that informers of one namespace and of all see
/// after every step.
#[tokio::test]
async fn informers_see_every_step_in_order() {
    use futures::StreamExt;
    use meta::WatchEvent;

    let server = Fixture::start().await;
    let all = "/apis/resource.k8s.io/v1/resourceclaims?watch=true&resourceVersion=0";
    let one = format!("{CLAIMS}?watch=true&resourceVersion=0");
    let mut of_all = server.handle.watch(&admin(), all).await.unwrap();
    let mut of_one = server.handle.watch(&admin(), &one).await.unwrap();
    let path = format!("{CLAIMS}/claim");
    let mut config = claim();
    config["apiVersion"] = json!("resource.k8s.io/v1");
    config["kind"] = json!("ResourceClaim");
    let apply = "application/apply-patch+yaml";
    let applied = format!("{path}?fieldManager=m&fieldValidation=Strict");
    let (code, made) = server.call(&admin(), Method::PATCH, &applied, apply, &config).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    config["metadata"]["labels"]["applied"] = json!("x");
    let (code, _) = server.call(&admin(), Method::PATCH, &applied, apply, &config).await;
    assert_eq!(code, StatusCode::OK);
    let status = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": "claim"}, "status": {"allocation": {}}});
    let of_status = format!("{path}/status?fieldManager=m");
    let (code, answer) = server.call(&admin(), Method::PATCH, &of_status, apply, &status).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(answer["status"]["allocation"], empty());
    let found = read(&server, &format!("{path}/status")).await;
    put(&server, &format!("{path}/status"), &found).await;
    delete(&server, &path).await;
    for watch in [&mut of_all, &mut of_one] {
        let mut newest = 0;
        for expected in ["ADDED", "MODIFIED", "MODIFIED", "DELETED"] {
            let event = tokio::time::timeout(std::time::Duration::from_secs(10), watch.next());
            let event = event.await.expect("in time").expect("not ended").expect("no error");
            let (sort, object) = match &event {
                WatchEvent::Added(object) => ("ADDED", object),
                WatchEvent::Modified(object) => ("MODIFIED", object),
                WatchEvent::Deleted(object) => ("DELETED", object),
                WatchEvent::Bookmark { .. } => panic!("a bookmark nobody asked for"),
            };
            assert_eq!(sort, expected);
            let version = object.header().resource_version.0;
            assert!(version > newest, "versions grow");
            newest = version;
        }
    }
}
