//! What upstream's conformance suite demands of the API server alone, one test per description.

mod accounts;
mod api_objects;
mod chunking;
mod configurations;
mod custom_resource_definition;
mod device_claims;
mod discovery;
mod field_validation;
mod limit_range;
mod namespaces;
mod plain_kinds;
mod policies;
mod policy_questions;
mod resource_quota;
mod service_ranges;
mod subject_review;
mod watchers;
mod webhooks;

use http::Method;
use serde_json::Value;

use crate::fixture::{Fixture, admin};

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// What a read of the path answers; it must succeed.
async fn read(server: &Fixture, path: &str) -> Value {
    let (code, answer) = server.admin(Method::GET, path, &Value::Null).await;
    assert!(code.is_success(), "{path}: {answer}");
    answer
}

/// Names of the items of a list.
async fn names(server: &Fixture, path: &str) -> Vec<String> {
    let list = read(server, path).await;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or("").to_owned()).collect()
}

/// A patch that must succeed.
async fn patch(server: &Fixture, path: &str, content_type: &str, body: &Value) -> Value {
    let (code, answer) = server.call(&admin(), Method::PATCH, path, content_type, body).await;
    assert!(code.is_success(), "{path}: {answer}");
    answer
}

/// An update that must succeed.
async fn put(server: &Fixture, path: &str, body: &Value) -> Value {
    let (code, answer) = server.admin(Method::PUT, path, body).await;
    assert!(code.is_success(), "{path}: {answer}");
    answer
}

/// A deletion that must succeed.
async fn delete(server: &Fixture, path: &str) -> Value {
    let (code, answer) = server.admin(Method::DELETE, path, &Value::Null).await;
    assert!(code.is_success(), "{path}: {answer}");
    answer
}
