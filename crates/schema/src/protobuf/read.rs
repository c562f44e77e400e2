//! Messages into the working form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use meta::{GroupVersionKind, Quantity, time};
use serde_json::{Map, Value};

use super::wire::{BYTES, FIXED64, Reader, VARINT};
use super::{ProtobufError, parse_gvk};
use crate::table::{Field, Kind, Type};

/// As deep as JSON may be nested.
const MAX_DEPTH: usize = 120;

pub(super) fn envelope(bytes: &[u8]) -> Result<(GroupVersionKind, &[u8]), ProtobufError> {
    let mut reader = Reader::new(bytes);
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while let Some((number, wire)) = reader.tag()? {
        match (number, wire) {
            (1, BYTES) => {
                let mut meta = Reader::new(reader.bytes()?);
                while let Some((number, wire)) = meta.tag()? {
                    match (number, wire) {
                        (1, BYTES) => api_version = text(meta.bytes()?),
                        (2, BYTES) => kind = text(meta.bytes()?),
                        _ => meta.skip(wire)?,
                    }
                }
            }
            (2, BYTES) => raw = reader.bytes()?,
            _ => reader.skip(wire)?,
        }
    }
    Ok((parse_gvk(&api_version, &kind)?, raw))
}

pub(super) fn message(ty: &Type, raw: &[u8]) -> Result<Map<String, Value>, ProtobufError> {
    let mut map = Map::new();
    fields(ty, raw, &[], &mut map, 0)?;
    Ok(map)
}

/// The fields of a message, or of one that JSON flattens (`within` is the path to it).
fn fields(
    ty: &Type,
    raw: &[u8],
    within: &[u32],
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Depth);
    }
    let mut reader = Reader::new(raw);
    while let Some((number, wire)) = reader.tag()? {
        let matches = |field: &&Field| field.number == number && *field.within == *within;
        if let Some(field) = ty.by_number().find(matches) {
            let value = map.remove(&*field.name);
            if let Some(value) = read_field(field, value, wire, &mut reader, depth)? {
                map.insert(field.name.clone().into_owned(), value);
            }
            continue;
        }
        let path: Vec<u32> = within.iter().copied().chain([number]).collect();
        if wire == BYTES && ty.embedded().iter().any(|embedded| **embedded == *path) {
            fields(ty, reader.bytes()?, &path, map, depth + 1)?;
        } else {
            reader.skip(wire)?;
        }
    }
    Ok(())
}

/// One occurrence of a field, after what earlier ones left.
fn read_field(
    field: &Field,
    before: Option<Value>,
    wire: u8,
    reader: &mut Reader<'_>,
    depth: usize,
) -> Result<Option<Value>, ProtobufError> {
    match &field.kind {
        Kind::List(item) => {
            let mut items = match before {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            if wire == BYTES && is_varint(item) {
                let mut packed = Reader::new(reader.bytes()?);
                while !packed.is_empty() {
                    items.push(single(item, &field.name, VARINT, &mut packed, depth)?);
                }
            } else {
                items.push(single(item, &field.name, wire, reader, depth)?);
            }
            Ok(Some(Value::Array(items)))
        }
        Kind::Map(item) => {
            let mut map = match before {
                Some(Value::Object(map)) => map,
                _ => Map::new(),
            };
            let (key, value) = entry(item, &field.name, wire, reader, depth)?;
            map.insert(key, value);
            Ok(Some(Value::Object(map)))
        }
        kind => {
            let value = single(kind, &field.name, wire, reader, depth)?;
            Ok(if !field.pointer && is_zero(kind, &value) { None } else { Some(value) })
        }
    }
}

fn is_zero(kind: &Kind, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => {
            text.is_empty()
                || (matches!(kind, Kind::Quantity) && text == "0")
                || (matches!(kind, Kind::Duration) && text == "0s")
        }
        Value::Object(map) => matches!(kind, Kind::Struct(_)) && map.is_empty(),
        Value::Array(items) => matches!(kind, Kind::WrappedStrings) && items.is_empty(),
    }
}

fn is_varint(kind: &Kind) -> bool {
    matches!(kind, Kind::Bool | Kind::Int32 | Kind::Int64)
}

fn entry(
    item: &Kind,
    name: &str,
    wire: u8,
    reader: &mut Reader<'_>,
    depth: usize,
) -> Result<(String, Value), ProtobufError> {
    expect(wire, BYTES, name)?;
    let mut entry = Reader::new(reader.bytes()?);
    let (mut key, mut value) = (String::new(), None);
    while let Some((number, wire)) = entry.tag()? {
        match (number, wire) {
            (1, BYTES) => key = text(entry.bytes()?),
            (2, _) => value = Some(single(item, name, wire, &mut entry, depth)?),
            _ => entry.skip(wire)?,
        }
    }
    let empty = || match item {
        Kind::Struct(_) => Value::Object(Map::new()),
        Kind::Quantity => Value::String("0".to_owned()),
        _ => Value::String(String::new()),
    };
    Ok((key, value.unwrap_or_else(empty)))
}

fn single(
    kind: &Kind,
    name: &str,
    wire: u8,
    reader: &mut Reader<'_>,
    depth: usize,
) -> Result<Value, ProtobufError> {
    let wanted = match kind {
        Kind::Bool | Kind::Int32 | Kind::Int64 => VARINT,
        Kind::Float64 => FIXED64,
        _ => BYTES,
    };
    expect(wire, wanted, name)?;
    match kind {
        Kind::Bool => return Ok(Value::Bool(reader.varint()? != 0)),
        // Go keeps the low 32 bits.
        #[expect(clippy::cast_possible_truncation, reason = "as upstream's generated code does")]
        Kind::Int32 => return Ok(Value::from(reader.varint()? as i32)),
        Kind::Int64 => return Ok(Value::from(reader.varint()?.cast_signed())),
        Kind::Float64 => return Ok(Value::from(f64::from_bits(reader.fixed64()?))),
        _ => {}
    }
    let raw = reader.bytes()?;
    Ok(match kind {
        Kind::Bytes => Value::String(STANDARD.encode(raw)),
        Kind::Struct(ty) => {
            let mut map = Map::new();
            fields(ty.get(), raw, &[], &mut map, depth + 1)?;
            Value::Object(map)
        }
        Kind::Quantity => quantity(raw)?,
        Kind::Time | Kind::MicroTime => instant(kind, raw)?,
        Kind::Duration => {
            let nanos = numbers(raw)?[0].cast_signed();
            Value::String(time::print_duration(nanos))
        }
        Kind::IntOrString => int_or_string(raw)?,
        Kind::RawExtension | Kind::Json => embedded_json(raw)?,
        Kind::FieldsV1 => match embedded_json(raw)? {
            Value::Null => Value::Null,
            json => Value::String(json.to_string()),
        },
        Kind::WrappedStrings => strings(raw, 1)?,
        Kind::SchemaOrBool(_) | Kind::SchemaOrArray(_) | Kind::SchemaOrStrings(_) => {
            schema_or(kind, raw, depth)?
        }
        _ => Value::String(text(raw)),
    })
}

fn expect(wire: u8, wanted: u8, name: &str) -> Result<(), ProtobufError> {
    if wire == wanted {
        return Ok(());
    }
    Err(ProtobufError::WireType { wire, field: name.to_owned() })
}

fn text(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).into_owned()
}

fn quantity(raw: &[u8]) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(raw);
    let mut found = String::new();
    while let Some((number, wire)) = reader.tag()? {
        match (number, wire) {
            (1, BYTES) => found = text(reader.bytes()?),
            _ => reader.skip(wire)?,
        }
    }
    if found.is_empty() {
        return Ok(Value::String("0".to_owned()));
    }
    let parsed: Result<Quantity, _> = found.parse();
    Ok(Value::String(parsed.map_or(found, |quantity| quantity.to_string())))
}

/// The first three varint fields of a message.
fn numbers(raw: &[u8]) -> Result<[u64; 3], ProtobufError> {
    let mut reader = Reader::new(raw);
    let mut found = [0; 3];
    while let Some((number, wire)) = reader.tag()? {
        match (number, wire) {
            (1..=3, VARINT) => found[number as usize - 1] = reader.varint()?,
            _ => reader.skip(wire)?,
        }
    }
    Ok(found)
}

fn instant(kind: &Kind, raw: &[u8]) -> Result<Value, ProtobufError> {
    // An empty message is Go's zero time, which JSON prints as null.
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    let [seconds, nanos, _] = numbers(raw)?;
    let nanos = i32::try_from(nanos.cast_signed()).unwrap_or(0);
    let Ok(time) = Timestamp::new(seconds.cast_signed(), nanos) else { return Ok(Value::Null) };
    Ok(Value::String(match kind {
        Kind::Time => time::rfc3339(time),
        _ => time::rfc3339_micro(time),
    }))
}

fn int_or_string(raw: &[u8]) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(raw);
    let (mut is_string, mut number, mut string) = (false, 0_i32, String::new());
    while let Some((field, wire)) = reader.tag()? {
        match (field, wire) {
            (1, VARINT) => is_string = reader.varint()? == 1,
            #[expect(clippy::cast_possible_truncation, reason = "as upstream's generated code")]
            (2, VARINT) => number = reader.varint()? as i32,
            (3, BYTES) => string = text(reader.bytes()?),
            _ => reader.skip(wire)?,
        }
    }
    Ok(if is_string { Value::String(string) } else { Value::from(number) })
}

fn embedded_json(raw: &[u8]) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(raw);
    let mut json: &[u8] = b"";
    while let Some((number, wire)) = reader.tag()? {
        match (number, wire) {
            (1, BYTES) => json = reader.bytes()?,
            _ => reader.skip(wire)?,
        }
    }
    if json.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(json).map_err(|error| ProtobufError::Json(error.to_string()))
}

fn strings(raw: &[u8], wanted: u32) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(raw);
    let mut items = Vec::new();
    while let Some((number, wire)) = reader.tag()? {
        if number == wanted && wire == BYTES {
            items.push(Value::String(text(reader.bytes()?)));
        } else {
            reader.skip(wire)?;
        }
    }
    Ok(Value::Array(items))
}

fn schema_or(kind: &Kind, raw: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let (Kind::SchemaOrBool(ty) | Kind::SchemaOrArray(ty) | Kind::SchemaOrStrings(ty)) = kind
    else {
        return Ok(Value::Null);
    };
    let mut reader = Reader::new(raw);
    let (mut allows, mut single, mut list) = (false, None, Vec::new());
    while let Some((number, wire)) = reader.tag()? {
        let is_schema = matches!(
            (kind, number),
            (Kind::SchemaOrBool(_), 2)
                | (Kind::SchemaOrArray(_), 1 | 2)
                | (Kind::SchemaOrStrings(_), 1)
        );
        if is_schema && wire == BYTES {
            let mut map = Map::new();
            fields(ty.get(), reader.bytes()?, &[], &mut map, depth + 1)?;
            let schema = Value::Object(map);
            if number == 2 && matches!(kind, Kind::SchemaOrArray(_)) {
                list.push(schema);
            } else {
                single = Some(schema);
            }
        } else if number == 1 && wire == VARINT {
            allows = reader.varint()? != 0;
        } else if number == 2 && wire == BYTES {
            list.push(Value::String(text(reader.bytes()?)));
        } else {
            reader.skip(wire)?;
        }
    }
    Ok(match (single, kind) {
        (Some(schema), _) => schema,
        (None, Kind::SchemaOrBool(_)) => Value::Bool(allows),
        (None, _) => Value::Array(list),
    })
}
