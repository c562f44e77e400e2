//! OpenAPI documents of custom resources.

use http::StatusCode;
use serde_json::{Value, json};

use super::{DEFINITIONS, code_of, define, definition, patch, read, version};
use crate::fixture::Fixture;

const NAME: &str = "com.example.v1.Foo";

/// `[sig-api-machinery] CustomResourcePublishOpenAPI works for CRD with validation schema`, and
/// `removes definition from spec when one version gets changed to not be served`.
#[tokio::test]
async fn schemas_are_published_as_long_as_they_are_served() {
    let server = Fixture::start().await;
    let before = read(&server, "/openapi/v2").await;
    assert_eq!(before["definitions"][NAME], Value::Null);
    assert_eq!(code_of(&server, "/openapi/v3/apis/example.com/v1").await, StatusCode::NOT_FOUND);
    let properties = json!({"bars": {"type": "array", "description": "List of Bars.", "items":
        {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}});
    let v2 = version("v2", false, &json!({}));
    define(&server, &definition(&json!([version("v1", true, &properties), v2]))).await;
    let after = read(&server, "/openapi/v2").await;
    let spec = &after["definitions"][NAME]["properties"]["spec"];
    assert_eq!(spec["properties"]["bars"], properties["bars"]);
    assert_eq!(
        after["definitions"][NAME]["x-kubernetes-group-version-kind"],
        json!([{"group": "example.com", "version": "v1", "kind": "Foo"}])
    );
    assert!(after["definitions"]["com.example.v2.Foo"].is_object());
    let index = read(&server, "/openapi/v3").await;
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = read(&server, url).await;
    assert!(document["components"]["schemas"][NAME].is_object());
    let mut unserved = version("v2", false, &json!({}));
    unserved["served"] = json!(false);
    let versions = json!([version("v1", true, &properties), unserved]);
    let path = format!("{DEFINITIONS}/foos.example.com");
    patch(&server, &path, &json!({"spec": {"versions": versions}})).await;
    let last = read(&server, "/openapi/v2").await;
    assert_eq!(last["definitions"]["com.example.v2.Foo"], Value::Null);
    assert!(last["definitions"][NAME].is_object());
}

/// `[sig-api-machinery] CustomResourcePublishOpenAPI updates the published spec when one version gets
/// renamed`: the same document ten times, by its tag, until something changes.
#[tokio::test]
async fn documents_have_a_tag_that_changes_with_them() {
    let server = Fixture::start().await;
    let properties = json!({"a": {"type": "string"}});
    let versions = |second: &str| {
        json!([version("v1", true, &properties), version(second, false, &properties)])
    };
    define(&server, &definition(&versions("v2"))).await;
    for path in ["/openapi/v2", "/openapi/v3/apis/example.com/v1"] {
        let (code, tag) = tagged(&server, path, "").await;
        assert_eq!(code, StatusCode::OK);
        for _ in 0..10 {
            assert_eq!(tagged(&server, path, "").await, (StatusCode::OK, tag.clone()));
            assert_eq!(tagged(&server, path, &tag).await.0, StatusCode::NOT_MODIFIED, "{path}");
        }
    }
    let (_, before) = tagged(&server, "/openapi/v2", "").await;
    let path = format!("{DEFINITIONS}/foos.example.com");
    patch(&server, &path, &json!({"spec": {"versions": versions("v3")}})).await;
    let (code, after) = tagged(&server, "/openapi/v2", &before).await;
    assert_eq!(code, StatusCode::OK);
    assert_ne!(before, after);
    let document = read(&server, "/openapi/v2").await;
    assert!(document["definitions"]["com.example.v3.Foo"].is_object());
    assert_eq!(document["definitions"]["com.example.v2.Foo"], Value::Null);
}

/// The code and the tag of an answer to a client that has a document already.
async fn tagged(server: &Fixture, path: &str, has: &str) -> (StatusCode, String) {
    let request = http::Request::builder().uri(path).header("if-none-match", has);
    let request = request.body(bytes::Bytes::new()).unwrap();
    let answer = server.handle.call(&crate::fixture::admin(), request).await;
    let tag = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
    (answer.status(), tag.unwrap_or_default())
}

/// `[sig-api-machinery] CustomResourcePublishOpenAPI works for CRD preserving unknown fields at the
/// schema root` and `in an embedded object`.
#[tokio::test]
async fn schemas_that_keep_everything_say_so() {
    let server = Fixture::start().await;
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut root = version("v1", true, &json!({}));
    root["schema"]["openAPIV3Schema"] = anything.clone();
    define(&server, &definition(&json!([root, version("v2", false, &json!({"e": anything}))])))
        .await;
    let document = read(&server, "/openapi/v2").await;
    let definitions = &document["definitions"];
    // Clients of v2 take a schema with some properties for one that allows no others.
    assert_eq!(definitions[NAME]["type"], "object");
    assert_eq!(definitions[NAME]["properties"], Value::Null);
    let embedded = &definitions["com.example.v2.Foo"]["properties"]["spec"]["properties"]["e"];
    assert_eq!(embedded["x-kubernetes-preserve-unknown-fields"], true);
    let document = read(&server, "/openapi/v3/apis/example.com/v1").await;
    let root = &document["components"]["schemas"][NAME];
    assert_eq!(root["x-kubernetes-preserve-unknown-fields"], true);
}

#[tokio::test]
async fn a_version_of_a_built_in_group_is_discovered_beside_the_others() {
    let server = Fixture::start().await;
    let object = json!({"metadata": {"name": "foos.networking.k8s.io", "annotations": {
        "api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/1"}}, "spec": {"group": "networking.k8s.io",
        "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
        "versions": [version("v7", true, &json!({}))]}});
    define(&server, &object).await;
    let group = read(&server, "/apis/networking.k8s.io").await;
    let versions: Vec<&Value> =
        group["versions"].as_array().unwrap().iter().map(|found| &found["version"]).collect();
    assert_eq!(versions, ["v7", "v1"]);
    assert_eq!(group["preferredVersion"]["version"], "v7");
    let list = read(&server, "/apis/networking.k8s.io/v7").await;
    assert_eq!(list["resources"][0]["name"], "foos");
    assert_eq!(
        read(&server, "/apis/networking.k8s.io/v7/namespaces/default/foos").await["kind"],
        "FooList"
    );
    let own = read(&server, "/apis/networking.k8s.io/v1").await;
    assert!(own["resources"].as_array().unwrap().iter().all(|found| found["kind"] != "Foo"));
    let groups = read(&server, "/apis").await;
    let groups = groups["groups"].as_array().unwrap();
    assert_eq!(groups.iter().filter(|found| found["name"] == "networking.k8s.io").count(), 1);
}
