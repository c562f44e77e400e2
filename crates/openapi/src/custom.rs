//! Custom kinds in the documents.
//!
//! In v3 a schema is published as it stands in its definition, with what every object has. The
//! clients of v2 know less: alternatives are left out, and what may be null or anything has no type.
//!
//! Upstream: `apiextensions-apiserver/pkg/controller/openapi`.

use meta::GroupVersionKind;
use schema::Resource;
use serde_json::{Map, Value, json};

use crate::schemas::{Dialect, Schemas};
use crate::{Texts, operations};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const CONVENTIONS: &str = "https://git.k8s.io/community/contributors/devel/sig-architecture/\
                           api-conventions.md";

/// A custom kind in one version.
#[derive(Clone, Debug)]
pub struct CustomKind {
    /// Its resource.
    pub resource: Resource,
    /// The kind of lists of it.
    pub list_kind: String,
    /// `openAPIV3Schema` of the definition.
    pub schema: Option<Value>,
    /// Whether the definition as a whole keeps unknown fields.
    pub preserves_unknown: bool,
}

/// The custom kinds that are served at one time.
pub trait CustomKinds: Send + Sync {
    /// Another number whenever anything is served in another way.
    fn stamp(&self) -> u64;

    /// Groups and versions, each with a text that changes with what is served in it.
    fn versions(&self) -> Vec<CustomVersion>;

    /// One of them, for which the others need not be looked at.
    fn version(&self, group: &str, version: &str) -> Option<CustomVersion> {
        self.versions().into_iter().find(|of| of.group == group && of.version == version)
    }

    /// The kinds of a version.
    fn kinds(&self, group: &str, version: &str) -> Vec<CustomKind>;
}

/// A group and version with custom kinds.
#[derive(Clone, Debug)]
pub struct CustomVersion {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// What its document depends on.
    pub fingerprint: String,
}

/// No custom kinds.
impl CustomKinds for () {
    fn stamp(&self) -> u64 {
        0
    }

    fn versions(&self) -> Vec<CustomVersion> {
        Vec::new()
    }

    fn kinds(&self, _group: &str, _version: &str) -> Vec<CustomKind> {
        Vec::new()
    }
}

/// Adds a kind, its list and the paths of its resource.
pub(crate) fn add(kind: &CustomKind, schemas: &mut Schemas, paths: &mut Texts) {
    let resource = &kind.resource;
    let gvk = resource.gvk();
    let name = name_of(&gvk);
    let list = GroupVersionKind { kind: kind.list_kind.clone(), ..gvk.clone() };
    let list_name = name_of(&list);
    schemas.name(&gvk, &name);
    schemas.name(&list, &list_name);
    // That is how operations speak of lists.
    let spoken = GroupVersionKind { kind: format!("{}List", gvk.kind), ..gvk.clone() };
    schemas.name(&spoken, &list_name);
    schemas.add_named("meta/v1.ObjectMeta");
    schemas.add_named("meta/v1.ListMeta");
    for shared in ["DeleteOptions", "Status"] {
        schemas.add_kind(&GroupVersionKind::new("meta.k8s.io", "v1", shared));
    }
    if resource.subresource("scale").is_some() {
        schemas.add_kind(&GroupVersionKind::new("autoscaling", "v1", "Scale"));
    }
    let object = object(kind, &gvk, schemas);
    schemas.put(&name, &object);
    let list = list_of(kind, &list, &name, schemas);
    schemas.put(&list_name, &list);
    let root = format!("/apis/{}/{}", resource.group, resource.version);
    operations::add_resource(&root, resource, schemas, paths);
}

/// The group turned round, version and kind.
fn name_of(gvk: &GroupVersionKind) -> String {
    let group: Vec<&str> = gvk.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), gvk.version, gvk.kind)
}

fn extension(gvk: &GroupVersionKind) -> Value {
    json!([{"group": gvk.group, "version": gvk.version, "kind": gvk.kind}])
}

fn object(kind: &CustomKind, gvk: &GroupVersionKind, schemas: &Schemas) -> Value {
    let is_v2 = schemas.dialect() == Dialect::V2;
    let is_open = |schema: &Value| {
        kind.preserves_unknown || schema["x-kubernetes-preserve-unknown-fields"] == true
    };
    let mut object = match &kind.schema {
        // `kubectl` would take whatever is named for all there may be.
        Some(schema) if is_v2 && is_open(schema) => json!({"type": "object"}),
        None => json!({"type": "object"}),
        Some(schema) => {
            let mut schema = schema.clone();
            if is_v2 {
                simplify(&mut schema);
            }
            embed(&mut schema, schemas, true);
            schema
        }
    };
    object["x-kubernetes-group-version-kind"] = extension(gvk);
    object
}

/// Puts what every object has into an object, and into those in it.
fn embed(schema: &mut Value, schemas: &Schemas, is_root: bool) {
    let is_v2 = schemas.dialect() == Dialect::V2;
    let is_embedded = schema["x-kubernetes-embedded-resource"] == true;
    let is_open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let Some(map) = schema.as_object_mut() else { return };
    for field in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(field).filter(|inner| inner.is_object()) {
            embed(inner, schemas, false);
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|property| embed(property, schemas, false));
    }
    if is_root || (is_embedded && !(is_v2 && is_open)) {
        let properties = map.entry("properties").or_insert_with(|| Value::Object(Map::new()));
        for field in ["apiVersion", "kind"] {
            let mut text = json!({"type": "string"});
            if let Some(description) = schemas.of_every_object(field) {
                text["description"] = json!(description);
            }
            properties[field] = text;
        }
        let description = schemas.of_every_object("metadata");
        properties["metadata"] = schemas.described_reference(OBJECT_META, description);
    }
}

fn list_of(kind: &CustomKind, gvk: &GroupVersionKind, item: &str, schemas: &Schemas) -> Value {
    let text = |field: &str| {
        let mut text = json!({"type": "string"});
        if let Some(description) = schemas.of_every_object(field) {
            text["description"] = json!(description);
        }
        text
    };
    let metadata = format!("Standard list metadata. More info: {CONVENTIONS}#types-kinds");
    json!({
        "description": format!("{} is a list of {}", gvk.kind, kind.resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("apiVersion"),
            "kind": text("kind"),
            "metadata": schemas.described_reference(LIST_META, Some(&metadata)),
            "items": {
                "description":
                    format!("List of {}. More info: {CONVENTIONS}", kind.resource.name),
                "type": "array",
                "items": schemas.reference(item),
            },
        },
        "x-kubernetes-group-version-kind": extension(gvk),
    })
}

/// Takes out what OpenAPI v2, or its clients, do not understand.
fn simplify(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for field in ["allOf", "anyOf", "oneOf", "not"] {
        map.remove(field);
    }
    let is_true = |map: &Map<String, Value>, field: &str| map.get(field) == Some(&json!(true));
    let is_nullable = is_true(map, "nullable");
    let is_open = is_true(map, "x-kubernetes-preserve-unknown-fields");
    if is_nullable {
        map.remove("type");
        map.remove("nullable");
    }
    if is_nullable || is_open {
        map.remove("items");
        map.remove("properties");
    }
    let ty = map.get("type").and_then(Value::as_str).unwrap_or_default();
    let is_bare_list = ty == "array" && !map.contains_key("items");
    if is_bare_list || (is_open && ty == "object") {
        map.remove("type");
    }
    require_no_nulls(map);
    for field in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(field) {
            simplify(inner);
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(simplify);
    }
}

/// What may be null need not be there.
fn require_no_nulls(map: &mut Map<String, Value>) {
    let nullable: Vec<String> = map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, property)| property["nullable"] == true)
        .map(|(name, _)| name.clone())
        .collect();
    let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) else { return };
    required.retain(|name| !nullable.iter().any(|nullable| name == nullable));
    if required.is_empty() {
        map.remove("required");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_of_v2_are_spared_what_they_do_not_understand() {
        let mut schema = json!({"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "string", "nullable": true},
            "b": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"c": {"type": "string"}}},
            "l": {"type": "array", "items": {"type": "string", "anyOf": [{"minLength": 1}]}}}});
        simplify(&mut schema);
        assert_eq!(
            schema,
            json!({"type": "object", "required": ["b"], "properties": {
                "a": {},
                "b": {"x-kubernetes-preserve-unknown-fields": true},
                "l": {"type": "array", "items": {"type": "string"}}}})
        );
    }
}
