//! The documents, by what clients look for in them.

use super::*;

fn references<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            out.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, out));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, out)),
        _ => {}
    }
}

fn read(path: &str) -> Value {
    serde_json::from_slice(&Documents::new().v3(path).unwrap().bytes).unwrap()
}

fn check_references(document: &Document) {
    let document: Value = serde_json::from_slice(&document.bytes).unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn every_reference_has_its_schema() {
    let documents = Documents::new();
    check_references(&documents.v2(Encoding::Json));
    for (path, _) in documents.v3_index() {
        check_references(&documents.v3(path).unwrap());
    }
    assert!(documents.v3("apis/nope/v1").is_none());
}

#[test]
fn schemas_say_how_to_patch() {
    let document = read("api/v1");
    let schemas = &document["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    assert_eq!(schemas["io.k8s.api.core.v1.PodSpec"]["required"], json!(["containers"]));
}

#[test]
fn clients_find_kinds_and_field_validation_in_the_paths() {
    let document = read("apis/apps/v1");
    let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    assert_eq!(item["get"]["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let parameters = item["patch"]["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
}

#[test]
fn fields_and_types_are_described_where_a_reader_looks() {
    let document = read("api/v1");
    let pod = &document["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
    assert!(pod["description"].is_string());
    for field in ["apiVersion", "kind", "metadata", "spec", "status"] {
        let property = &pod["properties"][field];
        assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{field}");
    }
    let spec = &pod["properties"]["spec"];
    assert_eq!(spec["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.PodSpec");
    assert_eq!(spec["default"], json!({}));
    let list = &document["components"]["schemas"]["io.k8s.api.core.v1.PodList"];
    assert!(list["properties"]["kind"]["description"].is_string());
    let get = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["get"];
    assert_eq!(get["description"], "read the specified Pod");
}

#[test]
fn the_second_version_has_no_defaults() {
    let documents = Documents::new();
    let document: Value = serde_json::from_slice(&documents.v2(Encoding::Json).bytes).unwrap();
    let container = &document["definitions"]["io.k8s.api.core.v1.Container"]["properties"];
    assert_eq!(container["resources"].get("default"), None);
    assert_eq!(container["name"].get("default"), None);
    let meta = &document["definitions"]["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
    let kinds = meta["x-kubernetes-group-version-kind"].as_array().unwrap();
    assert!(kinds.iter().any(|kind| kind["group"] == "apps"));
}

#[test]
fn hashes_do_not_change_from_call_to_call() {
    let documents = Documents::new();
    for (path, hash) in documents.v3_index().iter().take(2) {
        assert_eq!(Documents::new().v3(path).unwrap().hash, *hash);
    }
}

#[test]
fn bytes_are_shared_while_they_are_read_and_let_go_then() {
    let documents = Documents::new();
    let first = documents.v3("apis/apps/v1").unwrap();
    let second = documents.v3("apis/apps/v1").unwrap();
    assert_eq!(first.bytes.as_ptr(), second.bytes.as_ptr());
    assert_eq!(documents.held(), 1);
    drop((first, second));
    assert_eq!(documents.held(), 0);
}
