//! Schemas say for each field which type it has: they are structural.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema`.

use serde_json::Value;

use crate::node::{Findings, Node};
use crate::{FieldError, Path};

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

pub(super) fn validate(root: &Node<'_>, out: &mut Findings) {
    let mut found = Vec::new();
    invariants(root, Level::Root, &mut found);
    complete_all(root, Some(root), &root.path, &root.path, &mut found);
    found.sort_by_cached_key(ToString::to_string);
    out.extend(found);
}

/// Whether a schema is structural at a glance: most are, and to find out what is wrong with one
/// takes a hundred times as long.
pub(super) fn is_plain(root: &Value) -> bool {
    let members = root["properties"].as_object();
    let has_own = |name: &str| members.is_some_and(|members| members.contains_key(name));
    root["type"] == "object"
        && root["additionalProperties"].is_null()
        && !["apiVersion", "kind", "metadata"].into_iter().any(has_own)
        && is_plain_field(root)
}

/// A type, what is checked of its values, and what is in it. What else there may be is not plain.
fn is_plain_field(schema: &Value) -> bool {
    let Some(members) = schema.as_object() else { return false };
    let is_part = |value: &Value| value.is_boolean() || is_plain_field(value);
    let is_typed = schema["type"].as_str().is_some_and(|ty| !ty.is_empty());
    is_typed
        && (schema["type"] != "array" || schema["items"].is_object())
        && members.iter().all(|(name, value)| match name.as_str() {
            "items" => is_plain_field(value),
            "additionalProperties" => is_part(value),
            "properties" => {
                value.as_object().is_some_and(|properties| properties.values().all(is_plain_field))
            }
            "type"
            | "description"
            | "default"
            | "required"
            | "nullable"
            | "format"
            | "pattern"
            | "enum"
            | "minimum"
            | "maximum"
            | "minLength"
            | "maxLength"
            | "minItems"
            | "maxItems"
            | "minProperties"
            | "maxProperties"
            | "x-kubernetes-list-type"
            | "x-kubernetes-list-map-keys"
            | "x-kubernetes-map-type"
            | "x-kubernetes-validations" => true,
            _ => false,
        })
}

/// Whether a schema has nothing but what structural schemas are made of.
///
/// Upstream: `validateUnsupportedFields`.
pub(super) fn readable(schema: &Value) -> Result<(), String> {
    const NEVER: [(&str, &str); 7] = [
        ("id", "id"),
        ("$schema", "schema"),
        ("$ref", "$ref"),
        ("patternProperties", "patternProperties"),
        ("dependencies", "dependencies"),
        ("additionalItems", "additionalItems"),
        ("definitions", "definitions"),
    ];
    let is_empty = |value: &Value| match value {
        Value::String(text) => text.is_empty(),
        Value::Object(members) => members.is_empty(),
        other => other.is_null(),
    };
    let given = |(field, _): &&(&str, &str)| schema.get(field).is_some_and(|it| !is_empty(it));
    if let Some((_, name)) = NEVER.iter().find(given) {
        return Err(format!("OpenAPIV3Schema '{name}' is not supported"));
    }
    if schema["items"].is_array() {
        return Err("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
    }
    let single = ["items", "additionalProperties", "not"].into_iter().map(|field| &schema[field]);
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|it| schema[it].as_array());
    let properties = schema["properties"].as_object().into_iter().flat_map(|all| all.values());
    let parts = single.chain(lists.flatten()).chain(properties);
    parts.filter(|part| part.is_object()).try_for_each(readable)
}

/// Whether a schema refers to another one.
pub(super) fn has_references(schema: &Node<'_>) -> bool {
    !schema.get("$ref").text().is_empty()
        || has_reference_in(&schema.get("items"))
        || has_reference_in(&schema.get("additionalProperties"))
        || properties(schema).any(|(_, property)| has_references(&property))
}

fn has_reference_in(schema: &Node<'_>) -> bool {
    schema.value.is_object() && has_references(schema)
}

/// Properties by name; an object's order is its own.
fn properties<'a>(schema: &Node<'a>) -> impl Iterator<Item = (&'a str, Node<'a>)> + use<'a> {
    schema.get("properties").entries()
}

fn property<'a>(schema: &Node<'a>, name: &str) -> Option<Node<'a>> {
    properties(schema).find(|(key, _)| *key == name).map(|(_, property)| property)
}

fn invariants(schema: &Node<'_>, level: Level, out: &mut Findings) {
    let (items, more) = (schema.get("items"), schema.get("additionalProperties"));
    let ty = schema.get("type");
    if ty.text() == "array" && !items.is_set() {
        out.push(FieldError::required(&items.path, "must be specified"));
    }
    if items.value.is_object() {
        invariants(&items, Level::Item, out);
    }
    for (_, property) in properties(schema) {
        invariants(&property, Level::Field, out);
    }
    if more.is_set() {
        if level == Level::Root {
            out.push(more.forbidden("must not be used at the root"));
        }
        if more.value.is_object() {
            invariants(&more, Level::Field, out);
        }
    }
    let preserves = schema.get("x-kubernetes-preserve-unknown-fields");
    let embeds = schema.get("x-kubernetes-embedded-resource");
    let is_either = schema.get("x-kubernetes-int-or-string").is_true();
    for extension in [&preserves, &embeds] {
        if is_either && extension.is_true() {
            out.push(extension.invalid("must be false if x-kubernetes-int-or-string is true"));
        }
    }
    value_validation(schema, Skipped::of(schema), out);
    typed(schema, level, out);
    if embeds.is_true() && more.is_set() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        out.push(more.forbidden(detail));
    }
    if level == Level::Root && !ty.text().is_empty() && ty.text() != "object" {
        out.push(ty.invalid("must be object at the root"));
    }
    metadata(schema, level, out);
    if embeds.is_true() && !preserves.is_true() && schema.get("properties").len() == 0 {
        let path = schema.path.child("properties");
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        out.push(FieldError::required(&path, detail));
    }
}

fn typed(schema: &Node<'_>, level: Level, out: &mut Findings) {
    let ty = schema.get("type");
    let is = |extension| schema.get(extension).is_true();
    if is("x-kubernetes-embedded-resource") && ty.text() != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        out.push(if ty.text().is_empty() {
            FieldError::required(&ty.path, detail)
        } else {
            ty.invalid(detail)
        });
    } else if ty.text().is_empty()
        && !is("x-kubernetes-int-or-string")
        && !is("x-kubernetes-preserve-unknown-fields")
    {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        out.push(FieldError::required(&ty.path, detail));
    }
}

/// Of the metadata of objects a schema can only speak of names.
fn metadata(schema: &Node<'_>, level: Level, out: &mut Findings) {
    let is_checked = level == Level::Root || schema.get("x-kubernetes-embedded-resource").is_true();
    if !is_checked {
        return;
    }
    for name in ["kind", "apiVersion"] {
        if let Some(ty) = property(schema, name).map(|property| property.get("type"))
            && ty.text() != "string"
        {
            out.push(ty.invalid_text("must be string"));
        }
    }
    let Some(metadata) = property(schema, "metadata") else { return };
    let ty = metadata.get("type");
    if ty.text() != "object" {
        out.push(ty.invalid_text("must be object"));
    }
    let names_only = properties(&metadata).all(|(name, _)| matches!(name, "name" | "generateName"));
    let members = metadata.value.as_object();
    let plain = members.is_none_or(|map| {
        map.keys().all(|key| matches!(key.as_str(), "type" | "properties" | "default"))
    });
    if level == Level::Root && !(names_only && plain) {
        out.push(metadata.forbidden(
            "must not specify anything other than name and generateName, but metadata is \
             implicitly specified",
        ));
    }
}

/// Parts in which a type may be named after all, because of how numbers or texts are written.
#[derive(Clone, Copy, Default)]
struct Skipped {
    any_of: bool,
    any_of_of_first: bool,
}

impl Skipped {
    fn of(schema: &Node<'_>) -> Self {
        if !schema.get("x-kubernetes-int-or-string").is_true() {
            return Self::default();
        }
        let is_pattern = |list: &Node<'_>| {
            let types: Vec<&str> = list.items().map(|item| item.get("type").text()).collect();
            types == ["integer", "string"] && list.items().all(|item| item.len() == 1)
        };
        let first = schema.get("allOf").items().next();
        Self {
            any_of: is_pattern(&schema.get("anyOf")),
            any_of_of_first: first.is_some_and(|first| is_pattern(&first.get("anyOf"))),
        }
    }
}

fn value_validation(schema: &Node<'_>, skipped: Skipped, out: &mut Findings) {
    let nested = |list: &'static str, out: &mut Findings| {
        for item in schema.get(list).items() {
            nested_validation(&item, Skipped::default(), out);
        }
    };
    if !skipped.any_of {
        nested("anyOf", out);
    }
    for (at, item) in schema.get("allOf").items().enumerate() {
        let any_of = at == 0 && skipped.any_of_of_first;
        nested_validation(&item, Skipped { any_of, any_of_of_first: false }, out);
    }
    nested("oneOf", out);
    let not = schema.get("not");
    if not.is_set() {
        nested_validation(&not, Skipped::default(), out);
    }
}

fn nested_validation(schema: &Node<'_>, skipped: Skipped, out: &mut Findings) {
    const FORBIDDEN: [(&str, &str); 13] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ];
    value_validation(schema, skipped, out);
    let items = schema.get("items");
    if items.is_set() {
        nested_validation(&items, Skipped::default(), out);
    }
    for (name, property) in properties(schema) {
        nested_validation(&property, Skipped::default(), out);
        if name == "metadata" {
            out.push(property.forbidden("must not be specified in a nested context"));
        }
    }
    for (field, detail) in FORBIDDEN {
        let given = schema.get(field);
        if given.is_set() && *given.value != false && *given.value != "" {
            out.push(given.forbidden(detail));
        }
    }
}

/// What `allOf` and the like speak of must be specified outside of them.
fn complete_all(
    said: &Node<'_>,
    schema: Option<&Node<'_>>,
    at: &Path,
    said_at: &Path,
    out: &mut Findings,
) {
    let not = said.get("not");
    if not.is_set() {
        complete(&not, schema, at, &said_at.child("not"), out);
    }
    for list in ["allOf", "anyOf", "oneOf"] {
        for (index, item) in said.get(list).items().enumerate() {
            complete(&item, schema, at, &said_at.child(list).index(index), out);
        }
    }
}

fn complete(
    said: &Node<'_>,
    schema: Option<&Node<'_>>,
    at: &Path,
    said_at: &Path,
    out: &mut Findings,
) {
    let Some(schema) = schema else {
        let detail = format!("because it is defined in {said_at}");
        out.push(FieldError::required(at, detail));
        return;
    };
    complete_all(said, Some(schema), at, said_at, out);
    let items = said.get("items");
    if items.is_set() {
        let real = schema.get("items");
        let real = real.is_set().then_some(&real);
        complete(&items, real, &at.child("items"), &said_at.child("items"), out);
    }
    for (name, said) in properties(said) {
        let real = property(schema, name);
        let step = |path: &Path| path.child("properties").key(name);
        complete(&said, real.as_ref(), &step(at), &step(said_at), out);
    }
}
