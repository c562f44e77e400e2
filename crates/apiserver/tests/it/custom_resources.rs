//! Custom resources, from their definitions to their end.

mod admitted;
mod conditions;
mod conversion;
mod converter;
mod documents;
mod lifecycle;
mod many;
mod owners;
mod serving;
mod subresources;

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fixture::{Fixture, admin};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const MERGE: &str = "application/merge-patch+json";
const FOOS: &str = "/apis/example.com/v1/namespaces/default/foos";

/// A definition of `foos.example.com` with these versions.
fn definition(versions: &Value) -> Value {
    json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com",
        "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo", "shortNames": ["fo"],
        "categories": ["all"]}, "versions": versions}})
}

/// A version whose spec has these properties; the first one is stored.
fn version(name: &str, is_stored: bool, properties: &Value) -> Value {
    json!({"name": name, "served": true, "storage": is_stored, "schema": {"openAPIV3Schema":
        {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}}})
}

fn foo(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name},
        "spec": spec})
}

/// Creates a definition and waits until it is served.
async fn define(server: &Fixture, definition: &Value) {
    let created = server.create(DEFINITIONS, definition).await;
    let name = created["metadata"]["name"].as_str().expect("a name").to_owned();
    wait_for_condition(server, &name, "Established", "True").await;
}

async fn wait_for_condition(server: &Fixture, name: &str, kind: &str, status: &str) {
    let path = format!("{DEFINITIONS}/{name}");
    until(&format!("{kind} is {status}"), async || {
        let found = read(server, &path).await;
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == kind && c["status"] == status)
    })
    .await;
}

/// Waits until something holds, for a while.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

async fn read(server: &Fixture, path: &str) -> Value {
    let (code, answer) = server.admin(Method::GET, path, &Value::Null).await;
    assert!(code.is_success(), "{path}: {answer}");
    answer
}

async fn code_of(server: &Fixture, path: &str) -> StatusCode {
    server.admin(Method::GET, path, &Value::Null).await.0
}

async fn patch(server: &Fixture, path: &str, body: &Value) -> (StatusCode, Value) {
    server.call(&admin(), Method::PATCH, path, MERGE, body).await
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}
