//! `apiVersion`, `kind` and `metadata` of whole objects and of those embedded in them.

use std::sync::LazyLock;

use meta::{GroupVersion, names};
use schema::{FieldValidation, Type};
use serde_json::{Map, Value, json};
use validation::{FieldError, Path};

use crate::structural::Structural;

static METADATA: LazyLock<Option<&'static Type>> =
    LazyLock::new(|| schema::registry().type_named("meta/v1.ObjectMeta"));

/// What is to become of metadata of the wrong shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is an error.
    Refused,
    /// It is dropped: what is stored must be readable.
    Dropped,
}

/// Brings the metadata of an object, and of objects in it, into the form the API has for it, and
/// returns the paths of what it does not know.
///
/// # Errors
/// What does not fit, in upstream's words.
pub fn coerce(
    object: &mut Value,
    schema: Option<&Structural>,
    malformed: Malformed,
) -> Result<Vec<String>, String> {
    let mut walk = Walk { malformed, unknown: Vec::new() };
    let path = Path::default();
    walk.meta(object, &path, true)?;
    if let Some(schema) = schema {
        walk.members(object, schema, &path)?;
    }
    Ok(walk.unknown)
}

struct Walk {
    malformed: Malformed,
    unknown: Vec<String>,
}

impl Walk {
    fn value(&mut self, value: &mut Value, schema: &Structural, path: &Path) -> Result<(), String> {
        if schema.is_embedded {
            self.meta(value, path, false)?;
        }
        self.members(value, schema, path)
    }

    fn members(
        &mut self,
        value: &mut Value,
        schema: &Structural,
        path: &Path,
    ) -> Result<(), String> {
        match value {
            Value::Object(map) => {
                for (name, value) in map.iter_mut() {
                    let Some(of) = schema.member(name) else { continue };
                    self.value(value, of, &path.member(name))?;
                }
            }
            Value::Array(items) => {
                let Some(of) = &schema.items else { return Ok(()) };
                for (at, item) in items.iter_mut().enumerate() {
                    self.value(item, of, &path.index(at))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn meta(&mut self, value: &mut Value, path: &Path, is_root: bool) -> Result<(), String> {
        let Value::Object(map) = value else { return Ok(()) };
        for name in ["apiVersion", "kind"] {
            let Some(given) = map.get(name).filter(|given| !given.is_string()) else { continue };
            if self.malformed == Malformed::Refused {
                let wrong =
                    FieldError::invalid(&path.member(name), given.clone(), "must be a string");
                return Err(wrong.to_string());
            }
            map.remove(name);
        }
        let Some(given) = map.get("metadata") else { return Ok(()) };
        let path = path.member("metadata");
        match decode(given) {
            Ok((metadata, unknown)) => {
                self.unknown.extend(unknown.into_iter().map(|field| format!("{path}.{field}")));
                map.insert("metadata".to_owned(), metadata);
            }
            Err(_) if self.malformed == Malformed::Dropped => {
                let metadata = salvage(given);
                map.insert("metadata".to_owned(), metadata);
            }
            // Upstream says where, except of the object itself.
            Err(why) if is_root => return Err(why),
            Err(why) => return Err(FieldError::invalid(&path, given.clone(), why).to_string()),
        }
        Ok(())
    }
}

/// The working form of metadata, and what is not known in it.
fn decode(metadata: &Value) -> Result<(Value, Vec<String>), String> {
    let Some(ty) = *METADATA else { return Ok((metadata.clone(), Vec::new())) };
    let mut metadata = metadata.clone();
    let managed = take_decoded_managers(&mut metadata);
    let decoded = schema::decode_value(ty, &metadata, FieldValidation::Warn);
    let mut decoded = decoded.map_err(|error| error.to_string())?;
    if let (Some(managed), Value::Object(map)) = (managed, &mut decoded.value) {
        map.insert("managedFields".to_owned(), managed);
    }
    let unknown = decoded.warnings.iter().filter_map(|warning| {
        let quoted = warning.strip_prefix("unknown field \"")?;
        Some(quoted.strip_suffix('"')?.to_owned())
    });
    let value = if decoded.value.is_object() { decoded.value } else { json!({}) };
    Ok((value, unknown.collect()))
}

/// Managed fields that are in the working form already, in which their sets are texts.
fn take_decoded_managers(metadata: &mut Value) -> Option<Value> {
    let list = metadata.get("managedFields")?.as_array()?;
    let is_decoded = list.iter().any(|entry| entry["fieldsV1"].is_string());
    is_decoded.then(|| metadata.as_object_mut()?.remove("managedFields")).flatten()
}

/// The fields of metadata that can be read.
fn salvage(metadata: &Value) -> Value {
    let mut kept = Map::new();
    for (name, value) in metadata.as_object().into_iter().flatten() {
        let one = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
        if let Ok((Value::Object(read), _)) = decode(&one) {
            kept.extend(read);
        }
    }
    Value::Object(kept)
}

/// Findings about objects embedded in an object.
pub(crate) fn validate(object: &Value, schema: &Structural) -> Vec<FieldError> {
    let mut out = Vec::new();
    below(object, schema, &Path::default(), &mut out);
    out
}

fn below(value: &Value, schema: &Structural, path: &Path, out: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let Some(of) = schema.member(name) else { continue };
                let path = match schema.property(name) {
                    Some(_) => path.member(name),
                    None => path.key(name),
                };
                if let (true, Value::Object(map)) = (of.is_embedded, value) {
                    one(map, value, &path, out);
                }
                below(value, of, &path, out);
            }
        }
        Value::Array(items) => {
            let Some(of) = &schema.items else { return };
            for (at, item) in items.iter().enumerate() {
                let path = path.index(at);
                if let (true, Value::Object(map)) = (of.is_embedded, item) {
                    one(map, item, &path, out);
                }
                below(item, of, &path, out);
            }
        }
        _ => {}
    }
}

fn one(map: &Map<String, Value>, value: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let (version, kind) = (path.member("apiVersion"), path.member("kind"));
    match map.get("apiVersion") {
        None => out.push(FieldError::required(&version, "")),
        Some(Value::String(text)) if text.is_empty() => {
            out.push(FieldError::required(&version, ""));
        }
        Some(Value::String(text)) if GroupVersion::parse(text).is_none() => {
            let detail = format!("unexpected GroupVersion string: {text}");
            out.push(FieldError::invalid(&version, text.as_str(), detail));
        }
        Some(Value::String(_)) => {}
        Some(other) => {
            out.push(FieldError::invalid(&version, other.clone(), "must be a string"));
        }
    }
    match map.get("kind") {
        None => out.push(FieldError::required(&kind, "")),
        Some(Value::String(text)) if text.is_empty() => out.push(FieldError::required(&kind, "")),
        Some(Value::String(text)) => {
            let wrong = names::dns1035_label(&text.to_lowercase());
            if !wrong.is_empty() {
                let wrong = wrong.join(",");
                let detail = format!("may have mixed case, but should otherwise match: {wrong}");
                out.push(FieldError::invalid(&kind, text.as_str(), detail));
            }
        }
        Some(other) => out.push(FieldError::invalid(&kind, other.clone(), "must be a string")),
    }
    if map.contains_key("metadata") {
        out.extend(validation::embedded_metadata(value, path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Structural {
        Structural::compile(&json!({"type": "object", "properties": {"e": {"type": "object",
            "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true}}}))
        .unwrap()
    }

    #[test]
    fn metadata_is_brought_into_form() {
        let mut object = json!({"metadata": {"name": "x", "creationTimestamp": null, "foo": 1},
            "e": {"metadata": {"name": "p", "bogus": 1}}});
        let unknown = coerce(&mut object, Some(&schema()), Malformed::Refused).unwrap();
        assert_eq!(unknown, ["metadata.foo", "e.metadata.bogus"]);
        assert_eq!(object, json!({"metadata": {"name": "x"}, "e": {"metadata": {"name": "p"}}}));
    }

    #[test]
    fn metadata_of_the_wrong_shape_is_refused_in_requests() {
        for (object, expected) in [
            (
                json!({"metadata": []}),
                "json: cannot unmarshal array into Go value of type v1.ObjectMeta",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type \
                 string",
            ),
            (
                json!({"e": {"metadata": {"labels": {"a": 1}, "name": "Bad_"}}}),
                "e.metadata: Invalid value: {\"labels\":{\"a\":1},\"name\":\"Bad_\"}: json: cannot \
                 unmarshal number into Go struct field ObjectMeta.labels of type string",
            ),
        ] {
            let mut object = object;
            let found = coerce(&mut object, Some(&schema()), Malformed::Refused);
            assert_eq!(found.unwrap_err(), expected);
        }
    }

    #[test]
    fn what_is_in_form_stays_as_it_is() {
        let mut object = json!({"metadata": {"name": "x", "managedFields": [{"manager": "m",
            "fieldsV1": {"f:spec": {}}}]}});
        coerce(&mut object, None, Malformed::Refused).unwrap();
        assert_eq!(object["metadata"]["managedFields"][0]["fieldsV1"], "{\"f:spec\":{}}");
        let once = object.clone();
        coerce(&mut object, None, Malformed::Refused).unwrap();
        assert_eq!(object, once);
    }

    #[test]
    fn what_is_stored_is_salvaged() {
        let mut object = json!({"metadata": {"name": "x", "labels": {"a": 1}}});
        coerce(&mut object, None, Malformed::Dropped).unwrap();
        assert_eq!(object, json!({"metadata": {"name": "x"}}));
    }

    #[test]
    fn embedded_objects_say_what_they_are() {
        let object = json!({"e": {"kind": "pod_", "metadata": {"name": "a"}}});
        let found = validate(&object, &schema());
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found[0], "e.apiVersion: Required value");
        assert!(found[1].starts_with("e.kind: Invalid value: \"pod_\": may have mixed case"));
    }
}
