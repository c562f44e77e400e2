//! Where an object of a custom resource has its replicas.

use serde::Deserialize;
use serde_json::{Map, Value};
use validation::{FieldError, Path};

/// The `scale` subresource of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scale {
    /// Where the wanted number is, as `.spec.replicas`.
    pub spec_replicas_path: String,
    /// Where the number there is is.
    pub status_replicas_path: String,
    /// Where the selector of what is scaled is, in its text form.
    pub label_selector_path: Option<String>,
}

/// The names of a path such as `.spec.replicas`.
pub fn steps(path: &str) -> Vec<&str> {
    path.trim_start_matches('.').split('.').collect()
}

impl Scale {
    /// Findings about replicas and selector of an object; of those in the status alone when only
    /// that is written.
    pub fn validate(&self, object: &Value, is_status: bool) -> Vec<FieldError> {
        let mut out = Vec::new();
        if !is_status {
            replicas(object, &self.spec_replicas_path, &mut out);
        }
        replicas(object, &self.status_replicas_path, &mut out);
        if let Some(path) = &self.label_selector_path
            && let Err(why) = text(object, path)
        {
            out.push(FieldError::invalid(&Path::default().member(path), "", why));
        }
        out
    }
}

fn replicas(object: &Value, path: &str, out: &mut Vec<FieldError>) {
    let at = Path::default().member(path);
    match number(object, path) {
        Err(why) => out.push(FieldError::invalid(&at, 0, why)),
        Ok(Some(count)) if count < 0 => {
            out.push(FieldError::invalid(&at, count, "should be a non-negative integer"));
        }
        Ok(Some(count)) if count > i64::from(i32::MAX) => {
            let detail = format!("should be less than or equal to {}", i32::MAX);
            out.push(FieldError::invalid(&at, count, detail));
        }
        Ok(_) => {}
    }
}

/// An integer at a path; `None` when it is absent.
///
/// # Errors
/// When something else is there, in upstream's words.
pub fn number(object: &Value, path: &str) -> Result<Option<i64>, String> {
    match get(object, path)? {
        None => Ok(None),
        Some(Value::Number(number)) if number.is_i64() => Ok(number.as_i64()),
        Some(other) => Err(mismatch(path, other, "int64")),
    }
}

/// A string at a path; `None` when it is absent.
///
/// # Errors
/// When something else is there, in upstream's words.
pub fn text<'a>(object: &'a Value, path: &str) -> Result<Option<&'a str>, String> {
    match get(object, path)? {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(mismatch(path, other, "string")),
    }
}

fn get<'a>(object: &'a Value, path: &str) -> Result<Option<&'a Value>, String> {
    let mut value = object;
    for step in steps(path) {
        let map = match value {
            Value::Object(map) => map,
            Value::Null => return Ok(None),
            other => return Err(mismatch(path, other, "map[string]interface{}")),
        };
        match map.get(step) {
            Some(found) => value = found,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

/// Upstream names the whole path, whatever step went wrong.
fn mismatch(path: &str, found: &Value, wanted: &str) -> String {
    let (shown, ty) = match found {
        Value::Null => ("<nil>".to_owned(), "<nil>"),
        Value::Bool(on) => (on.to_string(), "bool"),
        Value::Number(number) if number.is_f64() => (number.to_string(), "float64"),
        Value::Number(number) => (number.to_string(), "int64"),
        Value::String(text) => (text.clone(), "string"),
        Value::Array(items) if items.is_empty() => ("[]".to_owned(), "[]interface {}"),
        Value::Array(_) => (found.to_string(), "[]interface {}"),
        Value::Object(map) if map.is_empty() => ("map[]".to_owned(), "map[string]interface {}"),
        Value::Object(_) => (found.to_string(), "map[string]interface {}"),
    };
    format!("{path} accessor error: {shown} is of the type {ty}, expected {wanted}")
}

/// Puts an integer at a path; objects on the way are made.
pub fn put(object: &mut Value, path: &str, number: i64) {
    let mut value = object;
    for step in steps(path) {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        value = &mut value[step];
    }
    *value = Value::from(number);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn replicas_are_numbers() {
        let scale = Scale {
            spec_replicas_path: ".spec.replicas".into(),
            status_replicas_path: ".status.replicas".into(),
            label_selector_path: None,
        };
        let found = |object| -> Vec<String> {
            scale.validate(&object, false).iter().map(ToString::to_string).collect()
        };
        assert_eq!(found(json!({"spec": {"replicas": 3}})), Vec::<String>::new());
        assert_eq!(
            found(json!({"spec": {"replicas": -1}})),
            [".spec.replicas: Invalid value: -1: should be a non-negative integer"]
        );
        assert_eq!(
            found(json!({"spec": []})),
            [".spec.replicas: Invalid value: 0: .spec.replicas accessor error: [] is of the type \
              []interface {}, expected map[string]interface{}"]
        );
    }

    #[test]
    fn replicas_are_put_where_they_belong() {
        let mut object = json!({});
        put(&mut object, ".spec.a.replicas", 2);
        assert_eq!(object, json!({"spec": {"a": {"replicas": 2}}}));
    }
}
