//! Tables of expressions: what they are, what is wrong with them, what they cost.

mod cost;
mod hostile;
mod language;
mod libraries;
mod mistakes;
mod objects;

use serde_json::{Value as Json, json};

use crate::{Activation, Budget, Declaration, Environment, Value};

/// An environment with `object`, of which nothing is known.
fn environment() -> Environment {
    Environment::new().with("object", Declaration::dynamic()).with_patch_types()
}

fn object() -> Json {
    json!({
        "name": "web", "replicas": 3, "ratio": 0.5, "flag": false, "nothing": null,
        "labels": {"app": "web", "tier": "front"},
        "items": [{"n": "a", "v": 1}, {"n": "b", "v": 2}],
        "numbers": [3, 1, 2],
        "words": ["x", "y"],
    })
}

/// The value of an expression as text, or why it has none.
fn value(text: &str) -> String {
    let environment = environment();
    let program = match environment.compile(text) {
        Ok(program) => program,
        Err(why) => return format!("{why}"),
    };
    let object = object();
    let mut activation = Activation::new(&environment).with("object", Value::json(&object, None));
    match program.evaluate(&mut activation, &mut Budget::new(u64::MAX / 2)) {
        Ok(value) => shown(&value),
        Err(why) => format!("error: {why}"),
    }
}

fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Uint(value) => format!("{value}u"),
        Value::Double(value) => format!("{value:?}"),
        Value::Type(name) => name.to_string(),
        Value::Optional(None) => "none".to_owned(),
        Value::Optional(Some(inner)) => format!("some({})", shown(inner)),
        other => match other.to_json() {
            Ok(json) => json.to_string(),
            Err(_) => other.type_name().to_string(),
        },
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter(|(text, expected)| value(text) != *expected)
        .map(|(text, expected)| {
            format!("{text}\n  is       {}\n  expected {expected}", value(text))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
