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
