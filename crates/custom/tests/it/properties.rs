//! Random schemas and random objects.

use custom::{Compiled, JsonPath, Structural, apply_defaults, prune, validate};
use proptest::prelude::*;
use serde_json::{Value, json};

const NAMES: [&str; 5] = ["a", "b", "spec", "status", "metadata"];

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&NAMES[..]).prop_map(str::to_owned)
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |f| f.is_finite()).prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 48, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(name(), value(), 0..5).prop_map(|map| json!(map))
}

fn scalar_schema() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"type": "string", "default": "x", "maxLength": 3})),
        Just(json!({"type": "string", "enum": ["x", "y"], "nullable": true})),
        Just(json!({"type": "integer", "default": 1, "minimum": 0})),
        Just(json!({"type": "number", "multipleOf": 0.5})),
        Just(json!({"type": "boolean"})),
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        Just(json!({"type": "string", "format": "date-time"})),
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    scalar_schema().prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            (inner.clone(), any::<bool>()).prop_map(|(of, is_set)| {
                let kind = if is_set { "set" } else { "atomic" };
                json!({"type": "array", "items": of, "x-kubernetes-list-type": kind})
            }),
            inner.clone().prop_map(|of| json!({"type": "object", "additionalProperties": of})),
            members(inner.clone()),
            members(inner).prop_map(|mut schema| {
                schema["x-kubernetes-embedded-resource"] = json!(true);
                schema["default"] = json!({});
                schema
            }),
        ]
    })
}

/// Definitions may not say anything about metadata.
fn members(of: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let names = name().prop_filter("metadata is as it is", |name| name != "metadata");
    (prop::collection::btree_map(names, of, 0..4), any::<bool>()).prop_map(|(members, keeps)| {
        let mut schema = json!({"type": "object", "properties": members});
        if keeps {
            schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
        }
        schema
    })
}

fn compiled(schema: &Value) -> serde_json::Result<Compiled> {
    let version = json!({"name": "v1", "served": true, "storage": true});
    let version = serde_json::from_value(version)?;
    Ok(Compiled::new("g.example", "Thing", &version, Some(schema), false))
}

proptest! {
    #[test]
    fn what_is_pruned_has_nothing_more_to_prune(
        schema in members(schema()), mut object in object(),
    ) {
        let schema = Structural::compile(&schema).unwrap();
        prune(&mut object, Some(&schema));
        let once = object.clone();
        prop_assert_eq!(prune(&mut object, Some(&schema)), Vec::<String>::new());
        prop_assert_eq!(object, once);
    }

    #[test]
    fn defaults_are_filled_in_once(schema in members(schema()), mut object in object()) {
        let schema = Structural::compile(&schema).unwrap();
        apply_defaults(&mut object, &schema);
        let once = object.clone();
        apply_defaults(&mut object, &schema);
        prop_assert_eq!(object, once);
    }

    #[test]
    fn what_is_admitted_is_in_form(schema in members(schema()), mut object in object()) {
        let compiled = compiled(&schema).unwrap();
        if compiled.admit(&mut object).is_ok() {
            let once = object.clone();
            prop_assert_eq!(compiled.admit(&mut object), Ok(Vec::new()));
            prop_assert_eq!(&object, &once);
            compiled.restore(&mut object);
            prop_assert_eq!(object, once);
        }
    }

    #[test]
    fn what_was_there_has_no_more_findings_than_what_is_new(
        schema in members(schema()), object in object(),
    ) {
        let schema = Structural::compile(&schema).unwrap();
        let alone = validate(&object, None, &schema);
        prop_assert!(validate(&object, Some(&object), &schema).len() <= alone.len());
    }

    #[test]
    fn any_object_can_be_validated(schema in schema(), object in value()) {
        let compiled = compiled(&schema).unwrap();
        compiled.validate(&object, None, false);
        compiled.validate(&object, Some(&object), true);
        compiled.check_rules(&object, Some(&object), &[]);
        compiled.table();
    }

    #[test]
    fn any_path_is_read_or_refused(text in "[.\\[\\]'\"a-c0-9*@?()=:,$ {}-]{0,24}", object in object()) {
        if let Ok(path) = JsonPath::parse(&text) {
            path.find(&object);
        }
    }
}
