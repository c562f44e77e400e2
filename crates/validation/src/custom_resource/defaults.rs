//! Defaults must be valid themselves.
//!
//! Types, enumerations and required fields are checked; upstream has its whole validator for this.

use serde_json::Value;

use crate::node::{Findings, Node};
use crate::{FieldError, Path};

pub(super) fn validate(schema: &Node<'_>, out: &mut Findings) {
    let default = schema.get("default");
    if default.is_set() {
        if has_unknown(default.value, schema) {
            out.push(default.invalid("must not have unknown fields"));
        }
        check(default.value, schema, &default.path, "", out);
    }
    let items = schema.get("items");
    if items.value.is_object() {
        validate(&items, out);
    }
    schema.get("properties").entries().for_each(|(_, property)| validate(&property, out));
}

/// Whether pruning would take something away.
fn has_unknown(value: &Value, schema: &Node<'_>) -> bool {
    let preserves = schema.get("x-kubernetes-preserve-unknown-fields").is_true();
    let is_embedded = schema.get("x-kubernetes-embedded-resource").is_true();
    let more = schema.get("additionalProperties");
    match value {
        Value::Object(map) => map.iter().any(|(name, value)| {
            let mut properties = schema.get("properties").entries();
            match properties.find(|(key, _)| key == name) {
                Some((_, property)) => has_unknown(value, &property),
                None if more.value.is_object() => has_unknown(value, &more),
                None => {
                    let is_meta = matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                    !(preserves || more.is_true() || (is_embedded && is_meta))
                }
            }
        }),
        Value::Array(items) => {
            let of = schema.get("items");
            of.value.is_object() && items.iter().any(|item| has_unknown(item, &of))
        }
        _ => false,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `name` is where the value is below the default.
fn check(value: &Value, schema: &Node<'_>, path: &Path, name: &str, out: &mut Findings) {
    let (wanted, actual) = (schema.get("type").text(), type_of(value));
    let is_either = schema.get("x-kubernetes-int-or-string").is_true();
    let fits = match wanted {
        "" if is_either => matches!(actual, "integer" | "string"),
        "" => true,
        "number" => matches!(actual, "number" | "integer"),
        _ => wanted == actual,
    };
    if actual == "null" && schema.get("nullable").is_true() {
        return;
    }
    if !fits {
        let wanted = if wanted.is_empty() { "integer,string" } else { wanted };
        let detail = format!("{name} in body must be of type {wanted}: \"{actual}\"");
        out.push(FieldError::invalid(path, actual, detail).of_wrong_type());
        return;
    }
    let allowed = schema.get("enum");
    if allowed.is_set() && !allowed.items().any(|one| one.value == value) {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let allowed: Vec<String> = allowed.items().map(|one| text(one.value)).collect();
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        out.push(FieldError::not_supported(path, text(value), &allowed));
    }
    match value {
        Value::Array(items) => {
            let of = schema.get("items");
            for (at, item) in items.iter().enumerate().filter(|_| of.value.is_object()) {
                check(item, &of, &path.index(at), &format!("{name}[{at}]"), out);
            }
        }
        Value::Object(map) => {
            let required = schema.get("required");
            for missing in required.items().filter(|key| !map.contains_key(key.text())) {
                out.push(FieldError::required(&path.key(missing.text()), ""));
            }
            for (key, of) in schema.get("properties").entries() {
                if let Some(value) = map.get(key) {
                    let name =
                        if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
                    check(value, &of, &path.key(key), &name, out);
                }
            }
        }
        _ => {}
    }
}
