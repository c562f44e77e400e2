//! What schemas may use of OpenAPI, and Kubernetes' extensions of it.
//!
//! The expressions of `x-kubernetes-validations` are compiled in `rules`.

use std::collections::BTreeSet;

use crate::FieldError;
use crate::custom_resource::selectable;
use crate::go_regexp;
use crate::node::{Findings, Node};

const RULE_REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Where a schema is.
#[derive(Clone)]
pub(super) struct Place {
    is_root: bool,
    is_in_metadata: bool,
    /// Why there may be no default.
    no_default: Option<String>,
}

impl Place {
    pub(super) fn root() -> Self {
        Self { is_root: true, is_in_metadata: false, no_default: None }
    }
}

pub(super) fn validate(schema: &Node<'_>, place: &Place, out: &mut Findings) {
    if !schema.value.is_object() {
        return;
    }
    keywords(schema, place, out);
    let unique = schema.get("uniqueItems");
    if unique.is_true() {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes \
                      quadratic";
        out.push(unique.forbidden(detail));
    }
    let (more, properties) = (schema.get("additionalProperties"), schema.get("properties"));
    let allows_more = more.is_set() && *more.value != false;
    if allows_more && properties.len() > 0 {
        out.push(more.forbidden("additionalProperties and properties are mutual exclusive"));
    }
    children(schema, place, out);
    let preserves = schema.get("x-kubernetes-preserve-unknown-fields");
    if preserves.is_set() && !preserves.is_true() {
        out.push(preserves.invalid("must be true or undefined"));
    }
    let map_type = schema.get("x-kubernetes-map-type");
    if map_type.is_set() {
        typed(schema, "object", "must be object if x-kubernetes-map-type is specified", out);
        map_type.one_of(&["atomic", "granular"], out);
    }
    lists(schema, out);
    list_map_keys(schema, out);
    item_values(schema, out);
    for rule in schema.get("x-kubernetes-validations").items() {
        self::rule(&rule, schema, out);
    }
}

fn typed(schema: &Node<'_>, wanted: &str, detail: &str, out: &mut Findings) {
    let ty = schema.get("type");
    if ty.text().is_empty() {
        out.push(FieldError::required(&ty.path, detail));
    } else if ty.text() != wanted {
        out.push(ty.invalid(detail));
    }
}

fn keywords(schema: &Node<'_>, place: &Place, out: &mut Findings) {
    let ty = schema.get("type");
    if !matches!(ty.text(), "" | "null") {
        ty.one_of(&["array", "boolean", "integer", "number", "object", "string"], out);
    }
    let default = schema.get("default");
    if default.is_set()
        && let Some(reason) = &place.no_default
    {
        out.push(default.forbidden(format!("must not be set {reason}")));
    }
    for keyword in
        ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"]
    {
        let given = schema.get(keyword);
        let is_list = matches!(keyword, "patternProperties" | "definitions" | "dependencies");
        if given.is_set() && *given.value != "" && !(is_list && given.len() == 0) {
            out.push(given.forbidden(format!("{keyword} is not supported")));
        }
    }
    let pattern = schema.get("pattern");
    if let Some(why) = go_regexp::error(pattern.text()) {
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        out.push(pattern.invalid(detail));
    }
    if ty.text() == "null" {
        out.push(ty.forbidden("type cannot be set to null, use nullable as an alternative"));
    }
    let items = schema.get("items");
    if items.value.is_array() && items.len() > 0 {
        out.push(items.forbidden("items must be a schema object and not an array"));
    }
    let embeds = schema.get("x-kubernetes-embedded-resource");
    if place.is_in_metadata && embeds.is_true() {
        out.push(embeds.forbidden("must not be used inside of resource meta"));
    }
}

fn children(schema: &Node<'_>, place: &Place, out: &mut Findings) {
    let below = Place { is_root: false, ..place.clone() };
    let mut inside_more = below.clone();
    if place.is_in_metadata {
        let reason = "inside additionalProperties applying to object metadata";
        inside_more.no_default = Some(reason.to_owned());
    }
    validate(&schema.get("additionalProperties"), &inside_more, out);
    let is_object = place.is_root || schema.get("x-kubernetes-embedded-resource").is_true();
    for (name, property) in schema.get("properties").entries() {
        let mut below = below.clone();
        if is_object && matches!(name, "metadata" | "kind" | "apiVersion") {
            below.is_in_metadata = true;
            if place.is_root {
                below.no_default = Some(format!("in top-level {name}"));
            }
        }
        validate(&property, &below, out);
    }
    validate(&schema.get("not"), &below, out);
    for list in ["allOf", "oneOf", "anyOf"] {
        schema.get(list).items().for_each(|item| validate(&item, &below, out));
    }
    schema.get("definitions").entries().for_each(|(_, item)| validate(&item, &below, out));
    let items = schema.get("items");
    validate(&items, &below, out);
    items.items().for_each(|item| validate(&item, &below, out));
}

fn lists(schema: &Node<'_>, out: &mut Findings) {
    let list_type = schema.get("x-kubernetes-list-type");
    if !list_type.is_set() {
        return;
    }
    typed(schema, "array", "must be array if x-kubernetes-list-type is specified", out);
    let items = schema.get("items");
    if schema.get("type").text() == "array" && list_type.text() == "set" && items.value.is_object()
    {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let (list, map) = (items.get("x-kubernetes-list-type"), items.get("x-kubernetes-map-type"));
        match items.get("type").text() {
            "array" if list.is_set() && list.text() != "atomic" => out.push(list.invalid(detail)),
            "object" if map.text() != "atomic" => out.push(map.invalid(detail)),
            _ => {}
        }
    }
    list_type.one_of(&["atomic", "set", "map"], out);
}

fn list_map_keys(schema: &Node<'_>, out: &mut Findings) {
    let list_type = schema.get("x-kubernetes-list-type");
    let keys = schema.get("x-kubernetes-list-map-keys");
    if keys.len() > 0 {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        if !list_type.is_set() {
            out.push(FieldError::required(&list_type.path, detail));
        } else if list_type.text() != "map" {
            out.push(list_type.invalid(detail));
        }
    }
    if list_type.text() != "map" {
        return;
    }
    if keys.len() == 0 {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        out.push(FieldError::required(&keys.path, detail));
    }
    let items = schema.get("items");
    if !items.is_set() {
        let detail = "must have a schema if x-kubernetes-list-type is map";
        out.push(FieldError::required(&items.path, detail));
        return;
    }
    if items.value.is_array() {
        out.push(items.invalid("must only have a single schema if x-kubernetes-list-type is map"));
        return;
    }
    let ty = items.get("type");
    if ty.text() != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        out.push(ty.invalid_text(detail));
        return;
    }
    let mut seen = BTreeSet::new();
    for key in keys.items() {
        match items.get("properties").entries().find(|(name, _)| *name == key.text()) {
            Some((_, property)) => {
                if matches!(property.get("type").text(), "array" | "object") {
                    let path = property.path.child("type");
                    let detail =
                        "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    out.push(ty.under(path).invalid(detail));
                }
            }
            None => out.push(keys.invalid("entries must all be names of item properties")),
        }
        if !seen.insert(key.text()) {
            out.push(keys.invalid("must not contain duplicate entries"));
        }
    }
}

/// Items of sets and maps are there, and maps know their keys.
fn item_values(schema: &Node<'_>, out: &mut Findings) {
    let (list_type, items) = (schema.get("x-kubernetes-list-type"), schema.get("items"));
    if !matches!(list_type.text(), "set" | "map") || !items.value.is_object() {
        return;
    }
    if items.get("nullable").is_true() {
        let detail =
            format!("cannot be nullable when x-kubernetes-list-type is {}", list_type.text());
        out.push(items.get("nullable").forbidden(detail));
    }
    if list_type.text() != "map" {
        return;
    }
    for key in schema.get("x-kubernetes-list-map-keys").items() {
        let mut properties = items.get("properties").entries();
        let Some((_, property)) = properties.find(|(name, _)| *name == key.text()) else {
            continue;
        };
        let is_required = items.get("required").items().any(|name| name.text() == key.text());
        let default = property.get("default");
        if !is_required && !default.is_set() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default \
                          or be a required property";
            out.push(FieldError::required(&default.path, detail));
        }
        let nullable = property.get("nullable");
        if nullable.is_true() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            out.push(nullable.forbidden(detail));
        }
    }
}

fn rule(rule: &Node<'_>, schema: &Node<'_>, out: &mut Findings) {
    let has_breaks = |text: &str| text.contains(['\n', '\r']);
    let (expression, message) = (rule.get("rule"), rule.get("message"));
    let (shown, text) = (expression.text().trim(), message.text().trim());
    if shown.is_empty() {
        out.push(FieldError::required(&expression.path, "rule is not specified"));
    }
    if !message.text().is_empty() && text.is_empty() {
        out.push(message.invalid("must be non-empty if specified"));
    } else if has_breaks(text) {
        out.push(message.invalid("must not contain line breaks"));
    } else if has_breaks(shown) && text.is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        out.push(FieldError::required(&message.path, detail));
    }
    let from = rule.get("messageExpression");
    if !from.text().is_empty() && from.text().trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        out.push(FieldError::required(&from.path, detail));
    }
    rule.get("reason").one_of(&RULE_REASONS, out);
    let path = rule.get("fieldPath");
    if path.text().is_empty() {
        return;
    }
    if path.text().trim().is_empty() {
        out.push(path.invalid("must be non-empty if specified"));
    } else if has_breaks(path.text()) {
        out.push(path.invalid("must not contain line breaks"));
    } else if !path.text().contains('[') && selectable::find(path.text(), schema).is_err() {
        out.push(path.invalid("must be a valid path"));
    }
}
