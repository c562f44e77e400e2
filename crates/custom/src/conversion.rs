//! Objects from one version into another: by name alone, or by a webhook that may not be trusted.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/conversion`.

use meta::{GroupVersion, names};
use serde_json::{Map, Value, json};

/// The reviews that are understood.
const KNOWN: [&str; 2] = ["v1", "v1beta1"];

/// Puts another version into an object.
pub fn by_name(object: &mut Value, api_version: &str) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), Value::from(api_version));
    }
}

/// A review that is sent to a webhook.
#[derive(Debug)]
pub struct Review {
    /// What is sent.
    pub body: Vec<u8>,
    version: &'static str,
    uid: String,
    wanted: String,
}

/// Why objects could not be converted. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConversionError(String);

fn refused(what: impl Into<String>) -> ConversionError {
    ConversionError(what.into())
}

impl Review {
    /// Asks for objects in another version.
    ///
    /// # Errors
    /// When the webhook understands no review that we do.
    pub fn new(
        understood: &[String],
        uid: &str,
        api_version: &str,
        objects: &[Value],
    ) -> Result<Self, ConversionError> {
        let version = understood
            .iter()
            .find_map(|version| KNOWN.into_iter().find(|known| known == version))
            .ok_or_else(|| refused("no supported conversion review versions"))?;
        let body = json!({"kind": "ConversionReview",
            "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects}});
        Ok(Self {
            body: body.to_string().into_bytes(),
            version,
            uid: uid.to_owned(),
            wanted: api_version.to_owned(),
        })
    }

    /// The converted objects of an answer, with the metadata of the originals: a webhook may change
    /// labels and annotations, and nothing else of it. `kind` names what was asked about.
    ///
    /// # Errors
    /// When the webhook did not do as it was asked.
    pub fn read(
        &self,
        answer: &[u8],
        originals: &[Value],
        kind: &str,
    ) -> Result<Vec<Value>, ConversionError> {
        let failed = |why: String| refused(format!("conversion webhook for {kind} failed: {why}"));
        let objects = self.objects(answer).map_err(failed)?;
        if objects.len() != originals.len() {
            return Err(refused(format!(
                "conversion webhook for {kind} returned {} objects, expected {}",
                objects.len(),
                originals.len()
            )));
        }
        let mut converted = Vec::with_capacity(objects.len());
        for (at, (object, original)) in objects.into_iter().zip(originals).enumerate() {
            let invalid = |why: String| {
                refused(format!("conversion webhook for {kind} returned invalid object: {why}"))
            };
            let at_index = |why: String| {
                refused(format!(
                    "conversion webhook for {kind} returned invalid object at index {at}: {why}"
                ))
            };
            let (wanted, got) = (self.wanted.as_str(), text(&object, "/apiVersion"));
            if GroupVersion::parse(wanted) != GroupVersion::parse(got) {
                return Err(at_index(format!(
                    "invalid groupVersion (expected {wanted}, received {got})"
                )));
            }
            let (expected, got) = (text(original, "/kind"), text(&object, "/kind"));
            if expected != got {
                return Err(at_index(format!(
                    "invalid kind (expected {expected}, received {got})"
                )));
            }
            same_object(original, &object).map_err(invalid)?;
            converted.push(restored(original, object).map_err(|why| {
                refused(format!("conversion webhook for {kind} returned invalid metadata: {why}"))
            })?);
        }
        Ok(converted)
    }

    fn objects(&self, answer: &[u8]) -> Result<Vec<Value>, String> {
        let mut answer: Value =
            serde_json::from_slice(answer).map_err(|error| error.to_string())?;
        if self.version == "v1" {
            let found =
                (text(&answer, "/apiVersion").to_owned(), text(&answer, "/kind").to_owned());
            if (found.0.as_str(), found.1.as_str())
                != ("apiextensions.k8s.io/v1", "ConversionReview")
            {
                return Err(format!(
                    "expected webhook response of apiextensions.k8s.io/v1, \
                     Kind=ConversionReview, got {}, Kind={}",
                    found.0, found.1
                ));
            }
        }
        let response = answer.get_mut("response").filter(|response| response.is_object());
        let response = response.ok_or("no response provided")?;
        let uid = text(response, "/uid");
        if self.version == "v1" && uid != self.uid {
            return Err(format!("expected response.uid={:?}, got {uid:?}", self.uid));
        }
        let status = text(response, "/result/status");
        if status != "Success" {
            let message = text(response, "/result/message");
            return Err(if message.is_empty() {
                format!("response.result.status was '{status}', not 'Success'")
            } else {
                message.to_owned()
            });
        }
        match response["convertedObjects"].take() {
            Value::Array(objects) => Ok(objects),
            _ => Ok(Vec::new()),
        }
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn same_object(original: &Value, converted: &Value) -> Result<(), String> {
    for (pointer, word) in
        [("/metadata/name", "name"), ("/metadata/namespace", "namespace"), ("/metadata/uid", "UID")]
    {
        let (expected, got) = (text(original, pointer), text(converted, pointer));
        if expected != got {
            return Err(format!("must have the same {word}: {expected} != {got}"));
        }
    }
    Ok(())
}

/// The converted object with the metadata of the original, but its own labels and annotations.
fn restored(original: &Value, mut converted: Value) -> Result<Value, String> {
    let given = match converted.get_mut("metadata") {
        None => return Err("missing metadata in converted object".to_owned()),
        Some(Value::Object(given)) => std::mem::take(given),
        Some(other) => {
            return Err(format!("invalid metadata of type {} in converted object", go_type(other)));
        }
    };
    let mut metadata =
        original.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match given.get(field) {
            None | Some(Value::Null) => {
                metadata.remove(field);
            }
            Some(Value::Object(map)) => {
                check_texts(field, map)?;
                metadata.insert(field.to_owned(), Value::Object(map.clone()));
            }
            Some(other) => {
                return Err(format!(
                    "invalid metadata.{field} of type {} in converted object",
                    go_type(other)
                ));
            }
        }
    }
    converted["metadata"] = Value::Object(metadata);
    Ok(converted)
}

fn check_texts(field: &str, map: &Map<String, Value>) -> Result<(), String> {
    for (key, value) in map {
        let Some(value) = value.as_str() else {
            return Err(format!(
                "metadata.{field}[{key}] must be a string, but is {} in converted object",
                go_type(value)
            ));
        };
        let key_of = if field == "labels" { key.clone() } else { key.to_lowercase() };
        let mut wrong = names::qualified_name(&key_of);
        let mut shown = key.as_str();
        if wrong.is_empty() && field == "labels" {
            wrong = names::label_value(value);
            shown = value;
        }
        if let Some(wrong) = wrong.first() {
            let path = if field == "labels" { "metadata.labels" } else { "metadata.annotation" };
            return Err(format!("{path}: Invalid value: {shown:?}: {wrong}"));
        }
    }
    Ok(())
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "a.b/v1, Kind=Foo";

    fn original() -> Value {
        json!({"apiVersion": "a.b/v1", "kind": "Foo", "metadata": {"name": "x", "uid": "u",
            "labels": {"a": "b"}, "resourceVersion": "7"}, "spec": {}})
    }

    fn check(answer: Value, expected: &str) {
        let review = Review::new(&["v1".to_owned()], "1", "a.b/v2", &[original()]).unwrap();
        let found = review.read(answer.to_string().as_bytes(), &[original()], KIND);
        assert_eq!(found.unwrap_err().to_string(), expected);
    }

    fn answer(response: Value) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "response": response})
    }

    fn with_object(object: Value) -> Value {
        answer(json!({"uid": "1", "result": {"status": "Success"}, "convertedObjects": [object]}))
    }

    #[test]
    fn answers_that_lie_are_refused() {
        let failed = |why: &str| format!("conversion webhook for {KIND} failed: {why}");
        let invalid = |why: &str| format!("conversion webhook for {KIND} returned {why}");
        check(
            json!({}),
            &failed(
                "expected webhook response of apiextensions.k8s.io/v1, \
            Kind=ConversionReview, got , Kind=",
            ),
        );
        check(
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"}),
            &failed("no response provided"),
        );
        check(answer(json!({"uid": "2"})), &failed("expected response.uid=\"1\", got \"2\""));
        check(
            answer(json!({"uid": "1", "result": {"status": "Failure", "message": "no"}})),
            &failed("no"),
        );
        check(
            answer(json!({"uid": "1", "result": {"status": "Odd"}})),
            &failed("response.result.status was 'Odd', not 'Success'"),
        );
        check(
            answer(json!({"uid": "1", "result": {"status": "Success"}})),
            &invalid("0 objects, expected 1"),
        );
        let mut object = original();
        check(
            with_object(object.clone()),
            &invalid(
                "invalid object at index 0: invalid groupVersion (expected a.b/v2, received \
                a.b/v1)",
            ),
        );
        object["apiVersion"] = json!("a.b/v2");
        object["kind"] = json!("Bar");
        check(
            with_object(object.clone()),
            &invalid("invalid object at index 0: invalid kind (expected Foo, received Bar)"),
        );
        object["kind"] = json!("Foo");
        object["metadata"]["name"] = json!("y");
        check(
            with_object(object.clone()),
            &invalid("invalid object: must have the same name: x != y"),
        );
        object["metadata"]["name"] = json!("x");
        object["metadata"]["labels"] = json!({"a": 1});
        check(
            with_object(object),
            &invalid(
                "invalid metadata: metadata.labels[a] must be a string, but is int64 in \
                converted object",
            ),
        );
    }

    #[test]
    fn only_labels_and_annotations_are_changed() {
        let review = Review::new(&["v1".to_owned()], "1", "a.b/v2", &[original()]).unwrap();
        let object = json!({"apiVersion": "a.b/v2", "kind": "Foo", "metadata": {"name": "x",
            "uid": "u", "labels": {"c": "d"}, "resourceVersion": "9", "finalizers": ["f"]},
            "spec": {"n": 1}});
        let answer = with_object(object).to_string();
        let found = review.read(answer.as_bytes(), &[original()], KIND).unwrap();
        assert_eq!(
            found[0],
            json!({"apiVersion": "a.b/v2", "kind": "Foo", "metadata": {"name": "x", "uid": "u",
                "labels": {"c": "d"}, "resourceVersion": "7"}, "spec": {"n": 1}})
        );
    }

    #[test]
    fn reviews_nobody_understands_are_not_sent() {
        let review = Review::new(&["v9".to_owned()], "1", "a.b/v2", &[]);
        assert_eq!(review.unwrap_err().to_string(), "no supported conversion review versions");
    }
}
