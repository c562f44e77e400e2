//! Finalizers of namespaces.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{MERGE, STRATEGIC, delete, patch, put, read};
use crate::fixture::Fixture;

/// `[sig-api-machinery] Namespaces should apply a finalizer to a Namespace`.
#[tokio::test]
async fn a_finalizer_is_added_and_removed_through_the_subresource() {
    let server = Fixture::start().await;
    let path = "/api/v1/namespaces/e2e-ns";
    let finalize = format!("{path}/finalize");
    server.create("/api/v1/namespaces", &json!({"metadata": {"name": "e2e-ns"}})).await;
    let mut namespace = read(&server, path).await;
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    let own = json!(["kubernetes", "e2e.example.com/fakeFinalizer"]);
    namespace["spec"]["finalizers"] = own.clone();
    let answer = put(&server, &finalize, &namespace).await;
    assert_eq!(answer["spec"]["finalizers"], own);
    let mut namespace = read(&server, path).await;
    assert_eq!(namespace["spec"]["finalizers"], own);
    // Only the subresource changes them.
    namespace["spec"]["finalizers"] = json!([]);
    assert_eq!(put(&server, path, &namespace).await["spec"]["finalizers"], own);
    let mut namespace = read(&server, path).await;
    namespace["spec"]["finalizers"] = json!(["kubernetes"]);
    put(&server, &finalize, &namespace).await;
    let dying = delete(&server, path).await;
    assert_eq!(dying["status"]["phase"], "Terminating");
    let mut namespace = read(&server, path).await;
    namespace["spec"]["finalizers"] = json!([]);
    put(&server, &finalize, &namespace).await;
    let (code, _) = server.admin(Method::DELETE, path, &Value::Null).await;
    assert!(matches!(code, StatusCode::OK | StatusCode::NOT_FOUND));
    let (code, _) = server.admin(Method::GET, path, &Value::Null).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

/// `[sig-api-machinery] Namespaces should apply changes to a namespace status`, `should patch a
/// Namespace` and `should apply an update to a Namespace`.
#[tokio::test]
async fn status_and_labels_of_a_namespace_change_by_patch_and_update() {
    let server = Fixture::start().await;
    let path = "/api/v1/namespaces/e2e-status";
    server.create("/api/v1/namespaces", &json!({"metadata": {"name": "e2e-status"}})).await;
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "set by a test"});
    let patched = json!({"metadata": {"annotations": {"a": "b"}},
        "status": {"conditions": [condition("StatusPatch")]}});
    let status = format!("{path}/status");
    let answer = patch(&server, &status, MERGE, &patched).await;
    assert_eq!(answer["status"]["conditions"][0]["type"], "StatusPatch");
    assert_eq!(answer["metadata"]["annotations"]["a"], "b");
    let mut found = read(&server, path).await;
    let conditions = found["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(condition("StatusUpdate"));
    let answer = put(&server, &status, &found).await;
    assert_eq!(answer["status"]["conditions"][1]["type"], "StatusUpdate");
    assert_eq!(answer["status"]["phase"], "Active");
    let labelled =
        patch(&server, path, STRATEGIC, &json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!(labelled["metadata"]["labels"]["x"], "y");
    assert_eq!(labelled["status"]["conditions"].as_array().unwrap().len(), 2);
    let mut found = read(&server, path).await;
    found["metadata"]["labels"]["z"] = json!("w");
    // An update need not say from which version it is made.
    found["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(put(&server, path, &found).await["metadata"]["labels"]["z"], "w");
}
