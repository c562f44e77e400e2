//! The v2 document in protobuf, as the messages of `openapi.v2` in the gnostic project have it.
//!
//! Older clients ask for this form alone. Maps are lists of named values there, and whatever has no
//! fixed shape (extensions and defaults) is a text of YAML; ours is JSON, which is YAML too.
//!
//! Every key that [`Parts::v2`] makes must be known here; tests run with the assertion that
//! says so.

pub(crate) mod v3;

use serde_json::{Map, Value, json};

use crate::{Parts, Texts, bearer_token, info};

type Object = Map<String, Value>;

/// `Document`.
pub(crate) fn encode(parts: &Parts) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &Value::from("2.0"));
    out.message(2, &texts(&info(), &[("title", 1), ("version", 2)]));
    // The extensions of the paths come first, as field 1.
    out.message(8, &parsed(&parts.paths, 2, path_item));
    out.message(9, &parsed(&parts.schemas, 1, schema));
    out.message(12, &map(&json!({"BearerToken": []}), |scopes| strings(scopes, 1)));
    out.message(13, &map(&json!({"BearerToken": bearer_token()}), security));
    out.0
}

/// A map of texts, of which one at a time is looked into.
fn parsed(of: &Texts, number: u32, each: impl Fn(&Value) -> Message) -> Message {
    let mut out = Message::default();
    for (name, text) in of {
        let value = serde_json::from_str(text).unwrap_or_default();
        out.named(number, name, &each(&value));
    }
    out
}

/// `SecurityDefinitionsItem`: an API key is the second of its kinds.
fn security(value: &Value) -> Message {
    let key = texts(value, &[("type", 1), ("name", 2), ("in", 3), ("description", 4)]);
    Message::around(2, &key)
}

/// `PathItem`.
fn path_item(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match key.as_str() {
            "get" => out.message(2, &operation(value)),
            "put" => out.message(3, &operation(value)),
            "post" => out.message(4, &operation(value)),
            "delete" => out.message(5, &operation(value)),
            "patch" => out.message(8, &operation(value)),
            "parameters" => items(value).for_each(|item| out.message(9, &parameter(item))),
            _ => extension(&mut out, 10, key, value),
        }
    }
    out
}

/// `Operation`.
fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match key.as_str() {
            "tags" => items(value).for_each(|item| out.text(1, item)),
            "description" => out.text(3, value),
            "operationId" => out.text(5, value),
            "produces" => items(value).for_each(|item| out.text(6, item)),
            "consumes" => items(value).for_each(|item| out.text(7, item)),
            "parameters" => items(value).for_each(|item| out.message(8, &parameter(item))),
            "responses" => {
                let mut responses = Message::default();
                named(&mut responses, 1, value, response);
                out.message(9, &responses);
            }
            "schemes" => items(value).for_each(|item| out.text(10, item)),
            _ => extension(&mut out, 13, key, value),
        }
    }
    out
}

/// `ParametersItem`, around `Parameter`, around one of its kinds.
fn parameter(value: &Value) -> Message {
    let parameter = match value["in"].as_str() {
        Some("body") => Message::around(1, &body_parameter(value)),
        Some("path") => {
            // `type` and `format` are one lower than in a query, which may allow empty values.
            let fields = [("type", 5), ("format", 6), ("uniqueItems", 19)];
            Message::around(2, &Message::around(4, &plain_parameter(value, &fields)))
        }
        _ => {
            let fields = [("type", 6), ("format", 7), ("uniqueItems", 20)];
            Message::around(2, &Message::around(3, &plain_parameter(value, &fields)))
        }
    };
    Message::around(1, &parameter)
}

/// `BodyParameter`.
fn body_parameter(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match key.as_str() {
            "description" => out.text(1, value),
            "name" => out.text(2, value),
            "in" => out.text(3, value),
            "required" => out.boolean(4, value),
            "schema" => out.message(5, &schema(value)),
            // The message has no place for it.
            "uniqueItems" => {}
            _ => extension(&mut out, 6, key, value),
        }
    }
    out
}

/// `QueryParameterSubSchema` or `PathParameterSubSchema`.
fn plain_parameter(value: &Value, fields: &[(&str, u32)]) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        let number = fields.iter().find(|(name, _)| name == key).map(|(_, number)| *number);
        match (key.as_str(), number) {
            ("required", _) => out.boolean(1, value),
            ("in", _) => out.text(2, value),
            ("description", _) => out.text(3, value),
            ("name", _) => out.text(4, value),
            ("uniqueItems", Some(number)) => out.boolean(number, value),
            (_, Some(number)) => out.text(number, value),
            _ => unknown(key),
        }
    }
    out
}

/// `ResponseValue` around `Response`.
fn response(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match key.as_str() {
            "description" => out.text(1, value),
            "schema" => out.message(2, &Message::around(1, &schema(value))),
            _ => extension(&mut out, 5, key, value),
        }
    }
    Message::around(1, &out)
}

/// `Schema`.
fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match key.as_str() {
            "$ref" => out.text(1, value),
            "format" => out.text(2, value),
            "description" => out.text(4, value),
            "enum" => items(value).for_each(|item| out.message(20, &any(item))),
            "required" => items(value).for_each(|item| out.text(19, item)),
            "additionalProperties" => out.message(21, &Message::around(1, &schema(value))),
            "type" => {
                let mut kinds = Message::default();
                kinds.text(1, value);
                out.message(22, &kinds);
            }
            "items" => out.message(23, &Message::around(1, &schema(value))),
            "properties" => out.message(25, &map(value, schema)),
            _ => extension(&mut out, 31, key, value),
        }
    }
    out
}

/// A message of fields that are all texts.
fn texts(value: &Value, fields: &[(&str, u32)]) -> Message {
    let mut out = Message::default();
    for (key, value) in members(value) {
        match fields.iter().find(|(name, _)| name == key) {
            Some((_, number)) => out.text(*number, value),
            None => unknown(key),
        }
    }
    out
}

fn strings(value: &Value, number: u32) -> Message {
    let mut out = Message::default();
    items(value).for_each(|item| out.text(number, item));
    out
}

/// A message that is nothing but a map.
fn map(value: &Value, each: impl Fn(&Value) -> Message) -> Message {
    let mut out = Message::default();
    named(&mut out, 1, value, each);
    out
}

/// The members of an object as messages of a name and a value.
fn named(out: &mut Message, number: u32, value: &Value, each: impl Fn(&Value) -> Message) {
    for (name, value) in members(value) {
        out.named(number, name, &each(value));
    }
}

/// `NamedAny` around `Any`, for the keys that begin with `x-`.
fn extension(out: &mut Message, number: u32, key: &str, value: &Value) {
    if !key.starts_with("x-") {
        return unknown(key);
    }
    out.named(number, key, &any(value));
}

/// `Any`: a text of YAML.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, format!("{value}\n").as_bytes());
    out
}

fn unknown(key: &str) {
    debug_assert!(false, "{key:?} has no place in the protobuf form");
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Object::iter)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// A message whose only field is another one.
    fn around(number: u32, inner: &Self) -> Self {
        let mut out = Self::default();
        out.message(number, inner);
        out
    }

    /// A message of a name and a value.
    fn named(&mut self, number: u32, name: &str, value: &Self) {
        let mut entry = Self::default();
        entry.bytes(1, name.as_bytes());
        entry.message(2, value);
        self.message(number, &entry);
    }

    fn text(&mut self, number: u32, value: &Value) {
        self.bytes(number, value.as_str().unwrap_or_default().as_bytes());
    }

    fn message(&mut self, number: u32, inner: &Self) {
        self.bytes(number, &inner.0);
    }

    fn boolean(&mut self, number: u32, value: &Value) {
        if value.as_bool() == Some(true) {
            self.varint(u64::from(number) << 3);
            self.varint(1);
        }
    }

    /// A number as a double.
    fn double(&mut self, number: u32, value: &Value) {
        self.varint(u64::from(number) << 3 | 1);
        self.0.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
    }

    /// A number as an `int64`.
    fn integer(&mut self, number: u32, value: &Value) {
        self.varint(u64::from(number) << 3);
        self.varint(value.as_i64().unwrap_or_default().cast_unsigned());
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a message that hold texts or messages.
    pub(super) fn read(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            if key & 7 == 1 {
                bytes = &bytes[8..];
                continue;
            }
            let length = varint(&mut bytes);
            if key & 7 == 2 {
                let (value, rest) = bytes.split_at(usize::try_from(length).unwrap());
                fields.push((key >> 3, value));
                bytes = rest;
            }
        }
        fields
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }

    pub(super) fn field<'a>(bytes: &'a [u8], path: &[u64]) -> &'a [u8] {
        path.iter().fold(bytes, |bytes, number| {
            read(bytes).into_iter().find(|(found, _)| found == number).unwrap().1
        })
    }

    pub(super) fn entry<'a>(map: &'a [u8], number: u64, name: &str) -> &'a [u8] {
        let entries = read(map).into_iter().filter(|(found, _)| *found == number);
        let mut entries = entries.map(|(_, entry)| entry);
        field(entries.find(|entry| field(entry, &[1]) == name.as_bytes()).unwrap(), &[2])
    }

    #[test]
    fn the_document_says_the_same_in_both_forms() {
        let parts = Parts::v2(&());
        let json: Value = serde_json::from_str(&parts.v2_text()).unwrap();
        let bytes = encode(&parts);
        assert_eq!(field(&bytes, &[1]), b"2.0");
        assert_eq!(field(&bytes, &[2, 1]), b"Kubernetes");
        let definitions = field(&bytes, &[9]);
        assert_eq!(read(definitions).len(), json["definitions"].as_object().unwrap().len());
        let pod = entry(definitions, 1, "io.k8s.api.core.v1.Pod");
        let text = json["definitions"]["io.k8s.api.core.v1.Pod"]["description"].as_str().unwrap();
        assert_eq!(field(pod, &[4]), text.as_bytes());
        let spec = entry(field(pod, &[25]), 1, "spec");
        assert_eq!(field(spec, &[1]), b"#/definitions/io.k8s.api.core.v1.PodSpec");
        let kinds: Value = serde_json::from_slice(field(pod, &[31, 2, 2])).unwrap();
        assert_eq!(kinds[0]["kind"], "Pod");
        let paths = field(&bytes, &[8]);
        let item = entry(paths, 2, "/api/v1/namespaces/{namespace}/pods/{name}");
        assert_eq!(field(item, &[2, 5]), b"readCoreV1NamespacedPod");
        assert_eq!(field(item, &[2, 9, 1, 1]), b"200");
    }
}
