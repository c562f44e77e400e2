//! Fields that a kind does not have, and fields that are given twice.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::MERGE;
use crate::fixture::{Fixture, admin};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn text(extra: &str) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"d"}},"spec":{{{extra}
        "replicas":1,"replicas":2,"selector":{{"matchLabels":{{"a":"b"}}}},
        "template":{{"metadata":{{"labels":{{"a":"b"}}}},
        "spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}}}}}"#
    )
}

/// The body as it is: a parsed value would not have a field twice.
async fn send(
    server: &Fixture,
    method: Method,
    path: &str,
    content_type: &str,
    body: String,
) -> (StatusCode, Vec<String>, Value) {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .body(bytes::Bytes::from(body))
        .expect("a request");
    let response = server.handle.call(&admin(), request).await;
    let code = response.status();
    let warnings = response.headers().get_all("warning").iter();
    let warnings = warnings.map(|value| value.to_str().expect("text").to_owned()).collect();
    let bytes = response.into_body().collect().await.expect("a body");
    (code, warnings, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// `[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed
/// object`.
#[tokio::test]
async fn unknown_and_repeated_fields_are_told_in_one_error() {
    let server = Fixture::start().await;
    let wrong = text(r#""unknownField":"x","#);
    let expected = r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#;
    let strict = format!("{DEPLOYMENTS}?fieldValidation=Strict");
    let json = "application/json";
    let (code, _, status) = send(&server, Method::POST, &strict, json, wrong.clone()).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(status["message"].as_str().unwrap().contains(expected), "{status}");
    let (code, warnings, _) = send(&server, Method::POST, DEPLOYMENTS, json, wrong.clone()).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(
        warnings,
        [
            r#"299 - "unknown field \"spec.unknownField\"""#,
            r#"299 - "duplicate field \"spec.replicas\"""#
        ]
    );
    let one = format!("{DEPLOYMENTS}/d");
    let ignore = format!("{one}?fieldValidation=Ignore");
    let (code, warnings, _) = send(&server, Method::PUT, &ignore, json, wrong.clone()).await;
    assert_eq!((code, warnings.len()), (StatusCode::OK, 0));
    let strict = format!("{one}?fieldValidation=Strict");
    let (code, _, status) = send(&server, Method::PUT, &strict, json, wrong).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(status["message"].as_str().unwrap().contains(expected), "{status}");
}

/// The same with `PATCH`.
#[tokio::test]
async fn patches_are_looked_at_as_closely() {
    let server = Fixture::start().await;
    let (code, ..) = send(&server, Method::POST, DEPLOYMENTS, "application/json", text("")).await;
    assert_eq!(code, StatusCode::CREATED);
    let path = format!("{DEPLOYMENTS}/d?fieldValidation=Strict");
    let patch = r#"{"spec":{"unknownField":"x","replicas":3,"replicas":4}}"#.to_owned();
    let (code, _, status) = send(&server, Method::PATCH, &path, MERGE, patch).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("strict decoding error: "), "{message}");
    assert!(message.contains(r#"duplicate field "spec.replicas""#), "{message}");
    assert!(message.contains(r#"unknown field "spec.unknownField""#), "{message}");
}

/// `[sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object`.
#[tokio::test]
async fn metadata_is_looked_at_too() {
    let server = Fixture::start().await;
    let map = json!({"metadata": {"name": "m", "unknownMeta": "x"}});
    let path = "/api/v1/namespaces/default/configmaps?fieldValidation=Strict";
    let (code, status) = server.admin(Method::POST, path, &map).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    let message = status["message"].as_str().unwrap();
    let expected = r#"strict decoding error: unknown field "metadata.unknownMeta""#;
    assert!(message.contains(expected), "{message}");
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/fields.example.com/v1/namespaces/default/widgets";

/// A custom resource with a schema that keeps, forbids or says nothing.
async fn define(server: &Fixture, schema: Value) {
    let definition = json!({"metadata": {"name": "widgets.fields.example.com"}, "spec": {
        "group": "fields.example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": schema}}]}});
    server.create(DEFINITIONS, &definition).await;
    for _ in 0..200 {
        if server.admin(Method::GET, WIDGETS, &Value::Null).await.0 == StatusCode::OK {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the definition is not served");
}

/// `[sig-api-machinery] FieldValidation should detect duplicates in a CR when preserving unknown
/// fields`: YAML is looked at before anything is made of it.
#[tokio::test]
async fn what_yaml_says_twice_is_refused_when_it_is_applied() {
    let server = Fixture::start().await;
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    define(&server, open).await;
    let path = format!("{WIDGETS}/w?fieldManager=m&fieldValidation=Strict");
    let twice = "\napiVersion: fields.example.com/v1\nkind: Widget\nmetadata:\n  name: w\nspec:\n  \
                 unknown: uk1\n  foo: foo1\n  foo: foo2\n";
    let apply = "application/apply-patch+yaml";
    let (code, _, status) = send(&server, Method::PATCH, &path, apply, twice.to_owned()).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    let expected = r#"line 9: key \"foo\" already set in map"#;
    assert!(status.to_string().contains(expected), "{status}");
}

/// `[sig-api-machinery] FieldValidation should detect unknown metadata fields in both the root and
/// embedded object of a CR`, and `… should create/apply a CR with unknown fields for CRD with no
/// validation schema`.
#[tokio::test]
async fn metadata_of_custom_resources_has_the_fields_that_metadata_has() {
    let server = Fixture::start().await;
    define(
        &server,
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                "properties": {"spec": {"type": "object",
                    "x-kubernetes-preserve-unknown-fields": true}}}}}}}),
    )
    .await;
    let widget = json!({"apiVersion": "fields.example.com/v1", "kind": "Widget",
        "metadata": {"name": "w", "unknownMeta": "x"}, "spec": {"template": {
            "apiVersion": "foo/v1", "kind": "Sub",
            "metadata": {"name": "s", "unknownSubMeta": "y"}, "spec": {"a": 1}}}});
    let strict = format!("{WIDGETS}?fieldValidation=Strict");
    let (code, status) = server.admin(Method::POST, &strict, &widget).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    let message = status["message"].as_str().unwrap();
    assert!(message.contains(r#"unknown field "metadata.unknownMeta""#), "{message}");
    assert!(
        message.contains(r#"unknown field "spec.template.metadata.unknownSubMeta""#),
        "{message}"
    );
    let path = format!("{WIDGETS}/w?fieldManager=m&fieldValidation=Strict");
    let apply = "application/apply-patch+yaml";
    let (code, _, status) = send(&server, Method::PATCH, &path, apply, widget.to_string()).await;
    assert!(!code.is_success(), "{status}");
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains(".spec.template.metadata.unknownSubMeta: field not declared in schema")
            || message.contains(".metadata.unknownMeta: field not declared in schema"),
        "{message}"
    );
}

/// `[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed
/// object`, the applied part.
#[tokio::test]
async fn what_is_applied_has_the_fields_of_its_kind() {
    let server = Fixture::start().await;
    let path = "/api/v1/namespaces/default/configmaps/m?fieldManager=m&fieldValidation=Strict";
    let map =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"},"unknownField":"x"}"#;
    let apply = "application/apply-patch+yaml";
    let (code, _, status) = send(&server, Method::PATCH, path, apply, map.to_owned()).await;
    assert!(!code.is_success(), "{status}");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains(".unknownField: field not declared in schema"), "{message}");
}
