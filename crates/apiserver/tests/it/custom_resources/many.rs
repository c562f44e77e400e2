//! Thousands of definitions.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, SystemClock};
use http::{Method, StatusCode};
use serde_json::json;
use store::{Expect, LogStore, Options, Store, Write};

use super::{code_of, read};
use crate::fixture::Fixture;

const DEFINITIONS: usize = 2000;

/// What a definition of some size looks like in the store.
fn stored(at: usize, is_established: bool) -> (String, String) {
    let name = format!("foos{at}.many.example.com");
    let properties: serde_json::Map<_, _> = (0..40)
        .map(|field| {
            let schema = json!({"type": "string", "maxLength": 63, "description": "x".repeat(80)});
            (format!("field{field}"), schema)
        })
        .collect();
    let names = json!({"plural": format!("foos{at}"), "singular": format!("foo{at}"),
        "kind": format!("Foo{at}"), "listKind": format!("Foo{at}List")});
    let mut object = json!({"kind": "CustomResourceDefinition",
        "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": name, "uid": format!("u{at}"), "generation": 1,
            "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"group": "many.example.com", "scope": "Namespaced", "names": names,
            "versions": [{"name": "v1", "served": true, "storage": true, "schema":
            {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
            "properties": properties}}}}}], "conversion": {"strategy": "None"}},
        "status": {"acceptedNames": names, "storedVersions": ["v1"], "conditions": [
            {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts",
                "message": "no conflicts found", "lastTransitionTime": "2024-01-01T00:00:00Z"},
            {"type": "Established", "status": "True", "reason": "InitialNamesAccepted",
                "message": "the initial names have been accepted",
                "lastTransitionTime": "2024-01-01T00:00:00Z"}]}});
    if !is_established {
        object["status"] = json!({"storedVersions": ["v1"]});
    }
    (format!("/registry/apiextensions.k8s.io/customresourcedefinitions/{name}"), object.to_string())
}

/// Schemas are compiled when they are first used, so that thousands are there at once.
#[tokio::test]
async fn thousands_of_definitions_are_served_from_the_start() {
    let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    for at in 0..DEFINITIONS {
        let (key, value) = stored(at, true);
        let write = Write::new(key.into(), Some(value.into()), Expect::Any);
        store.write(write).await.unwrap();
    }
    let server = Fixture::start_on(store).await;
    let path = "/apis/many.example.com/v1/namespaces/default/foos1999";
    assert_eq!(code_of(&server, path).await, StatusCode::OK);
    let resources = read(&server, "/apis/many.example.com/v1").await;
    assert_eq!(resources["resources"].as_array().unwrap().len(), DEFINITIONS);
    let object = json!({"apiVersion": "many.example.com/v1", "kind": "Foo7",
        "metadata": {"name": "a"}, "spec": {"field1": "x", "other": 1}});
    let created =
        server.create("/apis/many.example.com/v1/namespaces/default/foos7", &object).await;
    assert_eq!(created["spec"], json!({"field1": "x"}));
}

/// Each takes a write of its status, and what is served is made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_definitions_are_established_at_once() {
    let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let server = Fixture::start_on(store.clone()).await;
    for at in 0..DEFINITIONS {
        let (key, value) = stored(at, false);
        let write = Write::new(key.into(), Some(value.into()), Expect::Any);
        store.write(write).await.unwrap();
    }
    let begun = SystemClock.monotonic();
    let count = async || {
        let (code, answer) =
            server.admin(Method::GET, "/apis/many.example.com/v1", &json!(null)).await;
        if code.is_success() { answer["resources"].as_array().map_or(0, Vec::len) } else { 0 }
    };
    while count().await < DEFINITIONS {
        let passed = SystemClock.monotonic().duration_since(begun);
        // Alone it takes three seconds; other tests run beside it.
        assert!(passed < Duration::from_secs(60), "{}", count().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
