//! A configuration merged into an object, with nobody owning anything.

use schema::Type;
use serde_json::Value;

use crate::merge::merge;
use crate::shape::{Atom, Relation, Shape};

/// The object with what a configuration says, as server-side apply merges it.
///
/// # Errors
/// When the configuration has a list, map or struct that can only be replaced as a whole, or an item
/// that cannot be told from another.
pub fn merged(ty: &Type, live: &Value, config: &Value) -> Result<Value, String> {
    let shape = Shape::of(ty);
    let mut whole = Vec::new();
    find_atomic(shape, config, &mut String::new(), &mut whole);
    if !whole.is_empty() {
        let paths = whole.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"
        ));
    }
    merge(shape, live, config)
}

fn find_atomic(shape: Shape<'_>, value: &Value, path: &mut String, out: &mut Vec<String>) {
    let mut within = |inner: Shape<'_>, value: &Value, step: &str| {
        let before = path.len();
        path.push_str(step);
        find_atomic(inner, value, path, out);
        path.truncate(before);
    };
    match (shape.atom(Some(value)), value) {
        (Atom::List(list), Value::Array(items)) => {
            if matches!(list.relation, Relation::Atomic) {
                out.push(path.clone());
                return;
            }
            for (at, item) in items.iter().enumerate() {
                within(list.item, item, &format!("[{at}]"));
            }
        }
        (Atom::Map(map), Value::Object(members)) => {
            if map.is_atomic {
                out.push(path.clone());
                return;
            }
            for (name, value) in members {
                if let Some(inner) = map.member(name) {
                    within(inner, value, &format!(".{name}"));
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_with_keys_are_merged_and_atomic_ones_refused() {
        let ty = schema::registry().type_named("core/v1.Pod").unwrap();
        let live = json!({"spec": {"containers": [{"name": "a", "image": "x"}]}});
        let config = json!({"spec": {"containers": [{"name": "a", "image": "y"}, {"name": "b"}]}});
        let expected =
            json!({"spec": {"containers": [{"name": "a", "image": "y"}, {"name": "b"}]}});
        assert_eq!(merged(ty, &live, &config), Ok(expected));
        let config = json!({"spec": {"containers": [{"name": "a", "args": ["z"]}]}});
        assert_eq!(
            merged(ty, &live, &config),
            Err("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
                 .spec.containers[0].args"
                .to_owned())
        );
    }
}
