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
    serde_json::from_slice(&Documents::new().v3(path, Encoding::Json, &()).unwrap().bytes).unwrap()
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
    check_references(&documents.v2(Encoding::Json, &()));
    for (path, _) in documents.v3_index(&()) {
        check_references(&documents.v3(&path, Encoding::Json, &()).unwrap());
    }
    assert!(documents.v3("apis/nope/v1", Encoding::Json, &()).is_none());
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
    let document: Value = serde_json::from_slice(&documents.v2(Encoding::Json, &()).bytes).unwrap();
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
    for (path, hash) in documents.v3_index(&()).iter().take(2) {
        assert_eq!(Documents::new().v3(path, Encoding::Json, &()).unwrap().hash, *hash);
    }
}

#[test]
fn bytes_are_shared_while_they_are_read_and_let_go_then() {
    let documents = Documents::new();
    let first = documents.v3("apis/apps/v1", Encoding::Json, &()).unwrap();
    let second = documents.v3("apis/apps/v1", Encoding::Json, &()).unwrap();
    assert_eq!(first.bytes.as_ptr(), second.bytes.as_ptr());
    assert_eq!(documents.held(), 1);
    drop((first, second));
    assert_eq!(documents.held(), 0);
}

struct Foos;

impl CustomKinds for Foos {
    fn stamp(&self) -> u64 {
        1
    }

    fn versions(&self) -> Vec<CustomVersion> {
        let text = |text: &str| text.to_owned();
        vec![CustomVersion { group: text("a.b"), version: text("v1"), fingerprint: text("1") }]
    }

    fn kinds(&self, _group: &str, _version: &str) -> Vec<CustomKind> {
        let deployments = registry().resource("apps", "v1", "deployments").unwrap();
        let mut resource = Resource {
            group: "a.b".into(),
            name: "foos".into(),
            kind: "Foo".into(),
            ..deployments.clone()
        };
        for sub in resource.subresources.iter_mut().filter(|sub| sub.name == "status") {
            (sub.group, sub.kind) = ("a.b".into(), "Foo".into());
        }
        let schema = json!({"type": "object", "description": "Foo for Testing", "properties": {
            "spec": {"type": "object", "properties": {
                "n": {"type": "integer", "nullable": true}, "e": {"type": "object",
                "x-kubernetes-embedded-resource": true}}}}});
        let list_kind = "FooList".to_owned();
        vec![CustomKind { resource, list_kind, schema: Some(schema), preserves_unknown: false }]
    }
}

#[test]
fn custom_kinds_are_in_the_documents() {
    let documents = Documents::new();
    let v2 = documents.v2(Encoding::Json, &Foos);
    check_references(&v2);
    let v2: Value = serde_json::from_slice(&v2.bytes).unwrap();
    let foo = &v2["definitions"]["b.a.v1.Foo"];
    assert_eq!(foo["description"], "Foo for Testing");
    assert_eq!(foo["properties"]["spec"]["properties"]["n"], json!({}));
    assert!(foo["properties"]["metadata"]["$ref"].is_string());
    assert!(v2["definitions"]["b.a.v1.FooList"]["properties"]["items"].is_object());
    // Without them the document is another one.
    let without = documents.v2(Encoding::Json, &());
    assert!(!String::from_utf8_lossy(&without.bytes).contains("b.a.v1.Foo"));

    let v3 = documents.v3("apis/a.b/v1", Encoding::Json, &Foos).unwrap();
    check_references(&v3);
    let index = documents.v3_index(&Foos);
    let (_, hash) = index.iter().find(|(path, _)| path == "apis/a.b/v1").unwrap();
    assert_eq!(*hash, v3.hash);
    let v3: Value = serde_json::from_slice(&v3.bytes).unwrap();
    let foo = &v3["components"]["schemas"]["b.a.v1.Foo"];
    assert_eq!(foo["properties"]["spec"]["properties"]["n"]["nullable"], true);
    let embedded = &foo["properties"]["spec"]["properties"]["e"]["properties"];
    assert!(embedded["metadata"]["allOf"].is_array());
    let item = &v3["paths"]["/apis/a.b/v1/namespaces/{namespace}/foos/{name}"];
    assert_eq!(item["patch"]["x-kubernetes-group-version-kind"]["kind"], "Foo");
    let media = item["patch"]["requestBody"]["content"].as_object().unwrap();
    assert!(!media.contains_key("application/strategic-merge-patch+json"));
}

/// One kind, counting how often a document is made of it.
struct Counted(std::sync::atomic::AtomicUsize);

impl CustomKinds for Counted {
    fn stamp(&self) -> u64 {
        1
    }

    fn versions(&self) -> Vec<CustomVersion> {
        let (group, version) = ("example.com".to_owned(), "v1".to_owned());
        vec![CustomVersion { group, version, fingerprint: "f".to_owned() }]
    }

    fn kinds(&self, _group: &str, _version: &str) -> Vec<CustomKind> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Vec::new()
    }
}

#[test]
fn documents_of_custom_kinds_are_made_once_while_they_are_read() {
    let (documents, custom) = (Documents::new(), Counted(0.into()));
    let first = documents.v3("apis/example.com/v1", Encoding::Json, &custom).unwrap();
    let again = documents.v3("apis/example.com/v1", Encoding::Json, &custom).unwrap();
    assert_eq!((first.hash, first.bytes), (again.hash, again.bytes));
    assert_eq!(custom.0.into_inner(), 1);
    assert!(documents.v3("apis/example.com/v2", Encoding::Json, &Counted(0.into())).is_none());
}

#[test]
fn fields_that_have_a_few_values_tell_them() {
    let core = registry().groups().iter().find(|group| group.name.is_empty()).unwrap();
    let document: Value =
        serde_json::from_str(&Parts::v3(core, &core.versions[0]).v3_text()).unwrap();
    let schemas = &document["components"]["schemas"];
    let policy = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["restartPolicy"];
    assert_eq!(policy["enum"], json!(["Always", "Never", "OnFailure"]));
    let text = policy["description"].as_str().unwrap();
    assert!(
        text.ends_with(
            "Possible enum values:\n - `\"Always\"`\n - `\"Never\"`\n - `\"OnFailure\"`"
        )
    );
    let claim = &schemas["io.k8s.api.core.v1.PersistentVolumeClaimSpec"]["properties"];
    let modes = &claim["accessModes"]["items"]["enum"];
    assert!(modes.as_array().unwrap().contains(&json!("ReadWriteOnce")), "{modes}");
    let name = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["nodeName"];
    assert_eq!(name.get("enum"), None);
}
