//! Lists whose items must differ: sets, and lists with keys.

use std::collections::HashMap;

use serde_json::{Map, Value};
use validation::{FieldError, Path};

use crate::structural::{ListType, Structural};

/// Findings about items that are there twice.
pub(crate) fn validate(object: &Value, schema: &Structural) -> Vec<FieldError> {
    let mut out = Vec::new();
    walk(object, schema, &Path::default(), &mut out);
    out
}

fn walk(value: &Value, schema: &Structural, path: &Path, out: &mut Vec<FieldError>) {
    match value {
        Value::Array(items) => {
            match &schema.list_type {
                ListType::Set => {
                    let keys: Vec<&Value> = items.iter().collect();
                    for at in repeated(&keys) {
                        out.push(FieldError::duplicate(&path.index(at), items[at].clone()));
                    }
                }
                ListType::Map(keys) => by_keys(items, keys, path, out),
                _ => {}
            }
            if let Some(of) = &schema.items {
                for (at, item) in items.iter().enumerate() {
                    walk(item, of, &path.index(at), out);
                }
            }
        }
        Value::Object(map) => {
            for (name, value) in map {
                match schema.property(name) {
                    Some(property) => walk(value, property, &path.member(name), out),
                    None => {
                        if let Some(more) = schema.member(name) {
                            walk(value, more, &path.key(name), out);
                        }
                    }
                }
            }
        }
        _ => {}
    }
}

fn by_keys(items: &[Value], keys: &[Box<str>], path: &Path, out: &mut Vec<FieldError>) {
    let stray = items.iter().position(|item| !item.is_object() && !item.is_null());
    if let Some(at) = stray {
        let detail = "must be an object for an array of list-type map";
        return out.push(FieldError::invalid(&path.index(at), items[at].clone(), detail));
    }
    let told: Vec<Value> = items
        .iter()
        .map(|item| {
            let pairs = keys.iter().filter_map(|key| Some((key.to_string(), item.get(&**key)?)));
            Value::Object(pairs.map(|(key, value)| (key, value.clone())).collect::<Map<_, _>>())
        })
        .collect();
    for at in repeated(&told.iter().collect::<Vec<_>>()) {
        out.push(FieldError::duplicate(&path.index(at), told[at].clone()));
    }
}

/// Where each value that is there more than once is there for the second time.
fn repeated(values: &[&Value]) -> Vec<usize> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut found = Vec::new();
    for (at, value) in values.iter().enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            found.push(at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(list: Value, value: Value, expected: &[&str]) {
        let schema = json!({"type": "object", "properties": {"l": list}});
        let schema = Structural::compile(&schema).unwrap();
        let found = validate(&json!({ "l": value }), &schema);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn items_of_sets_differ() {
        let set = json!({"type": "array", "x-kubernetes-list-type": "set",
            "items": {"type": "string"}});
        check(set.clone(), json!(["a", "b"]), &[]);
        check(set, json!(["a", "b", "a", "a"]), &["l[2]: Duplicate value: \"a\""]);
    }

    #[test]
    fn keys_of_items_differ() {
        let map = json!({"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["p", "q"], "items": {"type": "object"}});
        check(map.clone(), json!([{"p": 1, "q": 1}, {"p": 1, "q": 2}]), &[]);
        check(
            map,
            json!([{"p": 1, "x": 1}, {"p": 1, "x": 2}]),
            &["l[1]: Duplicate value: {\"p\":1}"],
        );
    }
}
