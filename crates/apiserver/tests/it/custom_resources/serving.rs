//! Objects of custom resources: schemas, defaults, selectors, tables, lists and watches.

use std::time::Duration;

use futures::StreamExt;
use http::{Method, Request, StatusCode};
use meta::WatchEvent;
use serde_json::{Value, json};

use super::{
    DEFINITIONS, FOOS, code_of, define, definition, foo, message, patch, read, until, version,
};
use crate::fixture::{Fixture, admin};

/// `[sig-api-machinery] CustomResourceDefinition resources custom resource defaulting for requests
/// and from storage works`.
#[tokio::test]
async fn defaults_come_with_requests_and_from_the_store() {
    let server = Fixture::start().await;
    let of = |properties: &Value| json!([version("v1", true, properties)]);
    define(&server, &definition(&of(&json!({"a": {"type": "string"}, "b": {"type": "string"}}))))
        .await;
    server.create(FOOS, &foo("stored", &json!({}))).await;
    let with = json!({"a": {"type": "string", "default": "A"}, "b": {"type": "string"}});
    let path = format!("{DEFINITIONS}/foos.example.com");
    let (code, _) = patch(&server, &path, &json!({"spec": {"versions": of(&with)}})).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(server.create(FOOS, &foo("new", &json!({}))).await["spec"], json!({"a": "A"}));
    assert_eq!(read(&server, &format!("{FOOS}/stored")).await["spec"], json!({"a": "A"}));
    // What was written stays when the default goes.
    let without = json!({"a": {"type": "string"}, "b": {"type": "string", "default": "B"}});
    patch(&server, &path, &json!({"spec": {"versions": of(&without)}})).await;
    let new = read(&server, &format!("{FOOS}/new")).await;
    assert_eq!(new["spec"], json!({"a": "A", "b": "B"}));
    assert_eq!(read(&server, &format!("{FOOS}/stored")).await["spec"], json!({"b": "B"}));
}

/// `[sig-api-machinery] CustomResourceDefinition resources should include custom resource definition
/// resources in discovery documents`, and the resources they define.
#[tokio::test]
async fn discovery_tells_of_custom_resources() {
    let server = Fixture::start().await;
    let group = read(&server, "/apis/apiextensions.k8s.io/v1").await;
    let names = group["resources"].as_array().unwrap().iter();
    assert!(names.into_iter().any(|resource| resource["name"] == "customresourcedefinitions"));
    assert_eq!(code_of(&server, "/apis/example.com").await, StatusCode::NOT_FOUND);
    let mut v1 = version("v1", true, &json!({}));
    v1["subresources"] = json!({"status": {}});
    define(&server, &definition(&json!([v1]))).await;
    let list = read(&server, "/apis").await;
    let groups = list["groups"].as_array().unwrap();
    assert!(groups.iter().any(|group| group["name"] == "example.com"));
    let resources = read(&server, "/apis/example.com/v1").await["resources"].clone();
    assert_eq!(resources[0]["shortNames"], json!(["fo"]));
    assert_eq!(resources[0]["categories"], json!(["all"]));
    assert_eq!(resources[1]["name"], "foos/status");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let request = Request::builder().uri("/apis").header("accept", accept);
    let request = request.body(bytes::Bytes::new()).unwrap();
    let response = server.handle.call(&admin(), request).await;
    let body = response.into_body().collect().await.unwrap();
    let aggregated: Value = serde_json::from_slice(&body).unwrap();
    let items = aggregated["items"].as_array().unwrap();
    let own = items.iter().find(|item| item["metadata"]["name"] == "example.com").unwrap();
    assert_eq!(own["versions"][0]["resources"][0]["subresources"][0]["subresource"], "status");
}

/// `[sig-api-machinery] CustomResourceDefinition Watch watch on custom resource definition objects`.
#[tokio::test]
async fn watches_see_every_change_after_their_version() {
    let server = Fixture::start().await;
    define(&server, &definition(&json!([version("v1", true, &json!({"n": {"type": "integer"}}))])))
        .await;
    let since = read(&server, FOOS).await["metadata"]["resourceVersion"].clone();
    let path = format!("{FOOS}?watch=true&resourceVersion={}", since.as_str().unwrap());
    let mut watch = server.handle.watch(&admin(), &path).await.unwrap();
    server.create(FOOS, &foo("a", &json!({"n": 1}))).await;
    patch(&server, &format!("{FOOS}/a"), &json!({"spec": {"n": 2}})).await;
    server.admin(Method::DELETE, &format!("{FOOS}/a"), &Value::Null).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        let event = event.unwrap().unwrap().unwrap();
        let (sort, object) = match event {
            WatchEvent::Added(object) => ("added", object),
            WatchEvent::Modified(object) => ("modified", object),
            WatchEvent::Deleted(object) => ("deleted", object),
            WatchEvent::Bookmark { .. } => panic!("a bookmark nobody asked for"),
        };
        seen.push((sort, object.decode::<Value>().unwrap()["spec"]["n"].clone()));
    }
    assert_eq!(seen, [("added", json!(1)), ("modified", json!(2)), ("deleted", json!(2))]);
}

#[tokio::test]
async fn watches_end_when_the_resource_changes() {
    let server = Fixture::start().await;
    define(&server, &definition(&json!([version("v1", true, &json!({}))]))).await;
    let mut watch = server.handle.watch(&admin(), &format!("{FOOS}?watch=true")).await.unwrap();
    let path = format!("{DEFINITIONS}/foos.example.com");
    let versions = json!([version("v1", true, &json!({"n": {"type": "integer"}}))]);
    patch(&server, &path, &json!({"spec": {"versions": versions}})).await;
    let end = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
    assert!(end.is_none());
}

#[tokio::test]
async fn objects_must_fit_the_schema() {
    let server = Fixture::start().await;
    let properties = json!({"n": {"type": "integer", "maximum": 5}, "re": {"type": "string",
        "pattern": "^[a-z]+$"}, "rule": {"type": "integer",
        "x-kubernetes-validations": [{"rule": "self > 0", "message": "must be positive"}]}});
    define(&server, &definition(&json!([version("v1", true, &properties)]))).await;
    for (spec, expected) in [
        (json!({"n": 6}), "spec.n in body should be less than or equal to 5"),
        (json!({"n": "x"}), "spec.n in body must be of type integer: \"string\""),
        (json!({"re": "A"}), "spec.re in body should match '^[a-z]+$'"),
        (json!({"rule": 0}), "must be positive"),
    ] {
        let (code, answer) = server.admin(Method::POST, FOOS, &foo("a", &spec)).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert!(message(&answer).contains(expected), "{answer}");
    }
    let path = format!("{FOOS}?fieldValidation=Strict");
    let (code, answer) = server.admin(Method::POST, &path, &foo("a", &json!({"x": 1}))).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(message(&answer).ends_with("strict decoding error: unknown field \"spec.x\""));
}

#[tokio::test]
async fn objects_come_in_json_only() {
    let server = Fixture::start().await;
    define(&server, &definition(&json!([version("v1", true, &json!({}))]))).await;
    let protobuf = "application/vnd.kubernetes.protobuf";
    let (code, answer) =
        server.call(&admin(), Method::POST, FOOS, protobuf, &foo("a", &json!({}))).await;
    assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{answer}");
    let strategic = "application/strategic-merge-patch+json";
    let path = format!("{FOOS}/a");
    let (code, _) = server.call(&admin(), Method::PATCH, &path, strategic, &json!({})).await;
    assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let get = async |accept: &'static str| {
        let request = Request::builder().uri(FOOS).header("accept", accept);
        let request = request.body(bytes::Bytes::new()).unwrap();
        let response = server.handle.call(&admin(), request).await;
        let media = response.headers()["content-type"].to_str().unwrap().to_owned();
        (response.status(), media)
    };
    assert_eq!(get(protobuf).await.0, StatusCode::NOT_ACCEPTABLE);
    let both = "application/vnd.kubernetes.protobuf, application/json";
    assert_eq!(get(both).await, (StatusCode::OK, "application/json".to_owned()));
    let metadata =
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    assert_eq!(get(metadata).await, (StatusCode::OK, protobuf.to_owned()));
}

#[tokio::test]
async fn rules_of_access_hold_for_custom_resources() {
    let server = Fixture::start().await;
    define(&server, &definition(&json!([version("v1", true, &json!({}))]))).await;
    let rules = json!([{"apiGroups": ["example.com"], "resources": ["foos"], "verbs": ["list"]}]);
    let role = json!({"metadata": {"name": "lists-foos"}, "rules": rules});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    server.create(&format!("{rbac}/roles"), &role).await;
    let binding = json!({"metadata": {"name": "lists-foos"}, "roleRef":
        {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lists-foos"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u"}]});
    server.create(&format!("{rbac}/rolebindings"), &binding).await;
    let user = authn::UserInfo::new("u", &[authn::UserInfo::AUTHENTICATED]);
    until("the user may list", async || {
        let (code, _) =
            server.call(&user, Method::GET, FOOS, "application/json", &Value::Null).await;
        code == StatusCode::OK
    })
    .await;
    let path = format!("{FOOS}/a");
    let (code, _) = server.call(&user, Method::GET, &path, "application/json", &Value::Null).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
}
