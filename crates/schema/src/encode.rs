//! Canonical JSON: upstream's field order, what it always prints, and Go's escapes.

use meta::{Quantity, time};
use serde_json::{Map, Number, Value};

use crate::table::{Field, Kind, Text, Type};

/// Appends the canonical JSON of an object: fields in the table's order, `kind` and `apiVersion`
/// first, maps sorted, empty values left out or put in as the table says.
pub fn encode_json(ty: &Type, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => write_struct(ty, map, out),
        _ => out.extend_from_slice(b"null"),
    }
}

/// Appends JSON without a table, as upstream prints custom resources: keys sorted.
pub fn encode_untyped(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => go_escape(text, out),
        Value::Array(items) => write_list(items, out, encode_untyped),
        Value::Object(map) => write_map(map, out, encode_untyped),
    }
}

/// Appends a string as Go's `encoding/json` prints it, with `<`, `>` and `&` escaped.
pub fn go_escape(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    // Most texts are names, numbers and addresses.
    if bytes.iter().all(|byte| PLAIN[usize::from(*byte)]) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let plain = match byte {
            b'"' | b'\\' | b'<' | b'>' | b'&' | 0..=0x1f => false,
            // U+2028 and U+2029 end a line in JavaScript.
            0xe2 => !matches!(bytes[at..], [0xe2, 0x80, 0xa8 | 0xa9, ..]),
            _ => true,
        };
        if plain {
            continue;
        }
        // The rest of an escaped U+2028 is skipped by `done`.
        out.extend_from_slice(&bytes[done..at]);
        done = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0xe2 => {
                out.extend_from_slice(if bytes[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                done = at + 3;
            }
            byte => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

/// Bytes that stand for themselves wherever they are; `0xe2` may begin a line separator.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut at = 0;
    while at < 0x20 {
        plain[at] = false;
        at += 1;
    }
    let escaped = b"\"\\<>&\xe2";
    at = 0;
    while at < escaped.len() {
        plain[escaped[at] as usize] = false;
        at += 1;
    }
    plain
};

/// Fields of the map in the table's order, merged with those that are always printed.
fn write_struct(ty: &Type, map: &Map<String, Value>, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    let fields = ty.fields();
    let mut present: Vec<(usize, &Value)> = Vec::with_capacity(map.len());
    for (name, value) in map {
        if let Some(position) = ty.position(name) {
            present.push((position, value));
        }
    }
    present.sort_unstable_by_key(|(position, _)| *position);
    let mut present = present.into_iter().peekable();
    let mut always = ty.always_printed_places().peekable();
    loop {
        let next = match (present.peek(), always.peek()) {
            (Some((at, _)), Some(always)) => (*at).min(*always),
            (Some((at, _)), None) => *at,
            (None, Some(always)) => *always,
            (None, None) => break,
        };
        always.next_if_eq(&next);
        let value = present.next_if(|(at, _)| *at == next).map(|(_, value)| value);
        write_field(&fields[next], value, &mut first, out);
    }
    if ty.preserve_unknown {
        for (name, value) in map.iter().filter(|(name, _)| ty.position(name).is_none()) {
            write_name(name, &mut first, out);
            encode_untyped(value, out);
        }
    }
    out.push(b'}');
}

fn write_name(name: &str, first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    go_escape(name, out);
    out.push(b':');
}

/// The name of a field. Those of built-in tables never need escaping.
fn write_field_name(field: &Field, first: &mut bool, out: &mut Vec<u8>) {
    if matches!(field.name, Text::Owned(_)) {
        return write_name(&field.name, first, out);
    }
    out.extend_from_slice(if std::mem::take(first) { b"\"" } else { b",\"" });
    out.extend_from_slice(field.name.as_bytes());
    out.extend_from_slice(b"\":");
}

impl Field {
    /// Whether a value of the field is printed.
    pub fn prints(&self, value: &Value) -> bool {
        let is_value = !value.is_null() || self.nullable || matches!(self.kind, Kind::Json);
        is_value && !is_left_out(self, value)
    }

    /// What is printed when the field is absent: Go's zero, or null for a pointer.
    pub fn printed_zero(&self) -> Option<Value> {
        if self.pointer {
            return if self.omit_empty { None } else { Some(Value::Null) };
        }
        if prints_zero(self) { Some(zero(&self.kind)) } else { None }
    }

    /// Whether something is printed when the field is absent.
    pub fn is_always_printed(&self) -> bool {
        if self.pointer { !self.omit_empty } else { prints_zero(self) }
    }
}

fn zero(kind: &Kind) -> Value {
    match kind {
        Kind::Struct(_) => Value::Object(Map::new()),
        Kind::String => Value::from(""),
        Kind::Bool => Value::from(false),
        Kind::Int32 | Kind::Int64 | Kind::Float64 | Kind::IntOrString => Value::from(0),
        Kind::Quantity => Value::from("0"),
        Kind::Duration => Value::from("0s"),
        _ => Value::Null,
    }
}

fn write_field(field: &Field, value: Option<&Value>, first: &mut bool, out: &mut Vec<u8>) {
    match value.filter(|value| !value.is_null() || matches!(field.kind, Kind::Json)) {
        Some(value) if !is_left_out(field, value) => {
            write_field_name(field, first, out);
            write_value(&field.kind, value, out);
        }
        // Absent is Go's zero value, which some fields print.
        _ if !field.pointer && prints_zero(field) => {
            write_field_name(field, first, out);
            write_zero(&field.kind, out);
        }
        None if field.pointer && !field.omit_empty => {
            write_field_name(field, first, out);
            out.extend_from_slice(b"null");
        }
        _ => {}
    }
}

fn is_left_out(field: &Field, value: &Value) -> bool {
    if !field.omit_empty || field.pointer {
        return false;
    }
    match value {
        Value::String(text) => text.is_empty() && !is_struct_like(&field.kind),
        Value::Bool(on) => !on,
        Value::Number(number) => {
            !matches!(field.kind, Kind::IntOrString) && number.as_f64() == Some(0.0)
        }
        Value::Array(items) => items.is_empty() && !matches!(field.kind, Kind::Json),
        Value::Object(map) => match field.kind {
            Kind::Map(_) => map.is_empty(),
            Kind::Struct(_) => field.omit_zero && map.is_empty(),
            _ => false,
        },
        Value::Null => true,
    }
}

/// Kinds that are structs in Go, which `omitempty` does not touch.
fn is_struct_like(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Struct(_)
            | Kind::Time
            | Kind::MicroTime
            | Kind::Quantity
            | Kind::IntOrString
            | Kind::RawExtension
            | Kind::Json
            | Kind::Duration
            | Kind::FieldsV1
    )
}

fn prints_zero(field: &Field) -> bool {
    if is_struct_like(&field.kind) { !field.omit_zero } else { !field.omit_empty }
}

fn write_zero(kind: &Kind, out: &mut Vec<u8>) {
    match kind {
        Kind::Struct(ty) => write_struct(ty.get(), &Map::new(), out),
        Kind::String => out.extend_from_slice(b"\"\""),
        Kind::Bool => out.extend_from_slice(b"false"),
        Kind::Int32 | Kind::Int64 | Kind::Float64 | Kind::IntOrString => out.push(b'0'),
        Kind::Quantity => out.extend_from_slice(b"\"0\""),
        Kind::Duration => out.extend_from_slice(b"\"0s\""),
        _ => out.extend_from_slice(b"null"),
    }
}

fn write_value(kind: &Kind, value: &Value, out: &mut Vec<u8>) {
    match (kind, value) {
        (Kind::Struct(ty), Value::Object(map)) => write_struct(ty.get(), map, out),
        (Kind::List(item), Value::Array(items)) => {
            write_list(items, out, |value, out| write_value(item, value, out));
        }
        (Kind::Map(item), Value::Object(map)) => {
            write_map(map, out, |value, out| write_value(item, value, out));
        }
        (Kind::SchemaOrBool(ty) | Kind::SchemaOrArray(ty) | Kind::SchemaOrStrings(ty), value) => {
            match value {
                Value::Object(map) => write_struct(ty.get(), map, out),
                Value::Array(items) => write_list(items, out, |value, out| match value {
                    Value::Object(map) => write_struct(ty.get(), map, out),
                    other => encode_untyped(other, out),
                }),
                other => encode_untyped(other, out),
            }
        }
        (Kind::Struct(_) | Kind::List(_) | Kind::Map(_), Value::Null) => write_zero(kind, out),
        (Kind::Quantity, Value::String(text)) => match text.parse::<Quantity>() {
            Ok(quantity) => go_escape(&quantity.to_string(), out),
            Err(_) => go_escape(text, out),
        },
        (Kind::Time, Value::String(text)) if !is_plain_time(text) => {
            go_escape(time::normalize(text).as_deref().unwrap_or(text), out);
        }
        (Kind::MicroTime, Value::String(text)) => {
            go_escape(time::normalize_micro(text).as_deref().unwrap_or(text), out);
        }
        (Kind::FieldsV1, Value::String(json)) => out.extend_from_slice(json.as_bytes()),
        _ => encode_untyped(value, out),
    }
}

/// Whether a time is already in the form that is printed.
fn is_plain_time(text: &str) -> bool {
    text.len() == 20 && text.ends_with('Z')
}

fn write_list(items: &[Value], out: &mut Vec<u8>, write: impl Fn(&Value, &mut Vec<u8>)) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

fn write_map(map: &Map<String, Value>, out: &mut Vec<u8>, write: impl Fn(&Value, &mut Vec<u8>)) {
    out.push(b'{');
    let mut first = true;
    for (name, value) in map {
        write_name(name, &mut first, out);
        write(value, out);
    }
    out.push(b'}');
}

fn write_number(number: &Number, out: &mut Vec<u8>) {
    match number.as_f64() {
        Some(double) if number.is_f64() => out.extend_from_slice(go_float(double).as_bytes()),
        _ => out.extend_from_slice(number.to_string().as_bytes()),
    }
}

/// A double as Go prints it in JSON: plain up to 1e21, an exponent beyond and below 1e-6.
fn go_float(double: f64) -> String {
    let size = double.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{double:e}");
        return match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => {
                format!("{digits}e+{exponent:0>2}")
            }
            Some((digits, exponent)) => format!("{digits}e-{}", &exponent[1..]),
            None => text,
        };
    }
    format!("{double}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;
    use meta::GroupVersionKind;
    use serde_json::json;

    fn check(kind: &str, value: &Value, expected: &str) {
        let ty = registry().kind(&GroupVersionKind::new("", "v1", kind)).unwrap();
        let mut out = Vec::new();
        encode_json(ty, value, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn objects_are_printed_in_upstream_order() {
        check(
            "ConfigMap",
            &json!({"data": {"b": "<&>", "a": "1\u{2028}\u{1}"}, "kind": "ConfigMap",
                "apiVersion": "v1", "metadata": {"namespace": "n", "name": "x"}}),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x","namespace":"n"},"data":{"a":"1\u2028\u0001","b":"\u003c\u0026\u003e"}}"#,
        );
    }

    #[test]
    fn what_go_always_prints_is_put_back() {
        check(
            "Pod",
            &json!({"kind": "Pod", "spec": {"containers": [{"name": "c"}]}}),
            r#"{"kind":"Pod","metadata":{},"spec":{"containers":[{"name":"c","resources":{}}]},"status":{}}"#,
        );
        check(
            "Pod",
            &json!({"spec": {}}),
            r#"{"metadata":{},"spec":{"containers":null},"status":{}}"#,
        );
    }

    #[test]
    fn doubles_are_printed_as_go_prints_them() {
        for (double, expected) in
            [(1.0, "1"), (0.5, "0.5"), (1e21, "1e+21"), (1e-7, "1e-7"), (1.5e300, "1.5e+300")]
        {
            assert_eq!(go_float(double), expected);
        }
    }
}
