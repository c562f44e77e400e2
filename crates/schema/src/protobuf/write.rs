//! The working form into messages, byte for byte as upstream's generated code writes them: fields
//! by number, everything that is not a pointer even when it is zero.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meta::{GroupVersionKind, time};
use serde_json::{Map, Value};

use super::PROTOBUF_MAGIC;
use super::wire::{FIXED64, put_bytes, put_number, put_tag};
use crate::encode::encode_untyped;
use crate::table::{Field, Kind, Type};

pub(super) fn envelope(gvk: &GroupVersionKind, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    put_bytes(1, gvk.group_version().to_string().as_bytes(), &mut meta);
    put_bytes(2, gvk.kind.as_bytes(), &mut meta);
    let mut out = PROTOBUF_MAGIC.to_vec();
    put_bytes(1, &meta, &mut out);
    put_bytes(2, raw, &mut out);
    put_bytes(3, b"", &mut out);
    put_bytes(4, b"", &mut out);
    out
}

pub(super) fn message(ty: &Type, map: &Map<String, Value>, out: &mut Vec<u8>) {
    let fields: Vec<&Field> = ty.by_number().collect();
    level(&fields, 0, map, out);
}

/// Fields of one message; `depth` is how many of their enclosing messages are already open.
fn level(fields: &[&Field], depth: usize, map: &Map<String, Value>, out: &mut Vec<u8>) {
    let mut rest = fields;
    while let Some(first) = rest.first() {
        let Some(enclosing) = first.within.get(depth) else {
            field(first, map.get(&*first.name), out);
            rest = &rest[1..];
            continue;
        };
        let same = rest.iter().take_while(|f| f.within.get(depth) == Some(enclosing)).count();
        let mut inner = Vec::new();
        level(&rest[..same], depth + 1, map, &mut inner);
        put_bytes(*enclosing, &inner, out);
        rest = &rest[same..];
    }
}

fn field(field: &Field, value: Option<&Value>, out: &mut Vec<u8>) {
    let value = value.filter(|value| !value.is_null());
    match (&field.kind, value) {
        (Kind::List(item), Some(Value::Array(items))) => {
            for value in items {
                single(item, field.number, Some(value), out);
            }
        }
        (Kind::Map(item), Some(Value::Object(map))) => {
            for (key, value) in map {
                let mut entry = Vec::new();
                put_bytes(1, key.as_bytes(), &mut entry);
                single(item, 2, Some(value), &mut entry);
                put_bytes(field.number, &entry, out);
            }
        }
        (Kind::List(_) | Kind::Map(_), _) => {}
        (Kind::WrappedStrings | Kind::Bytes, None) => {}
        (_, None) if field.pointer => {}
        (kind, value) => single(kind, field.number, value, out),
    }
}

fn single(kind: &Kind, number: u32, value: Option<&Value>, out: &mut Vec<u8>) {
    let text = || value.and_then(Value::as_str).unwrap_or("");
    let integer = || value.and_then(Value::as_i64).unwrap_or(0);
    match kind {
        Kind::String => put_bytes(number, text().as_bytes(), out),
        Kind::Bool => {
            put_number(number, i64::from(value.and_then(Value::as_bool).unwrap_or(false)), out);
        }
        Kind::Int32 | Kind::Int64 => put_number(number, integer(), out),
        Kind::Float64 => {
            put_tag(number, FIXED64, out);
            let double = value.and_then(Value::as_f64).unwrap_or(0.0);
            out.extend_from_slice(&double.to_bits().to_le_bytes());
        }
        Kind::Bytes => put_bytes(number, &STANDARD.decode(text()).unwrap_or_default(), out),
        _ => {
            let mut inner = Vec::new();
            nested(kind, value, &mut inner);
            put_bytes(number, &inner, out);
        }
    }
}

fn nested(kind: &Kind, value: Option<&Value>, out: &mut Vec<u8>) {
    let text = || value.and_then(Value::as_str).unwrap_or("");
    match kind {
        Kind::Struct(ty) => match value {
            Some(Value::Object(map)) => message(ty.get(), map, out),
            _ => message(ty.get(), &Map::new(), out),
        },
        Kind::Quantity => {
            let zero = if text().is_empty() { "0" } else { text() };
            put_bytes(1, zero.as_bytes(), out);
        }
        Kind::Time | Kind::MicroTime => {
            if let Ok(time) = time::parse(text()) {
                put_number(1, time.as_second(), out);
                // Upstream keeps whole seconds of `Time` and nanoseconds of `MicroTime`.
                let nanos = time.subsec_nanosecond() / 1000 * 1000;
                put_number(2, i64::from(nanos), out);
            }
        }
        Kind::Duration => {
            put_number(1, time::parse_duration(text()).unwrap_or(0), out);
        }
        Kind::IntOrString => {
            let string = value.and_then(Value::as_str);
            put_number(1, i64::from(string.is_some()), out);
            put_number(2, value.and_then(Value::as_i64).unwrap_or(0), out);
            put_bytes(3, string.unwrap_or("").as_bytes(), out);
        }
        Kind::RawExtension | Kind::Json | Kind::FieldsV1 => match (kind, value) {
            (_, None | Some(Value::Null)) => {}
            (Kind::FieldsV1, Some(Value::String(json))) => put_bytes(1, json.as_bytes(), out),
            (_, Some(value)) => {
                let mut json = Vec::new();
                encode_untyped(value, &mut json);
                put_bytes(1, &json, out);
            }
        },
        Kind::WrappedStrings => {
            for item in value.and_then(Value::as_array).into_iter().flatten() {
                put_bytes(1, item.as_str().unwrap_or("").as_bytes(), out);
            }
        }
        Kind::SchemaOrBool(_) | Kind::SchemaOrArray(_) | Kind::SchemaOrStrings(_) => {
            schema_or(kind, value, out);
        }
        _ => {}
    }
}

fn schema_or(kind: &Kind, value: Option<&Value>, out: &mut Vec<u8>) {
    let (Kind::SchemaOrBool(ty) | Kind::SchemaOrArray(ty) | Kind::SchemaOrStrings(ty)) = kind
    else {
        return;
    };
    let schema = |map: &Map<String, Value>, number: u32, out: &mut Vec<u8>| {
        let mut inner = Vec::new();
        message(ty.get(), map, &mut inner);
        put_bytes(number, &inner, out);
    };
    let is_bool = matches!(kind, Kind::SchemaOrBool(_));
    match value {
        Some(Value::Bool(allows)) => put_number(1, i64::from(*allows), out),
        Some(Value::Object(map)) if is_bool => {
            // A schema also allows.
            put_number(1, 1, out);
            schema(map, 2, out);
        }
        Some(Value::Object(map)) => schema(map, 1, out),
        Some(Value::Array(items)) => {
            for item in items {
                match item {
                    Value::Object(map) => schema(map, 2, out),
                    other => put_bytes(2, other.as_str().unwrap_or("").as_bytes(), out),
                }
            }
        }
        _ => {}
    }
}
