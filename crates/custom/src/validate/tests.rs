//! Findings in upstream's words.

use serde_json::{Value, json};

use super::*;

fn findings(schema: &Value, value: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = Structural::compile(schema).unwrap();
    validate(value, old, &schema).iter().map(ToString::to_string).collect()
}

fn check(schema: Value, value: Value, expected: &[&str]) {
    let schema = json!({"type": "object", "properties": {"spec": schema}});
    assert_eq!(findings(&schema, &json!({ "spec": value }), None), expected);
}

#[test]
fn types_are_checked() {
    check(
        json!({"type": "integer"}),
        json!("x"),
        &["spec: Invalid value: \"string\": spec in body must be of type integer: \"string\""],
    );
    check(json!({"type": "integer"}), json!(3.0), &[]);
    check(
        json!({"type": "integer"}),
        json!(3.5),
        &["spec: Invalid value: \"number\": spec in body must be of type integer: \"number\""],
    );
    check(json!({"type": "number"}), json!(3), &[]);
    check(
        json!({"x-kubernetes-int-or-string": true}),
        json!(true),
        &["spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \
           \"boolean\""],
    );
    check(
        json!({"type": "string"}),
        Value::Null,
        &["spec: Invalid value: \"null\": spec in body must be of type string: \"null\""],
    );
    check(json!({"type": "string", "nullable": true}), Value::Null, &[]);
    check(
        json!({"type": "string", "format": "date-time"}),
        json!(5),
        &["spec: Invalid value: \"int64\": spec in body must be of type date-time: \"int64\""],
    );
}

#[test]
fn numbers_have_limits() {
    let schema = json!({"type": "integer", "minimum": 2, "maximum": 8, "multipleOf": 2});
    check(schema.clone(), json!(4), &[]);
    check(
        schema,
        json!(9),
        &[
            "spec: Invalid value: 9: spec in body should be a multiple of 2",
            "spec: Invalid value: 9: spec in body should be less than or equal to 8",
        ],
    );
    check(
        json!({"type": "number", "minimum": 0, "exclusiveMinimum": true}),
        json!(0),
        &["spec: Invalid value: 0: spec in body should be greater than 0"],
    );
    check(json!({"type": "number", "multipleOf": 0.1}), json!(0.3), &[]);
}

#[test]
fn strings_have_limits() {
    let schema = json!({"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^[a-z]+$"});
    check(
        schema.clone(),
        json!("äb"),
        &["spec: Invalid value: \"äb\": spec in body should match '^[a-z]+$'"],
    );
    check(schema.clone(), json!("abcd"), &["spec: Too long: may not be more than 3 bytes"]);
    check(
        schema,
        json!("a"),
        &["spec: Invalid value: \"a\": spec in body should be at least 2 chars long"],
    );
    check(
        json!({"type": "string", "enum": ["a", "b"]}),
        json!("c"),
        &["spec: Unsupported value: \"c\": supported values: \"a\", \"b\""],
    );
    check(json!({"type": "integer", "enum": [1, 2]}), json!(1.0), &[]);
}

#[test]
fn lists_and_maps_have_limits() {
    let list = json!({"type": "array", "minItems": 1, "maxItems": 2, "uniqueItems": true,
        "items": {"type": "string"}});
    check(list.clone(), json!(["a"]), &[]);
    check(
        list.clone(),
        json!([]),
        &["spec: Invalid value: 0: spec in body should have at least 1 items"],
    );
    check(
        list,
        json!(["a", "a", 1]),
        &[
            "spec[2]: Invalid value: \"integer\": spec[2] in body must be of type string: \
             \"integer\"",
            "spec: Too many: 3: must have at most 2 items",
            "spec: Invalid value: \"\": spec in body shouldn't contain duplicates",
        ],
    );
    let map = json!({"type": "object", "maxProperties": 1, "additionalProperties":
        {"type": "integer"}});
    check(map.clone(), json!({"a": 1, "b": 2}), &["spec: Too many: 2: must have at most 1 item"]);
    check(
        map,
        json!({"a": "1"}),
        &["spec.a: Invalid value: \"string\": spec.a in body must be of type integer: \"string\""],
    );
}

#[test]
fn alternatives_are_counted() {
    let two = json!([{"required": ["x"]}, {"required": ["y"]}]);
    let object = |key: &str| {
        json!({"type": "object", "properties": {"x": {"type": "string"},
        "y": {"type": "string"}}, key: two})
    };
    check(
        object("oneOf"),
        json!({"x": "1", "y": "2"}),
        &["<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). \
           Found 2 valid alternatives"],
    );
    check(
        object("anyOf"),
        json!({}),
        &[
            "<nil>: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)",
            "spec.x: Required value",
        ],
    );
    check(
        object("allOf"),
        json!({"x": "1"}),
        &[
            "spec.y: Required value",
            "<nil>: Invalid value: \"\": \"spec\" must validate all the schemas (allOf)",
        ],
    );
    check(
        json!({"type": "object", "not": {"required": ["x"]}}),
        json!({"x": 1}),
        &["<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)"],
    );
}

#[test]
fn what_was_wrong_before_may_stay_so() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 2},
        "l": {"type": "array", "items": {"type": "string", "maxLength": 2}},
        "m": {"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {
                "k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}}}}});
    let old = json!({"a": "long", "l": ["long"], "m": [{"k": "x", "v": 5}, {"k": "y", "v": 1}]});
    assert_eq!(findings(&schema, &old, Some(&old)), Vec::<String>::new());
    let mut new = old.clone();
    new["m"] = json!([{"k": "y", "v": 1}, {"k": "x", "v": 5}]);
    assert_eq!(findings(&schema, &new, Some(&old)), Vec::<String>::new());
    new["a"] = json!("other");
    new["l"] = json!(["long", "ok"]);
    assert_eq!(
        findings(&schema, &new, Some(&old)),
        [
            "a: Too long: may not be more than 2 bytes",
            "l[0]: Too long: may not be more than 2 bytes"
        ]
    );
}

#[test]
fn a_pattern_that_is_none_refuses_every_text() {
    let found = findings(
        &json!({"type": "object", "properties": {"a": {"type": "string",
        "pattern": "("}}}),
        &json!({"a": "x"}),
        None,
    );
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("but pattern is invalid"), "{found:?}");
}
