//! Fills in defaults, and takes away nulls that mean nothing.

use serde_json::Value;

use crate::structural::{Additional, Structural};

/// Defaults an object: first nulls go that are neither allowed nor defaulted, then what is absent,
/// or null without being allowed to, gets its default.
pub fn apply_defaults(object: &mut Value, schema: &Structural) {
    remove_nulls(object, Some(schema));
    fill(object, schema);
}

fn remove_nulls(value: &mut Value, schema: Option<&Structural>) {
    match value {
        Value::Object(map) => {
            let Some(schema) = schema else { return };
            map.retain(|name, value| match schema.member(name) {
                Some(member) => !value.is_null() || member.is_nullable || member.default.is_some(),
                None => true,
            });
            for (name, value) in map.iter_mut() {
                remove_nulls(value, schema.member(name));
            }
        }
        Value::Array(items) => {
            let of = schema.and_then(|schema| schema.items.as_deref());
            items.iter_mut().for_each(|item| remove_nulls(item, of));
        }
        _ => {}
    }
}

fn fill(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                let is_missing =
                    map.get(&**name).is_none_or(|value| value.is_null() && !property.is_nullable);
                if is_missing {
                    map.insert(name.to_string(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                match (schema.property(name), &schema.additional) {
                    (Some(property), _) => fill(value, property),
                    (None, Additional::Schema(more)) => {
                        replace_null(value, more);
                        fill(value, more);
                    }
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            let Some(of) = &schema.items else { return };
            for item in items {
                replace_null(item, of);
                fill(item, of);
            }
        }
        _ => {}
    }
}

fn replace_null(value: &mut Value, schema: &Structural) {
    if let (Value::Null, false, Some(default)) = (&value, schema.is_nullable, &schema.default) {
        *value = default.clone();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(object: Value, expected: Value) {
        let schema = Structural::compile(&json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "x"},
            "n": {"type": "string", "default": "y", "nullable": true},
            "plain": {"type": "string"},
            "o": {"type": "object", "default": {}, "properties": {
                "b": {"type": "integer", "default": 1}}},
            "l": {"type": "array", "items": {"type": "object", "properties": {
                "c": {"type": "boolean", "default": false}}}},
        }}))
        .unwrap();
        let mut object = object;
        apply_defaults(&mut object, &schema);
        assert_eq!(object, expected);
    }

    #[test]
    fn what_is_absent_gets_its_default() {
        check(
            json!({"l": [{}, {"c": true}]}),
            json!({"a": "x", "n": "y", "o": {"b": 1}, "l": [{"c": false}, {"c": true}]}),
        );
    }

    #[test]
    fn null_is_a_value_only_where_it_may_be_one() {
        check(
            json!({"a": null, "n": null, "plain": null, "other": null}),
            json!({"a": "x", "n": null, "o": {"b": 1}, "other": null}),
        );
    }
}
