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
