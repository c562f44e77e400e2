//! A v3 document in protobuf, as the messages of `openapi.v3` in the gnostic project have it.
//!
//! Whatever may be a reference or the thing itself is a message with a field for either.

use serde_json::{Value, json};

use super::{Message, any, extension, items, map, members, parsed, unknown};
use crate::{Parts, bearer_token, info};

/// `Document`.
pub(crate) fn encode(parts: &Parts) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &Value::from("3.0.0"));
    let mut about = Message::default();
    about.text(1, &info()["title"]);
    about.text(6, &info()["version"]);
    out.message(2, &about);
    out.message(4, &parsed(&parts.paths, 1, path_item));
    let mut components = Message::default();
    components.message(1, &parsed(&parts.schemas, 1, schema_or_reference));
    components.message(7, &map(&json!({"BearerToken": bearer_token()}), security));
    out.message(5, &components);
    out.0
}

/// `SecuritySchemeOrReference`.
fn security(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, number) in [("type", 1), ("description", 2), ("name", 3), ("in", 4)] {
        out.text(number, &value[key]);
    }
    Message::around(1, &out)
}

/// `PathItem`.
fn path_item(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match key.as_str() {
            "get" => out.message(4, &operation(value)),
            "put" => out.message(5, &operation(value)),
            "post" => out.message(6, &operation(value)),
            "delete" => out.message(7, &operation(value)),
            "patch" => out.message(10, &operation(value)),
            "parameters" => items(value).for_each(|item| out.message(13, &parameter(item))),
            _ => extension(&mut out, 14, key, value),
        }
    }
    out
}

fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match key.as_str() {
            "tags" => items(value).for_each(|item| out.text(1, item)),
            "description" => out.text(3, value),
            "operationId" => out.text(5, value),
            "parameters" => items(value).for_each(|item| out.message(6, &parameter(item))),
            "requestBody" => out.message(7, &Message::around(1, &request_body(value))),
            "responses" => {
                let mut all = Message::default();
                for (code, value) in members(value) {
                    all.named(2, code, &Message::around(1, &response(value)));
                }
                out.message(8, &all);
            }
            "deprecated" => out.boolean(10, value),
            _ => extension(&mut out, 13, key, value),
        }
    }
    out
}

/// `ParameterOrReference`.
fn parameter(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match key.as_str() {
            "name" => out.text(1, value),
            "in" => out.text(2, value),
            "description" => out.text(3, value),
            "required" => out.boolean(4, value),
            "schema" => out.message(10, &schema_or_reference(value)),
            _ => extension(&mut out, 14, key, value),
        }
    }
    Message::around(1, &out)
}

fn request_body(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match key.as_str() {
            "description" => out.text(1, value),
            "content" => out.message(2, &map(value, media_type)),
            "required" => out.boolean(3, value),
            _ => extension(&mut out, 4, key, value),
        }
    }
    out
}

fn response(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match key.as_str() {
            "description" => out.text(1, value),
            "content" => out.message(3, &map(value, media_type)),
            _ => extension(&mut out, 5, key, value),
        }
    }
    out
}

fn media_type(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match key.as_str() {
            "schema" => out.message(1, &schema_or_reference(value)),
            _ => extension(&mut out, 5, key, value),
        }
    }
    out
}

/// `SchemaOrReference`.
fn schema_or_reference(value: &Value) -> Message {
    match value.get("$ref") {
        Some(reference) => {
            let mut out = Message::default();
            out.text(1, reference);
            Message::around(2, &out)
        }
        None => Message::around(1, &schema(value)),
    }
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match key.as_str() {
            "nullable" => out.boolean(1, value),
            "example" => out.message(7, &any(value)),
            "title" => out.text(9, value),
            "multipleOf" => out.double(10, value),
            "maximum" => out.double(11, value),
            "exclusiveMaximum" => out.boolean(12, value),
            "minimum" => out.double(13, value),
            "exclusiveMinimum" => out.boolean(14, value),
            "maxLength" => out.integer(15, value),
            "minLength" => out.integer(16, value),
            "pattern" => out.text(17, value),
            "maxItems" => out.integer(18, value),
            "minItems" => out.integer(19, value),
            "uniqueItems" => out.boolean(20, value),
            "maxProperties" => out.integer(21, value),
            "minProperties" => out.integer(22, value),
            "required" => items(value).for_each(|item| out.text(23, item)),
            "enum" => items(value).for_each(|item| out.message(24, &any(item))),
            "type" => out.text(25, value),
            "allOf" => items(value).for_each(|item| out.message(26, &schema_or_reference(item))),
            "oneOf" => items(value).for_each(|item| out.message(27, &schema_or_reference(item))),
            "anyOf" => items(value).for_each(|item| out.message(28, &schema_or_reference(item))),
            "not" => out.message(29, &schema(value)),
            "items" => out.message(30, &Message::around(1, &schema_or_reference(value))),
            "properties" => out.message(31, &map(value, schema_or_reference)),
            "additionalProperties" => out.message(32, &additional_properties(value)),
            "default" => out.message(33, &default(value)),
            "description" => out.text(34, value),
            "format" => out.text(35, value),
            // The messages have no place for it, and upstream's loses it too.
            "externalDocs" => {}
            _ if key.starts_with("x-") => extension(&mut out, 36, key, value),
            _ => unknown(key),
        }
    }
    out
}

/// `AdditionalPropertiesItem`.
fn additional_properties(value: &Value) -> Message {
    match value {
        Value::Bool(_) => {
            let mut out = Message::default();
            out.boolean(2, value);
            out
        }
        _ => Message::around(1, &schema_or_reference(value)),
    }
}

/// `DefaultType`: of what is no scalar, nothing is left.
fn default(value: &Value) -> Message {
    let mut out = Message::default();
    match value {
        Value::Number(_) => out.double(1, value),
        Value::Bool(_) => out.boolean(2, value),
        Value::String(_) => out.text(3, value),
        _ => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use schema::registry;

    use super::super::tests::{entry, field, read};
    use super::*;

    #[test]
    fn a_document_says_the_same_in_both_forms() {
        let group = registry().groups().iter().find(|group| group.name == "apps").unwrap();
        let parts = Parts::v3(group, &group.versions[0]);
        let json: Value = serde_json::from_str(&parts.v3_text()).unwrap();
        let bytes = encode(&parts);
        assert_eq!(field(&bytes, &[1]), b"3.0.0");
        assert_eq!(field(&bytes, &[2, 1]), b"Kubernetes");
        assert_eq!(read(field(&bytes, &[4])).len(), json["paths"].as_object().unwrap().len());
        let schemas = field(&bytes, &[5, 1]);
        let expected = json["components"]["schemas"].as_object().unwrap();
        assert_eq!(read(schemas).len(), expected.len());
        let deployment = field(entry(schemas, 1, "io.k8s.api.apps.v1.Deployment"), &[1]);
        let text = expected["io.k8s.api.apps.v1.Deployment"]["description"].as_str().unwrap();
        assert_eq!(field(deployment, &[34]), text.as_bytes());
        let spec = field(entry(field(deployment, &[31]), 1, "spec"), &[1]);
        let reference = b"#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec";
        assert_eq!(field(spec, &[26, 2, 1]), reference);
        let strategy = field(entry(schemas, 1, "io.k8s.api.apps.v1.DeploymentStrategy"), &[1]);
        let kind = field(entry(field(strategy, &[31]), 1, "type"), &[1]);
        assert_eq!(field(kind, &[24, 2]), b"\"Recreate\"\n");
        let item = entry(field(&bytes, &[4]), 1, "/apis/apps/v1/deployments");
        assert_eq!(field(item, &[4, 5]), b"listAppsV1DeploymentForAllNamespaces");
        assert_eq!(field(item, &[4, 8, 2, 1]), b"200");
    }
}
