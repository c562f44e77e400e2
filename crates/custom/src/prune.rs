//! Takes away what a schema does not specify.

use serde_json::{Map, Value};

use crate::structural::{Additional, Structural};

/// Members that every object has.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Prunes a whole object and returns the paths of what went. Without a schema all goes that not
/// every object has.
pub fn prune(object: &mut Value, schema: Option<&Structural>) -> Vec<String> {
    let mut pruner = Pruner { gone: Vec::new(), path: String::new() };
    if let Value::Object(map) = object {
        match schema {
            Some(schema) => pruner.members(map, schema, true, schema.preserves_unknown),
            None => pruner.clear(map, &META),
        }
    }
    pruner.gone
}

struct Pruner {
    gone: Vec<String>,
    path: String,
}

impl Pruner {
    fn value(&mut self, value: &mut Value, schema: Option<&Structural>, keeps: bool) {
        match (value, schema) {
            (Value::Object(map), None) if !keeps => self.clear(map, &[]),
            (Value::Object(map), Some(schema)) => {
                let keeps = keeps || schema.preserves_unknown;
                self.members(map, schema, schema.is_embedded, keeps);
            }
            (Value::Array(items), schema) => {
                // A list is kept as its schema says, its items as theirs do.
                let keeps = keeps || schema.is_some_and(|schema| schema.preserves_unknown);
                let of = schema.and_then(|schema| schema.items.as_deref());
                for (at, item) in items.iter_mut().enumerate() {
                    let length = self.path.len();
                    self.path.push_str(&format!("[{at}]"));
                    self.value(item, of, keeps && of.is_none());
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn members(
        &mut self,
        map: &mut Map<String, Value>,
        schema: &Structural,
        is_embedded: bool,
        keeps: bool,
    ) {
        let mut gone = Vec::new();
        for (name, value) in map.iter_mut() {
            if is_embedded && META.contains(&name.as_str()) {
                continue;
            }
            let length = self.path.len();
            self.enter(name);
            match (schema.property(name), &schema.additional) {
                (Some(property), _) => self.value(value, Some(property), false),
                (None, Additional::Schema(more)) => self.value(value, Some(more), false),
                (None, Additional::Allowed) if !keeps => self.value(value, None, false),
                (None, _) if keeps => {}
                (None, _) => {
                    self.gone.push(self.path.clone());
                    gone.push(name.clone());
                }
            }
            self.path.truncate(length);
        }
        for name in gone {
            map.remove(&name);
        }
    }

    fn clear(&mut self, map: &mut Map<String, Value>, but: &[&str]) {
        let gone: Vec<String> =
            map.keys().filter(|name| !but.contains(&name.as_str())).cloned().collect();
        for name in gone {
            let length = self.path.len();
            self.enter(&name);
            self.gone.push(self.path.clone());
            self.path.truncate(length);
            map.remove(&name);
        }
    }

    fn enter(&mut self, name: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, object: Value, expected: Value, gone: &[&str]) {
        let schema = Structural::compile(&schema).unwrap();
        let mut object = object;
        assert_eq!(prune(&mut object, Some(&schema)), gone);
        assert_eq!(object, expected);
    }

    #[test]
    fn what_is_not_specified_goes() {
        check(
            json!({"type": "object", "properties": {"spec": {"type": "object", "properties":
                {"l": {"type": "array", "items": {"type": "object",
                    "properties": {"a": {"type": "string"}}}}}}}}),
            json!({"kind": "X", "metadata": {"name": "x"}, "extra": 1,
                "spec": {"l": [{"a": "1", "b": 2}], "m": {}}}),
            json!({"kind": "X", "metadata": {"name": "x"}, "spec": {"l": [{"a": "1"}]}}),
            &["extra", "spec.l[0].b", "spec.m"],
        );
    }

    #[test]
    fn what_is_preserved_is_pruned_again_where_it_is_specified() {
        check(
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties":
                {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}}),
            json!({"any": {"x": [1]}, "spec": {"a": "1", "b": 2}}),
            json!({"any": {"x": [1]}, "spec": {"a": "1"}}),
            &["spec.b"],
        );
    }

    #[test]
    fn maps_keep_their_members() {
        check(
            json!({"type": "object", "properties": {"m": {"type": "object",
                "additionalProperties": {"type": "object",
                    "properties": {"a": {"type": "string"}}}}}}),
            json!({"m": {"k": {"a": "1", "b": 2}}}),
            json!({"m": {"k": {"a": "1"}}}),
            &["m.k.b"],
        );
    }

    #[test]
    fn embedded_objects_keep_what_all_objects_have() {
        check(
            json!({"type": "object", "properties": {"e": {"type": "object",
                "x-kubernetes-embedded-resource": true,
                "properties": {"spec": {"type": "string"}}}}}),
            json!({"e": {"kind": "A", "apiVersion": "v1", "metadata": {}, "spec": "s", "x": 1}}),
            json!({"e": {"kind": "A", "apiVersion": "v1", "metadata": {}, "spec": "s"}}),
            &["e.x"],
        );
    }
}
