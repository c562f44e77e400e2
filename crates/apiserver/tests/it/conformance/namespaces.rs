//! Finalizers of namespaces.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{delete, put, read};
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
