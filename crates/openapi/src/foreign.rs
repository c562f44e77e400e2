//! What is taken from the v2 document of another server: the paths of its API, and the definitions
//! they need.
//!
//! Where two servers have different definitions under one name, the later one is renamed, with a
//! number at its end. Paths that are there already stay as they are.
//!
//! Upstream: `kube-openapi/pkg/aggregator`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{Parts, Texts};

const REFERENCE: &str = "#/definitions/";
/// The kinds that a definition is of. Those of two servers are told together.
const KINDS: &str = "x-kubernetes-group-version-kind";

/// The part of a document that belongs to one version of a group.
#[derive(Debug)]
pub struct ForeignDocument {
    // Texts: as values they would take many times the memory.
    paths: Texts,
    definitions: Texts,
    stamp: u64,
}

impl ForeignDocument {
    /// Reads a document; `None` when it is none.
    pub fn parse(group: &str, version: &str, text: &[u8]) -> Option<Self> {
        let document: BTreeMap<String, &RawValue> = serde_json::from_slice(text).ok()?;
        if document.get("swagger").is_none_or(|version| version.get() != "\"2.0\"") {
            return None;
        }
        let members = |key: &str| -> BTreeMap<String, &RawValue> {
            let part = document.get(key).and_then(|part| serde_json::from_str(part.get()).ok());
            part.unwrap_or_default()
        };
        let (all_paths, mut all) = (members("paths"), members("definitions"));
        let prefix = format!("/apis/{group}/{version}/");
        let mut wanted = BTreeSet::new();
        let mut take = |text: &RawValue| {
            references(&parsed(text.get()), &mut wanted);
            text.get().to_owned()
        };
        let own = all_paths.into_iter().filter(|(path, _)| path.starts_with(&prefix));
        let paths: Texts = own.map(|(path, text)| (path, take(text))).collect();
        let mut definitions = Texts::new();
        while let Some(name) = wanted.pop_first() {
            if let Some(text) = all.remove(&name) {
                references(&parsed(text.get()), &mut wanted);
                definitions.insert(name, text.get().to_owned());
            }
        }
        let hash = Sha256::digest(text);
        let stamp = hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Some(Self { paths, definitions, stamp })
    }

    /// Changes with the document.
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Adds it to a document; `keeps_all` is whether any key may be in it.
    pub(crate) fn merge_into(&self, parts: &mut Parts, keeps_all: bool) {
        let mut renamed: BTreeMap<&str, String> = BTreeMap::new();
        for (name, definition) in &self.definitions {
            let free = free_name(name, &parsed(definition), &parts.schemas);
            if free != *name {
                renamed.insert(name, free);
            }
        }
        let finish = |text: &str, clean: fn(&mut Value)| {
            let mut value = parsed(text);
            rename(&mut value, &renamed);
            if !keeps_all {
                clean(&mut value);
            }
            value
        };
        for (name, definition) in &self.definitions {
            let own = renamed.get(name.as_str()).unwrap_or(name);
            let mut value = finish(definition, clean_schema);
            if let Some(before) = parts.schemas.get(own) {
                join_kinds(&mut value, &parsed(before));
            }
            parts.schemas.insert(own.clone(), value.to_string());
        }
        for (path, item) in &self.paths {
            if !parts.paths.contains_key(path) {
                parts.paths.insert(path.clone(), finish(item, clean_path).to_string());
            }
        }
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// The name itself, unless something else has it.
fn free_name(name: &str, definition: &Value, taken: &Texts) -> String {
    let is_free =
        |name: &str| taken.get(name).is_none_or(|text| is_same(&parsed(text), definition));
    if is_free(name) {
        return name.to_owned();
    }
    let mut number = 2_u32;
    loop {
        let other = format!("{name}_v{number}");
        if is_free(&other) {
            return other;
        }
        number += 1;
    }
}

/// Whether two definitions are the same, whatever kinds they are of.
fn is_same(a: &Value, b: &Value) -> bool {
    let bare = |value: &Value| {
        let mut value = value.clone();
        if let Some(members) = value.as_object_mut() {
            members.remove(KINDS);
        }
        value
    };
    bare(a) == bare(b)
}

/// Adds the kinds of another to those of a definition, each once.
fn join_kinds(value: &mut Value, other: &Value) {
    let Some(others) = other.get(KINDS).and_then(Value::as_array) else { return };
    let mut kinds = others.clone();
    for kind in value.get(KINDS).and_then(Value::as_array).into_iter().flatten() {
        if !kinds.contains(kind) {
            kinds.push(kind.clone());
        }
    }
    value[KINDS] = Value::from(kinds);
}

fn references(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match value.as_str().and_then(|text| text.strip_prefix(REFERENCE)) {
                    Some(name) if key == "$ref" => drop(out.insert(name.to_owned())),
                    _ => references(value, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}

fn rename(value: &mut Value, renamed: &BTreeMap<&str, String>) {
    if renamed.is_empty() {
        return;
    }
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let name = value.as_str().and_then(|text| text.strip_prefix(REFERENCE));
                match name.and_then(|name| renamed.get(name)) {
                    Some(other) if key == "$ref" => {
                        *value = Value::from(format!("{REFERENCE}{other}"));
                    }
                    _ => rename(value, renamed),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, renamed)),
        _ => {}
    }
}

/// Leaves what the protobuf form has a place for.
fn clean_path(item: &mut Value) {
    keep(item, &["get", "put", "post", "delete", "patch", "parameters"], true);
    each(item, "parameters", clean_parameter);
    for verb in ["get", "put", "post", "delete", "patch"] {
        let Some(operation) = item.get_mut(verb) else { continue };
        let known = [
            "tags",
            "description",
            "operationId",
            "produces",
            "consumes",
            "parameters",
            "responses",
            "schemes",
        ];
        keep(operation, &known, true);
        each(operation, "parameters", clean_parameter);
        let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
        for response in responses.into_iter().flat_map(Map::values_mut) {
            keep(response, &["description", "schema"], true);
            if let Some(schema) = response.get_mut("schema") {
                clean_schema(schema);
            }
        }
    }
}

fn clean_parameter(parameter: &mut Value) {
    if parameter["in"] == "body" {
        keep(parameter, &["description", "name", "in", "required", "schema", "uniqueItems"], true);
        if let Some(schema) = parameter.get_mut("schema") {
            clean_schema(schema);
        }
        return;
    }
    let known = ["required", "in", "description", "name", "type", "format", "uniqueItems"];
    keep(parameter, &known, false);
}

fn clean_schema(schema: &mut Value) {
    let known = [
        "$ref",
        "format",
        "description",
        "required",
        "additionalProperties",
        "type",
        "items",
        "properties",
    ];
    keep(schema, &known, true);
    for key in ["additionalProperties", "items"] {
        if let Some(inner) = schema.get_mut(key) {
            clean_schema(inner);
        }
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flat_map(Map::values_mut).for_each(clean_schema);
}

fn keep(value: &mut Value, known: &[&str], extensions: bool) {
    if let Some(members) = value.as_object_mut() {
        members.retain(|key, _| {
            known.contains(&key.as_str()) || (extensions && key.starts_with("x-"))
        });
    }
}

fn each(value: &mut Value, key: &str, clean: fn(&mut Value)) {
    let items = value.get_mut(key).and_then(Value::as_array_mut);
    items.into_iter().flatten().for_each(clean);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Documents, Encoding};

    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    const OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

    fn document(meta: &Value, options: &Value) -> Vec<u8> {
        let reference = |name: &str| json!({ "$ref": format!("{REFERENCE}{name}") });
        let get = json!({"get": {"summary": "new", "operationId": "listApples", "parameters": [
                {"in": "query", "name": "limit", "type": "integer", "enum": [1]},
                {"in": "body", "name": "o", "schema": reference(OPTIONS)}],
            "responses": {"200": {"description": "OK", "schema": reference("fruit.Apple")}}}});
        json!({"swagger": "2.0", "paths": {
                "/apis/fruit.example.com/v1/apples": get, "/apis/fruit.example.com/v2/apples": get,
                "/apis/apps/v1/deployments": {"get": {"description": "stolen"}}, "/version/": {}},
            "definitions": {"fruit.Apple": {"type": "object", "madeUpKeyword": 1,
                    "properties": {"metadata": reference(META)}},
                META: meta, OPTIONS: options, "unused": {}}})
        .to_string()
        .into_bytes()
    }

    fn own(name: &str) -> Value {
        let whole = Documents::new().v2(Encoding::Json, &());
        let whole: Value = serde_json::from_slice(&whole.bytes).unwrap();
        whole["definitions"][name].clone()
    }

    #[test]
    fn the_paths_of_its_version_come_in_with_what_they_need() {
        let mut options = own(OPTIONS);
        options[KINDS] =
            json!([{"group": "fruit.example.com", "version": "v1", "kind": "DeleteOptions"}]);
        let other = document(&json!({"type": "object", "description": "another"}), &options);
        let parsed = ForeignDocument::parse("fruit.example.com", "v1", &other).unwrap();
        assert_eq!(parsed.paths.keys().collect::<Vec<_>>(), ["/apis/fruit.example.com/v1/apples"]);
        let documents = Documents::new();
        let plain = documents.v2(Encoding::Json, &());
        let merged = documents.v2_with(Encoding::Json, &(), &[std::sync::Arc::new(parsed)]);
        assert_ne!(plain.hash, merged.hash);
        let whole: Value = serde_json::from_slice(&merged.bytes).unwrap();
        let definitions = &whole["definitions"];
        assert!(definitions.get("unused").is_none());
        assert_eq!(definitions[format!("{META}_v2")]["description"], "another");
        assert_eq!(
            definitions["fruit.Apple"]["properties"]["metadata"]["$ref"],
            format!("{REFERENCE}{META}_v2")
        );
        assert_eq!(definitions[META], own(META));
        let kinds = definitions[OPTIONS][KINDS].as_array().unwrap();
        assert_eq!(kinds.len(), own(OPTIONS)[KINDS].as_array().unwrap().len() + 1);
        assert!(definitions.get(format!("{OPTIONS}_v2")).is_none());
        assert_ne!(whole["paths"]["/apis/apps/v1/deployments"]["get"]["description"], "stolen");
        let without = documents.v2_with(Encoding::Json, &(), &[]);
        assert_eq!(without.hash, plain.hash);
    }

    #[test]
    fn the_protobuf_form_has_what_it_has_a_place_for() {
        let other = document(&json!({"type": "object", "default": {}}), &own(OPTIONS));
        let parsed = ForeignDocument::parse("fruit.example.com", "v1", &other).unwrap();
        let documents = Documents::new();
        let merged = documents.v2_with(Encoding::Protobuf, &(), &[std::sync::Arc::new(parsed)]);
        let has = |text: &str| merged.bytes.windows(text.len()).any(|at| at == text.as_bytes());
        assert!(has("listApples") && has("fruit.Apple") && !has("madeUpKeyword"));
    }

    #[test]
    fn what_is_no_document_is_none() {
        for text in ["", "[]", "{\"openapi\":\"3.0.0\"}"] {
            assert!(ForeignDocument::parse("g", "v1", text.as_bytes()).is_none(), "{text}");
        }
        let empty = ForeignDocument::parse("g", "v1", br#"{"swagger":"2.0"}"#).unwrap();
        assert!(empty.paths.is_empty());
    }
}
