//! What Go says of a value that does not fit a type, after a strategic merge patch.
//!
//! Upstream turns the result of such a patch into an object without going through JSON, and its
//! converter has words of its own (`apimachinery/pkg/runtime/converter.go`).

use schema::{Kind, Type};
use serde_json::Value;

/// The first value that does not fit its table, in the table's order; `None` when all do, or when
/// the value's own parser has the last word.
pub fn conversion_error(ty: &Type, value: &Value) -> Option<String> {
    let Value::Object(map) = value else {
        return Some(format!("cannot restore struct from: {}", go_kind(value)));
    };
    let given = |field: &schema::Field| Some((map.get(&*field.name)?, field.kind.clone()));
    ty.fields().iter().filter_map(given).find_map(|(value, kind)| misfit(&kind, value))
}

fn misfit(kind: &Kind, value: &Value) -> Option<String> {
    let whole = |number: &serde_json::Number| !number.is_f64();
    match (kind, value) {
        (_, Value::Null)
        | (Kind::String | Kind::Bytes, Value::String(_))
        | (Kind::Bool, Value::Bool(_))
        | (Kind::Float64, Value::Number(_)) => None,
        (Kind::Int32 | Kind::Int64, Value::Number(number)) if whole(number) => None,
        (Kind::Struct(ty), value) => conversion_error(ty.get(), value),
        (Kind::List(item), Value::Array(items)) => items.iter().find_map(|v| misfit(item, v)),
        (Kind::Map(item), Value::Object(map)) => map.values().find_map(|v| misfit(item, v)),
        (Kind::List(_), other) => Some(format!("cannot restore slice from {}", go_kind(other))),
        (Kind::Map(_), other) => Some(format!("cannot restore map from {}", go_kind(other))),
        (Kind::String, _) => Some("unrecognized type: string".to_owned()),
        (Kind::Bool, _) => Some("unrecognized type: bool".to_owned()),
        (Kind::Int32, _) => Some("unrecognized type: int32".to_owned()),
        (Kind::Int64, _) => Some("unrecognized type: int64".to_owned()),
        (Kind::Float64, _) => Some("unrecognized type: float64".to_owned()),
        _ => None,
    }
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_misfit_is_told_in_go_words() {
        let gvk = meta::GroupVersionKind::new("apps", "v1", "Deployment");
        let ty = schema::registry().kind(&gvk).unwrap();
        for (spec, expected) in [
            (json!({"replicas": "x"}), Some("unrecognized type: int32")),
            (json!({"template": "x"}), Some("cannot restore struct from: string")),
            (json!({"paused": 1}), Some("unrecognized type: bool")),
            (
                json!({"template": {"spec": {"containers": {"a": 1}}}}),
                Some("cannot restore slice from map"),
            ),
            (json!({"selector": {"matchLabels": [1]}}), Some("cannot restore map from slice")),
            (json!({"replicas": 1, "template": {"spec": {"containers": []}}}), None),
        ] {
            let found = conversion_error(ty, &json!({ "spec": spec }));
            assert_eq!(found.as_deref(), expected);
        }
    }
}
