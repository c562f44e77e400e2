//! One table per API type, and the codecs it drives.
//!
//! What it is: the tables (`generated/`, made by `cargo xtask codegen` from facts about the API),
//! and everything that is a walk over them: strict decoding from JSON, YAML and protobuf, encoding
//! into canonical JSON and protobuf, defaulting, and the cells of server-side tables.
//!
//! Start reading at [`Type`] (`table.rs`), then [`registry`], then [`decode_json`] and
//! [`encode_json`].
//!
//! Invariants: the working form of an object is a [`serde_json::Value`] in which *absent* and *Go's
//! zero value* are the same: decoding drops nulls, zeros of fields that are not pointers, and empty
//! lists and maps that would not be printed; encoding puts back what upstream prints always. So two
//! working forms are equal exactly when upstream would call the objects semantically equal.
//! Quantities and times in it are canonical. Sets of managed fields are kept as text.
//!
//! What it deliberately does not do: it does not validate (`validation`), patch (`patch`) or print
//! OpenAPI (`openapi`). It does not convert between versions (`apiserver`).
//!
//! Tested by vectors of every kind in JSON and protobuf under `tests/`, by unit tests beside the
//! code, and against a running API server by the conformance corpus.

#![forbid(unsafe_code)]

mod decode;
mod defaults;
mod discovery;
mod encode;
mod printers;
mod protobuf;
mod registry;
mod runtime_config;
mod table;

pub use decode::{
    DecodeError, Decoded, FieldValidation, TypeMeta, check_json_syntax, decode_json,
    decode_untyped, decode_value, decode_yaml, read_type_meta, yaml_to_value,
};
pub use defaults::apply_defaults;
pub use discovery::{Column, ColumnText, FieldSelectors, Group, Resource, Subresource, Version};
pub use encode::{encode_json, encode_untyped, go_escape};
pub use printers::{human_duration, table_row, table_row_conditions};
pub use protobuf::{
    PROTOBUF_MAGIC, ProtobufError, decode_protobuf, decode_protobuf_body, encode_protobuf,
    encode_protobuf_raw, read_envelope,
};
pub use registry::{AlreadyConfigured, Registry, configure, registry};
pub use runtime_config::{RuntimeConfig, RuntimeConfigError};
pub use table::{Field, Kind, ListType, Text, Type, TypeRef};
