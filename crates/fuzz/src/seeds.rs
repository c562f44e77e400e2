//! Objects of every kind with every field set, made from the tables.

use meta::GroupVersionKind;
use schema::{Field, FieldValidation, Kind, Type, registry};
use serde_json::{Map, Value, json};

/// Structs within each other; what is further down is left out.
const DEPTH: usize = 7;

/// The kinds that have objects or reviews: name and table, in a fixed order.
pub fn kinds() -> Vec<(GroupVersionKind, &'static Type)> {
    let types = registry().types().filter(|ty| ty.has_type_meta());
    let named = types.map(|ty| (GroupVersionKind::new(&*ty.group, &*ty.version, ty.name()), ty));
    named.filter(|(gvk, _)| registry().kind(gvk).is_some()).collect()
}

/// An object of a kind, as clients send it.
pub fn object(gvk: &GroupVersionKind, ty: &Type) -> Value {
    let mut object = members(ty, 0);
    object.insert("kind".to_owned(), json!(gvk.kind));
    object.insert("apiVersion".to_owned(), json!(gvk.group_version().to_string()));
    Value::Object(object)
}

/// The same as a working form.
pub fn working(gvk: &GroupVersionKind, ty: &Type) -> Option<Value> {
    let text = object(gvk, ty).to_string();
    schema::decode_json(ty, text.as_bytes(), FieldValidation::Ignore).ok().map(|it| it.value)
}

fn members(ty: &Type, depth: usize) -> Map<String, Value> {
    let fields = ty.fields().iter().filter(|field| !matches!(&*field.name, "kind" | "apiVersion"));
    fields.filter_map(|field| Some((field.name.to_string(), of_field(field, depth)?))).collect()
}

fn of_field(field: &Field, depth: usize) -> Option<Value> {
    value(&field.kind, depth)
}

fn value(kind: &Kind, depth: usize) -> Option<Value> {
    Some(match kind {
        Kind::String => json!("a"),
        Kind::Bool => json!(true),
        Kind::Int32 | Kind::Int64 | Kind::IntOrString => json!(1),
        Kind::Float64 => json!(1.5),
        Kind::Bytes => json!("YQ=="),
        Kind::Quantity => json!("1500m"),
        Kind::Time => json!("2026-01-01T00:00:00Z"),
        Kind::MicroTime => json!("2026-01-01T00:00:00.000001Z"),
        Kind::Duration => json!("1h0m0s"),
        Kind::RawExtension => json!({"kind": "A", "apiVersion": "b/v1"}),
        Kind::Json => json!({"a": [1]}),
        Kind::FieldsV1 => json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}),
        Kind::SchemaOrBool(_) | Kind::SchemaOrArray(_) | Kind::SchemaOrStrings(_) => {
            json!({"type": "string"})
        }
        Kind::WrappedStrings => json!(["a"]),
        Kind::Struct(inner) if depth < DEPTH => Value::Object(members(inner.get(), depth + 1)),
        Kind::List(item) => json!([value(item, depth + 1)?]),
        Kind::Map(item) => json!({"a": value(item, depth + 1)?}),
        Kind::Struct(_) | Kind::Marked(_) | Kind::Deduced => return None,
    })
}
