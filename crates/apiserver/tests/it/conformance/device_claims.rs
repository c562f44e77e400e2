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
