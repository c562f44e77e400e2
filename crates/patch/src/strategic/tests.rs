//! Strategic merge patches, as tables.

use super::*;
use meta::GroupVersionKind;
use proptest::prelude::*;
use serde_json::json;

fn pod() -> &'static Type {
    schema::registry().kind(&GroupVersionKind::new("", "v1", "Pod")).unwrap()
}

fn apply(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    strategic_merge(pod(), document, &serde_json::to_vec(patch).unwrap())
}

fn containers(items: &Value) -> Value {
    json!({"spec": {"containers": items}})
}

fn check(before: &Value, patch: &Value, expected: &Value) {
    let result = apply(&containers(before), &json!({"spec": patch})).unwrap();
    assert_eq!(result, containers(expected), "{patch}");
}

#[test]
fn containers_are_merged_by_name() {
    let before = json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]);
    check(
        &before,
        &json!({"containers": [{"name": "b", "image": "2"}]}),
        &json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]),
    );
    check(
        &before,
        &json!({"containers": [{"name": "c", "image": null}, {"name": "a", "image": null}]}),
        &json!([{"name": "c"}, {"name": "a"}, {"name": "b", "image": "1"}]),
    );
    check(
        &before,
        &json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        &json!([{"name": "b", "image": "1"}]),
    );
    check(
        &before,
        &json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
        &json!([{"name": "z"}]),
    );
    check(
        &before,
        &json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        &json!([{"name": "b", "image": "1"}, {"name": "a", "image": "1"}]),
    );
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    check(
        &json!([{"name": "a", "args": ["1", "2"]}]),
        &json!({"containers": [{"name": "a", "args": ["3"]}]}),
        &json!([{"name": "a", "args": ["3"]}]),
    );
}

#[test]
fn primitive_lists_are_merged_and_deleted_from() {
    let before = json!({"metadata": {"finalizers": ["a", "b"]}});
    let added = apply(&before, &json!({"metadata": {"finalizers": ["c", "a"]}})).unwrap();
    assert_eq!(added["metadata"]["finalizers"], json!(["c", "a", "b"]));
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}});
    assert_eq!(apply(&before, &patch).unwrap()["metadata"]["finalizers"], json!(["b"]));
}

#[test]
fn retained_keys_clear_the_others() {
    let before = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    let patch = json!({"spec": {"volumes": [
        {"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}]}});
    assert_eq!(
        apply(&before, &patch).unwrap()["spec"]["volumes"],
        json!([{"name": "v", "hostPath": {"path": "/"}}])
    );
}

#[test]
fn errors_are_in_upstream_words() {
    for (patch, expected) in [
        (
            json!({"spec": {"containers": [{"image": "noname"}]}}),
            "map: map[image:noname] does not contain declared merge key: name",
        ),
        (json!({"$patch": "nope"}), "unknown patch type: nope in map: map[$patch:nope]"),
        (json!({"$setElementOrder/foo": 1}), "expected a []interface {}, but received a int64"),
    ] {
        let before = containers(&json!([{"name": "a"}]));
        assert_eq!(apply(&before, &patch).unwrap_err().to_string(), expected);
    }
}

fn container_list() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-d]", prop::option::of("[x-z]"), 0..4).prop_map(|map| {
        let item = |(name, image): (String, Option<String>)| match image {
            Some(image) => json!({"name": name, "image": image}),
            None => json!({"name": name}),
        };
        Value::Array(map.into_iter().map(item).collect())
    })
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing_more(before in container_list(), patch in container_list()) {
        let patch = containers(&patch);
        let once = apply(&containers(&before), &patch).unwrap();
        prop_assert_eq!(apply(&once, &patch).unwrap(), once);
    }

    #[test]
    fn an_empty_patch_changes_nothing(before in container_list()) {
        let before = containers(&before);
        prop_assert_eq!(apply(&before, &json!({})).unwrap(), before);
    }
}
