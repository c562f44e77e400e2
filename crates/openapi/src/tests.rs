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

fn check_references(document: &Bytes) {
    let document: Value = serde_json::from_slice(document).unwrap();
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
    check_references(&v2_json());
    for (path, _) in v3_index() {
        check_references(&v3(&path).unwrap());
    }
    assert_eq!(v3("apis/nope/v1"), None);
}

#[test]
fn schemas_say_how_to_patch() {
    let document: Value = serde_json::from_slice(&v3("api/v1").unwrap()).unwrap();
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
    let document: Value = serde_json::from_slice(&v3("apis/apps/v1").unwrap()).unwrap();
    let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    assert_eq!(item["get"]["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let parameters = item["patch"]["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
}

#[test]
fn hashes_do_not_change_from_call_to_call() {
    let (path, first) = v3_index().remove(0);
    assert_eq!(hash(&v3(&path).unwrap()), first);
}
