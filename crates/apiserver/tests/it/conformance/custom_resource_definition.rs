//! Definitions of custom resources, as objects.

use std::time::Duration;

use serde_json::{Value, json};

use super::{delete, names, read};
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
