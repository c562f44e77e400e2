//! Definitions of custom resources, as objects.

use std::time::Duration;

use serde_json::{Value, json};

use super::{delete, names, patch, read};
use crate::fixture::Fixture;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// `[sig-api-machinery] CustomResourceDefinition resources Simple CustomResourceDefinition
/// creating/deleting custom resource definition objects works`.
#[tokio::test]
async fn a_definition_is_created_accepted_and_deleted() {
    let server = Fixture::start().await;
    let names_of =
        json!({"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"});
    let schema = json!({"openAPIV3Schema": {"type": "object",
        "x-kubernetes-preserve-unknown-fields": true}});
    let definition = json!({"metadata": {"name": "foos.mygroup.example.com"}, "spec": {
        "group": "mygroup.example.com", "names": names_of, "scope": "Namespaced",
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    let created = server.create(DEFINITIONS, &definition).await;
    assert_eq!(created["spec"]["conversion"]["strategy"], "None");
    let path = format!("{DEFINITIONS}/foos.mygroup.example.com");
    for condition in ["NamesAccepted", "Established"] {
        wait_for(&server, &path, condition).await;
    }
    assert_eq!(read(&server, &path).await["status"]["storedVersions"], json!(["v1"]));
    delete(&server, &path).await;
    for _ in 0..1000 {
        if names(&server, DEFINITIONS).await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the definition stays");
}

fn simple(plural: &str, kind: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object",
        "x-kubernetes-preserve-unknown-fields": true}});
    json!({"metadata": {"name": format!("{plural}.mygroup.example.com"),
        "labels": {"e2e-list-test": "yes"}}, "spec": {"group": "mygroup.example.com",
        "names": {"plural": plural, "kind": kind}, "scope": "Cluster",
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

/// `... listing custom resource definition objects works`: those of a label, deleted together.
#[tokio::test]
async fn definitions_are_listed_and_deleted_by_label() {
    let server = Fixture::start().await;
    let mut other = simple("others", "Other");
    other["metadata"]["labels"] = json!({});
    server.create(DEFINITIONS, &other).await;
    for n in 0..5 {
        server.create(DEFINITIONS, &simple(&format!("foos{n}"), &format!("Foo{n}"))).await;
    }
    let selected = format!("{DEFINITIONS}?labelSelector=e2e-list-test%3Dyes");
    assert_eq!(names(&server, &selected).await.len(), 5);
    delete(&server, &selected).await;
    for _ in 0..1000 {
        if names(&server, DEFINITIONS).await == ["others.mygroup.example.com"] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?} stay", names(&server, DEFINITIONS).await);
}

/// `... getting/updating/patching custom resource definition status sub-resource works`.
#[tokio::test]
async fn the_status_of_a_definition_is_read_replaced_and_patched() {
    let server = Fixture::start().await;
    server.create(DEFINITIONS, &simple("foos", "Foo")).await;
    let path = format!("{DEFINITIONS}/foos.mygroup.example.com");
    wait_for(&server, &path, "Established").await;
    let status = format!("{path}/status");
    let has = async |wanted: &str| {
        let found = read(&server, &status).await;
        let conditions = found["status"]["conditions"].as_array().unwrap().clone();
        conditions.iter().any(|condition| condition["type"] == wanted)
    };
    let condition = |name: &str| {
        json!({"type": name, "status": "True", "reason": "E2E",
        "message": "Set from e2e test"})
    };
    // The server writes the status as well; who is overtaken tries again.
    loop {
        let mut object = read(&server, &status).await;
        let conditions = object["status"]["conditions"].as_array_mut().unwrap();
        conditions.push(condition("StatusUpdate"));
        let (code, answer) = server.admin(http::Method::PUT, &status, &object).await;
        if code != http::StatusCode::CONFLICT {
            assert_eq!(code, http::StatusCode::OK, "{answer}");
            break;
        }
    }
    assert!(has("StatusUpdate").await);
    let add = json!([{"op": "add", "path": "/status/conditions/-",
        "value": condition("StatusPatched")}]);
    patch(&server, &status, "application/json-patch+json", &add).await;
    assert!(has("StatusPatched").await && has("StatusUpdate").await);
    assert!(has("Established").await, "what the server says of it stays");
}

async fn wait_for(server: &Fixture, path: &str, wanted: &str) {
    let is_met = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|c| c["type"] == wanted && c["status"] == "True")
    };
    for _ in 0..1000 {
        if is_met(&read(server, path).await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{wanted} is not true");
}
