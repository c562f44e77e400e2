//! Who owns which fields, when managers write in versions that only a webhook converts.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::converter::renaming;
use super::{FOOS, MERGE, message, read};
use crate::fixture::{Fixture, admin};

const APPLY: &str = "application/apply-patch+yaml";

fn path(version: &str, query: &str) -> String {
    format!("{}/a?{query}", FOOS.replace("v1", version))
}

async fn apply(
    server: &Fixture,
    manager: &str,
    version: &str,
    spec: &Value,
    query: &str,
) -> (StatusCode, Value) {
    let body = json!({"apiVersion": format!("example.com/{version}"), "kind": "Foo",
        "metadata": {"name": "a"}, "spec": spec});
    let path = path(version, &format!("fieldManager={manager}&{query}"));
    server.call(&admin(), Method::PATCH, &path, APPLY, &body).await
}

async fn update(server: &Fixture, manager: &str, version: &str, patch: &Value) -> Value {
    let path = path(version, &format!("fieldManager={manager}"));
    let (code, answer) = server.call(&admin(), Method::PATCH, &path, MERGE, patch).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    answer
}

/// Each manager with its version and the fields of the spec that it owns.
fn owned(object: &Value) -> Vec<(String, String, Vec<String>)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |entry: &Value| {
        let spec = entry["fieldsV1"]["f:spec"].as_object().cloned().unwrap_or_default();
        let fields = spec.keys().filter(|key| *key != ".").cloned().collect();
        (text(&entry["manager"]), text(&entry["apiVersion"]), fields)
    };
    entries.iter().map(of).collect()
}

fn owner(name: &str, version: &str, fields: &[&str]) -> (String, String, Vec<String>) {
    let fields = fields.iter().map(|field| format!("f:{field}")).collect();
    (name.to_owned(), format!("example.com/{version}"), fields)
}

#[tokio::test]
async fn conflicts_are_told_in_the_version_of_the_owner() {
    let (server, converter) = renaming().await;
    let (code, answer) = apply(&server, "m", "v1", &json!({"size": "1", "color": "red"}), "").await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let (code, answer) = apply(&server, "n", "v2", &json!({"magnitude": "2"}), "").await;
    assert_eq!(code, StatusCode::CONFLICT, "{answer}");
    assert_eq!(message(&answer), "Apply failed with 1 conflict: conflict with \"m\": .spec.size");
    // To have the live object in v2, and both that and the new one in v1.
    converter.asked.lock().unwrap().clear();
    apply(&server, "n", "v2", &json!({"magnitude": "2"}), "").await;
    assert_eq!(*converter.asked.lock().unwrap(), [1, 2]);
    let (code, forced) = apply(&server, "n", "v2", &json!({"magnitude": "2"}), "force=true").await;
    assert_eq!(code, StatusCode::OK, "{forced}");
    assert_eq!(forced["spec"], json!({"magnitude": "2", "colour": "red"}));
    assert_eq!(owned(&forced), [owner("m", "v1", &["color"]), owner("n", "v2", &["magnitude"])]);
    // The same value is nobody's loss.
    let (code, same) = apply(&server, "o", "v3", &json!({"breadth": "2"}), "").await;
    assert_eq!(code, StatusCode::OK, "{same}");
    assert!(owned(&same).contains(&owner("o", "v3", &["breadth"])), "{same}");
}

#[tokio::test]
async fn what_is_not_applied_any_more_goes_whatever_its_name_was() {
    let (server, _converter) = renaming().await;
    apply(&server, "m", "v1", &json!({"size": "1", "color": "red"}), "").await;
    let (code, answer) = apply(&server, "m", "v2", &json!({"magnitude": "1"}), "").await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(answer["spec"], json!({"magnitude": "1"}));
    assert_eq!(owned(&answer), [owner("m", "v2", &["magnitude"])]);
    // What somebody else owns in a third version stays.
    apply(&server, "n", "v3", &json!({"breadth": "1", "tint": "blue"}), "").await;
    let (code, answer) = apply(&server, "m", "v1", &json!({"color": "blue"}), "").await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(answer["spec"], json!({"size": "1", "color": "blue"}));
}

#[tokio::test]
async fn updates_take_fields_from_managers_of_other_versions() {
    let (server, _converter) = renaming().await;
    apply(&server, "m", "v1", &json!({"size": "1"}), "").await;
    let patch = json!({"spec": {"color": "red"}});
    let object = update(&server, "u", "v1", &patch).await;
    assert_eq!(owned(&object), [owner("m", "v1", &["size"]), owner("u", "v1", &["color"])]);
    let object = update(&server, "w", "v2", &json!({"spec": {"colour": "blue"}})).await;
    assert_eq!(owned(&object), [owner("m", "v1", &["size"]), owner("w", "v2", &["colour"])]);
    let object = update(&server, "w", "v3", &json!({"spec": {"breadth": "2"}})).await;
    assert_eq!(owned(&object), [owner("w", "v2", &["colour"]), owner("w", "v3", &["breadth"])]);
}

#[tokio::test]
async fn a_version_that_cannot_be_had_fails_the_apply_and_ends_ownership_on_update() {
    let (server, _converter) = renaming().await;
    apply(&server, "m", "v3", &json!({"breadth": "1"}), "").await;
    let body = json!({"apiVersion": "example.com/v1", "kind": "Foo",
        "metadata": {"name": "a", "annotations": {"broken": "yes"}}, "spec": {"color": "red"}});
    let at = path("v1", "fieldManager=n");
    let (code, answer) = server.call(&admin(), Method::PATCH, &at, APPLY, &body).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        message(&answer),
        "failed to convert new object: conversion webhook for example.com/v1, Kind=Foo failed: it \
         is broken"
    );
    assert_eq!(owned(&read(&server, &path("v1", "")).await), [owner("m", "v3", &["breadth"])]);
    let patch = json!({"metadata": {"annotations": {"broken": "yes"}}});
    let object = update(&server, "u", "v1", &patch).await;
    assert!(owned(&object).is_empty(), "{object}");
}
