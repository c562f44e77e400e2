//! A schema as a table of crate `schema`, by which fields are owned and configurations applied.
//!
//! Structs are what has properties, maps what has further members; what the schema does not speak of
//! is merged as it comes.

use std::sync::{Arc, LazyLock};

use schema::{Field, Kind, ListType as Listed, Text, Type, TypeRef};

use crate::structural::{Additional, JsonType, ListType, Structural};

/// How objects of custom resources are written: their kind first, then metadata as every object has
/// it, then all else as it is.
pub fn wire() -> &'static Type {
    static WIRE: LazyLock<Type> = LazyLock::new(|| {
        let mut table = Type::new("custom/v1.Object", head());
        table.preserve_unknown = true;
        table
    });
    &WIRE
}

/// The table of whole objects.
pub(crate) fn table(group: &str, version: &str, kind: &str, root: &Structural) -> Type {
    let mut fields = head();
    let named = root
        .properties
        .iter()
        .filter(|(name, _)| !matches!(&**name, "apiVersion" | "kind" | "metadata"));
    fields.extend(named.map(|(name, property)| field(name, property)));
    let mut table = Type::new(format!("{group}/{version}.{kind}"), fields);
    table.group = Text::Owned(group.to_owned());
    table.version = Text::Owned(version.to_owned());
    table.preserve_unknown = root.preserves_unknown;
    table
}

fn head() -> Vec<Field> {
    let mut fields = vec![Field::new("apiVersion", Kind::String), Field::new("kind", Kind::String)];
    // Every kind has the same; this one is built in.
    let pod = schema::registry().type_named("core/v1.Pod");
    fields.extend(pod.and_then(|pod| pod.field("metadata")).cloned());
    fields
}

fn field(name: &str, schema: &Structural) -> Field {
    let mut field = Field::new(name.to_owned(), kind(schema));
    mark(&mut field, schema);
    field
}

/// What a field says of its value besides its kind.
fn mark(field: &mut Field, schema: &Structural) {
    field.nullable = schema.is_nullable || schema.preserves_unknown;
    field.list_type = match &schema.list_type {
        ListType::Unspecified => None,
        ListType::Atomic => Some(Listed::Atomic),
        ListType::Set => Some(Listed::Set),
        ListType::Map(keys) => {
            Some(Listed::Map(keys.iter().map(|key| Text::Owned(key.to_string())).collect()))
        }
    };
    field.atomic = schema.is_atomic_map;
    field.default = schema.default.as_ref().map(|default| Text::Owned(default.to_string()));
}

fn kind(schema: &Structural) -> Kind {
    match schema.ty {
        _ if schema.is_int_or_string => Kind::IntOrString,
        Some(JsonType::String) => Kind::String,
        Some(JsonType::Boolean) => Kind::Bool,
        Some(JsonType::Integer) => Kind::Int64,
        Some(JsonType::Number) => Kind::Float64,
        Some(JsonType::Array) => match &schema.items {
            Some(items) => Kind::List(Box::new(item(items))),
            None => Kind::Deduced,
        },
        Some(JsonType::Object) => match &schema.additional {
            Additional::Schema(more) => Kind::Map(Box::new(item(more))),
            _ if schema.is_embedded => Kind::Struct(TypeRef::Owned(Arc::new(embedded(schema)))),
            Additional::Allowed if schema.properties.is_empty() => Kind::Deduced,
            _ => Kind::Struct(TypeRef::Owned(Arc::new(structure(schema)))),
        },
        None => Kind::Deduced,
    }
}

/// What an item is: marked when it says more of itself than its kind does.
fn item(schema: &Structural) -> Kind {
    let kind = kind(schema);
    let is_marked = schema.list_type != ListType::Unspecified
        || (schema.is_atomic_map && !matches!(kind, Kind::Struct(_)))
        || schema.is_nullable;
    if !is_marked {
        return kind;
    }
    let mut field = Field::new("", kind);
    mark(&mut field, schema);
    Kind::Marked(Arc::new(field))
}

fn structure(schema: &Structural) -> Type {
    let fields = schema.properties.iter().map(|(name, property)| field(name, property)).collect();
    let mut table = Type::new("custom/v1.Struct", fields);
    table.atomic = schema.is_atomic_map;
    table.preserve_unknown = schema.preserves_unknown;
    table
}

/// An object in an object; its own metadata is like that of all others.
fn embedded(schema: &Structural) -> Type {
    let mut fields = head();
    let named = schema
        .properties
        .iter()
        .filter(|(name, _)| !matches!(&**name, "apiVersion" | "kind" | "metadata"));
    fields.extend(named.map(|(name, property)| field(name, property)));
    let mut table = Type::new("custom/v1.Embedded", fields);
    table.atomic = schema.is_atomic_map;
    table.preserve_unknown = schema.preserves_unknown;
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_keep_what_tells_their_items_apart() {
        let schema = Structural::compile(&json!({"type": "object", "properties": {
            "l": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object",
                "properties": {"k": {"type": "string", "default": "d"}}}},
            "nested": {"type": "object", "additionalProperties": {"type": "array",
                "x-kubernetes-list-type": "set", "items": {"type": "string"}}}}}))
        .unwrap();
        let table = table("a.b", "v1", "Foo", &schema);
        assert_eq!(table.name(), "Foo");
        let list = table.field("l").unwrap();
        assert_eq!(list.list_type, Some(Listed::Map(vec![Text::Owned("k".to_owned())])));
        let Kind::Map(item) = &table.field("nested").unwrap().kind else { panic!("no map") };
        let Kind::Marked(item) = &**item else { panic!("not marked") };
        assert_eq!(item.list_type, Some(Listed::Set));
    }

    #[test]
    fn objects_are_written_with_their_metadata_in_order() {
        let object = json!({"kind": "Foo", "apiVersion": "a.b/v1", "b": null, "a": [1],
            "metadata": {"uid": "u", "name": "n", "labels": {"x": "y"}}});
        let mut out = Vec::new();
        schema::encode_json(wire(), &object, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"apiVersion":"a.b/v1","kind":"Foo","metadata":{"name":"n","uid":"u","labels":{"x":"y"}},"a":[1],"b":null}"#
        );
    }
}
