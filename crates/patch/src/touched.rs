//! Patches that merge, carried out on the fields they name and on nothing else.
//!
//! Merging needs the printed form of an object, and its result is decoded. Most patches name a field
//! or two, and printing, merging and decoding all the rest would change nothing about it.

use schema::{Field, FieldValidation, Kind, Type};
use serde_json::{Map, Value};

use crate::merge_patch;
use crate::strategic::{self, RETAIN_KEYS};

/// How a patch merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// RFC 7386.
    Plain,
    /// As the tables say.
    Strategic,
}

/// Deeper patches are left to those who decode the whole, and with it count its depth.
const MAX_DEPTH: usize = 32;

/// The working form of an object after a patch; `None` when there is anything odd about the patch,
/// or it is about the object as a whole: who merges and decodes all of it knows what to say.
pub fn merge_touched(ty: &Type, working: &Value, patch: &[u8], merge: Merge) -> Option<Value> {
    let mut patch = merge_patch::parse(patch).ok()?;
    if patch.values().any(|value| depth(value) > MAX_DEPTH) {
        return None;
    }
    for field in ["kind", "apiVersion"] {
        if patch.remove(field).is_some_and(|value| Some(&value) != working.get(field)) {
            return None;
        }
    }
    let mut merged = working.as_object()?.clone();
    let (parts, rest): (Vec<_>, Vec<_>) = patch.into_iter().partition(|(key, value)| {
        value.is_object()
            && merged.get(key).is_some_and(Value::is_object)
            && part(ty, key).is_some()
    });
    touch(ty, &mut merged, rest.into_iter().collect(), merge)?;
    for (key, value) in parts {
        let (field, inner) = part(ty, &key)?;
        let (Some(Value::Object(within)), Value::Object(patch)) = (merged.get_mut(&key), value)
        else {
            return None;
        };
        touch(inner, within, patch, merge)?;
        if within.is_empty() && !field.keeps_zero() {
            merged.remove(&key);
        }
    }
    Some(Value::Object(merged))
}

/// A field that is a struct, such as the status: what is in it can be patched for itself.
fn part<'a>(ty: &'a Type, key: &str) -> Option<(&'a Field, &'a Type)> {
    let field = ty.field(key)?;
    let Kind::Struct(inner) = &field.kind else { return None };
    let is_replaced = field.patch_strategy.split(',').any(|word| word == "replace");
    (!is_replaced).then(|| (field, inner.get()))
}

/// Patches members of one struct.
fn touch(
    ty: &Type,
    working: &mut Map<String, Value>,
    patch: Map<String, Value>,
    merge: Merge,
) -> Option<()> {
    let mut names: Vec<String> = Vec::new();
    for key in patch.keys() {
        let name = match key.split_once('/') {
            Some((directive, name)) if directive.starts_with('$') => name,
            _ => key,
        };
        if key == strategic::DIRECTIVE || key == RETAIN_KEYS || is_templated(ty.field(name)?) {
            return None;
        }
        names.push(name.to_owned());
    }
    if names.is_empty() {
        return Some(());
    }
    let mut before = Map::new();
    for name in &names {
        if let Some((name, value)) = working.remove_entry(name) {
            before.insert(name, value);
        }
    }
    let mut json = Vec::new();
    schema::encode_json(ty, &Value::Object(before), &mut json);
    let document: Map<String, Value> = serde_json::from_slice(&json).ok()?;
    let mut after = match merge {
        Merge::Plain => {
            let mut document = Value::Object(document);
            merge_patch::apply(&mut document, &Value::Object(patch));
            document
        }
        Merge::Strategic => strategic::merge_struct(ty, document, patch).ok()?,
    };
    after.as_object_mut()?.retain(|key, _| names.contains(key));
    let decoded = schema::decode_value(ty, &after, FieldValidation::Warn).ok()?;
    if !decoded.warnings.is_empty() {
        return None;
    }
    let Value::Object(after) = decoded.value else { return None };
    working.extend(after);
    Some(())
}

/// Decoding a template depends on what it is the template of.
fn is_templated(field: &Field) -> bool {
    matches!(&field.kind, Kind::Struct(ty) if ty.get().name() == "PodTemplateSpec")
}

fn depth(value: &Value) -> usize {
    let deepest = match value {
        Value::Object(map) => map.values().map(depth).max(),
        Value::Array(items) => items.iter().map(depth).max(),
        _ => return 0,
    };
    1 + deepest.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use meta::GroupVersionKind;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod_type() -> &'static Type {
        schema::registry().kind(&GroupVersionKind::new("", "v1", "Pod")).unwrap()
    }

    fn working(object: &Value) -> Value {
        let text = object.to_string();
        schema::decode_json(pod_type(), text.as_bytes(), FieldValidation::Ignore).unwrap().value
    }

    fn pod() -> Value {
        working(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {"x": "1"}, "finalizers": ["f/a", "f/b"]},
            "spec": {"nodeName": "n", "containers": [
                {"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}]}, {"name": "d"}]},
            "status": {"phase": "Pending", "conditions": [
                {"type": "Ready", "status": "False"}, {"type": "Initialized", "status": "True"}]},
        }))
    }

    /// What merging all of it gives.
    fn whole(old: &Value, patch: &[u8], merge: Merge) -> Value {
        let mut json = Vec::new();
        schema::encode_json(pod_type(), old, &mut json);
        let document: Value = serde_json::from_slice(&json).unwrap();
        let patched = match merge {
            Merge::Plain => crate::merge(document, patch).unwrap(),
            Merge::Strategic => crate::strategic_merge(pod_type(), &document, patch).unwrap(),
        };
        working(&patched)
    }

    fn check(patch: &Value) {
        let text = patch.to_string();
        for merge in [Merge::Plain, Merge::Strategic] {
            let touched = merge_touched(pod_type(), &pod(), text.as_bytes(), merge);
            let touched = touched.unwrap_or_else(|| panic!("{text}"));
            assert_eq!(touched, whole(&pod(), text.as_bytes(), merge), "{text} {merge:?}");
        }
    }

    #[test]
    fn it_gives_what_merging_all_gives() {
        check(&json!({"status": {"phase": "Running", "podIP": "10.0.0.1"}}));
        check(&json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        check(&json!({"status": null}));
        check(&json!({"status": {"phase": null, "conditions": null}}));
        check(&json!({"metadata": {"labels": {"x": null, "y": "2"}, "finalizers": ["f/c"]}}));
        check(&json!({"metadata": {"labels": {"x": null}}}));
        check(&json!({"metadata": {"annotations": {"a": "b"}}, "kind": "Pod", "apiVersion": "v1"}));
        check(&json!({"spec": {"containers": [{"name": "c", "image": "j"}]}}));
        check(&json!({"spec": {"nodeName": "", "securityContext": {"runAsUser": 0}}}));
        check(&json!({}));
    }

    #[test]
    fn directives_about_lists_are_understood() {
        for patch in [
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["f/a"]}}),
            json!({"status": {"$setElementOrder/conditions": [{"type": "Initialized"},
                {"type": "Ready"}], "conditions": [{"type": "Ready", "status": "True"}]}}),
            json!({"status": {"conditions": [{"$patch": "delete", "type": "Ready"}]}}),
        ] {
            let text = patch.to_string();
            let found = merge_touched(pod_type(), &pod(), text.as_bytes(), Merge::Strategic);
            assert_eq!(found.unwrap(), whole(&pod(), text.as_bytes(), Merge::Strategic), "{text}");
        }
    }

    #[test]
    fn what_is_odd_is_left_to_others() {
        for patch in [
            json!({"kind": "Service"}),
            json!({"status": {"$patch": "replace", "phase": "Running"}}),
            json!({"spec": {"$retainKeys": ["nodeName"]}}),
            json!({"spec": {"no-such-field": 1}}),
            json!({"no-such-field": 1}),
            json!({"spec": {"nodeName": 1}}),
            json!({"status": {"conditions": [{"type": "Ready", "no-such-field": 1}]}}),
        ] {
            let text = patch.to_string();
            let found = merge_touched(pod_type(), &pod(), text.as_bytes(), Merge::Strategic);
            assert_eq!(found, None, "{text}");
        }
        assert_eq!(merge_touched(pod_type(), &pod(), b"[]", Merge::Plain), None);
    }

    proptest! {
        #[test]
        fn any_patch_of_some_fields_gives_what_merging_all_gives(
            phase in proptest::option::of("[A-Z]?"),
            labels in proptest::collection::btree_map("[x-z]", proptest::option::of("[0-9]?"), 0..3),
            conditions in proptest::collection::vec(("[A-C]", "[TF]"), 0..3),
            grace in proptest::option::of(-1i64..2),
        ) {
            let conditions: Vec<Value> = conditions
                .iter()
                .map(|(name, status)| json!({"type": name, "status": status}))
                .collect();
            check(&json!({
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": grace},
                "status": {"phase": phase, "conditions": conditions},
            }));
        }
    }
}
