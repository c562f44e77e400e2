//! Merge patch, RFC 7386.

use serde_json::{Map, Value};

use crate::PatchError;
use crate::go_print::json_word;

/// Applies a merge patch (RFC 7386).
///
/// # Errors
/// When the patch is not a JSON object.
pub fn merge(mut document: Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch = parse(patch).map_err(|text| match text {
        Some(text) => PatchError::Malformed(format!("error decoding patch: {text}")),
        None => PatchError::Malformed("Invalid JSON Patch".to_owned()),
    })?;
    apply(&mut document, &Value::Object(patch));
    Ok(document)
}

/// The object that a patch must be; `None` for null, else Go's text.
pub(crate) fn parse(patch: &[u8]) -> Result<Map<String, Value>, Option<String>> {
    schema::check_json_syntax(patch).map_err(Some)?;
    match serde_json::from_slice(patch) {
        Ok(Value::Object(patch)) => Ok(patch),
        Ok(Value::Null) => Err(None),
        Ok(other) => Err(Some(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            json_word(&other)
        ))),
        Err(error) => Err(Some(error.to_string())),
    }
}

pub(crate) fn apply(document: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *document = patch.clone();
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    let Value::Object(document) = document else { return };
    for (key, value) in patch {
        if value.is_null() {
            document.remove(key);
        } else {
            apply(document.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn check(document: Value, patch: &str, expected: Value) {
        assert_eq!(merge(document.clone(), patch.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn members_are_set_merged_and_removed() {
        check(
            json!({"a": 1, "b": {"c": 2, "d": 3}}),
            r#"{"a":null,"b":{"c":5,"e":{"f":null}}}"#,
            json!({"b": {"c": 5, "d": 3, "e": {}}}),
        );
        check(json!({"a": [1, 2]}), r#"{"a":[3]}"#, json!({"a": [3]}));
    }

    #[test]
    fn errors_are_in_upstream_words() {
        for (patch, expected) in [
            ("", "error decoding patch: unexpected end of JSON input"),
            (
                "[]",
                "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            ("null", "Invalid JSON Patch"),
        ] {
            assert_eq!(merge(json!({}), patch.as_bytes()).unwrap_err().to_string(), expected);
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![any::<u8>().prop_map(Value::from), "[a-c]{0,2}".prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn applying_twice_changes_nothing_more(document in values(), patch in values()) {
            prop_assume!(patch.is_object());
            let text = serde_json::to_vec(&patch).unwrap();
            let once = merge(document.clone(), &text).unwrap();
            prop_assert_eq!(merge(once.clone(), &text).unwrap(), once);
        }
    }
}
