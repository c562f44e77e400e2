//! Protobuf: the `k8s\0` envelope and the messages in it.
//!
//! The envelope is the four bytes [`PROTOBUF_MAGIC`] and a message `Unknown`: type meta (1, with
//! apiVersion 1 and kind 2), raw (2), content encoding (3) and content type (4).

mod read;
mod wire;
mod write;

use meta::{GroupVersion, GroupVersionKind};
use serde_json::Value;

use crate::registry;
use crate::table::Type;

/// What a protobuf body starts with.
pub const PROTOBUF_MAGIC: [u8; 4] = *b"k8s\0";

/// Why bytes are not an object in protobuf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The magic is missing.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Magic,
    /// There is nothing behind the magic.
    #[error("empty body")]
    Empty,
    /// A message ends in the middle.
    #[error("unexpected EOF")]
    UnexpectedEnd,
    /// A field has a wire type that its table does not have.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WireType {
        /// The wire type found.
        wire: u8,
        /// The field.
        field: String,
    },
    /// A varint is too long.
    #[error("proto: integer overflow")]
    Overflow,
    /// A tag is not one.
    #[error("proto: illegal tag {0} (wire type {1})")]
    Tag(u64, u8),
    /// The kind has no table.
    #[error("no kind \"{}\" is registered for version \"{}\"", .0.kind, .0.group_version())]
    UnknownKind(GroupVersionKind),
    /// The API version is not one.
    #[error("unexpected GroupVersion string: {0}")]
    ApiVersion(String),
    /// Embedded JSON is not JSON.
    #[error("embedded JSON is malformed: {0}")]
    Json(String),
    /// Messages are nested too deeply.
    #[error("proto: exceeded max depth")]
    Depth,
}

/// Decodes an envelope and the object in it into the working form.
///
/// # Errors
/// When the envelope or the message is malformed, or the kind is not known.
pub fn decode_protobuf(bytes: &[u8]) -> Result<(GroupVersionKind, Value), ProtobufError> {
    let (gvk, raw) = read_envelope(bytes)?;
    let known = registry().kind(&gvk);
    let ty = known.ok_or_else(|| ProtobufError::UnknownKind(gvk.clone()))?;
    let value = decode_protobuf_body(ty, &gvk, raw)?;
    Ok((gvk, value))
}

/// Reads the envelope: the kind it names and the message in it.
///
/// # Errors
/// When the envelope is malformed.
pub fn read_envelope(bytes: &[u8]) -> Result<(GroupVersionKind, &[u8]), ProtobufError> {
    let body = bytes.strip_prefix(&PROTOBUF_MAGIC).ok_or(ProtobufError::Magic)?;
    if body.is_empty() {
        return Err(ProtobufError::Empty);
    }
    read::envelope(body)
}

/// Decodes a message without its envelope; the kind is put in.
///
/// # Errors
/// When the message is malformed.
pub fn decode_protobuf_body(
    ty: &Type,
    gvk: &GroupVersionKind,
    raw: &[u8],
) -> Result<Value, ProtobufError> {
    let mut map = read::message(ty, raw)?;
    if ty.has_type_meta() {
        map.insert("kind".to_owned(), Value::String(gvk.kind.clone()));
        map.insert("apiVersion".to_owned(), Value::String(gvk.group_version().to_string()));
    }
    Ok(Value::Object(map))
}

/// Encodes an object with its envelope. Kinds without a table have an empty message.
pub fn encode_protobuf(gvk: &GroupVersionKind, value: &Value) -> Vec<u8> {
    let mut raw = Vec::new();
    if let Some(ty) = registry().kind(gvk) {
        raw = encode_protobuf_raw(ty, value);
    }
    write::envelope(gvk, &raw)
}

/// Encodes an object's message without an envelope.
pub fn encode_protobuf_raw(ty: &Type, value: &Value) -> Vec<u8> {
    let mut raw = Vec::new();
    if let Value::Object(map) = value {
        write::message(ty, map, &mut raw);
    }
    raw
}

pub(crate) fn parse_gvk(api_version: &str, kind: &str) -> Result<GroupVersionKind, ProtobufError> {
    let version = GroupVersion::parse(api_version)
        .ok_or_else(|| ProtobufError::ApiVersion(api_version.to_owned()))?;
    Ok(GroupVersionKind::new(version.group, version.version, kind))
}

#[cfg(test)]
mod tests;
