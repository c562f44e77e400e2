//! Formats in schemas of which nobody knows what they mean.

use std::collections::BTreeSet;

use serde_json::Value;

/// The warnings about a definition; what the old one has was told then.
pub(super) fn of(object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = formats(object);
    if let Some(old) = old {
        let known = formats(old);
        found.retain(|format| !known.contains(format));
    }
    found.into_iter().map(|format| format!("unrecognized format {format:?}")).collect()
}

fn formats(definition: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    for version in versions.into_iter().flatten() {
        if let Some(root) = version.pointer("/schema/openAPIV3Schema") {
            collect(root, &mut found);
        }
    }
    found
}

fn collect(schema: &Value, found: &mut BTreeSet<String>) {
    if let Some(format) = schema["format"].as_str()
        && schema["type"] == "string"
        && !format.is_empty()
        && !custom::is_known_format(format)
    {
        found.insert(format.to_owned());
    }
    for field in ["items", "additionalProperties"] {
        if schema[field].is_object() {
            collect(&schema[field], found);
        }
    }
    schema["properties"].as_object().into_iter().flatten().for_each(|(_, s)| collect(s, found));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_new_formats_are_told_of() {
        let with = |format: &str| {
            json!({"spec": {"versions": [{"schema": {"openAPIV3Schema":
            {"type": "object", "properties": {"a": {"type": "string", "format": format}}}}}]}})
        };
        assert_eq!(of(&with("nope"), None), ["unrecognized format \"nope\""]);
        assert!(of(&with("nope"), Some(&with("nope"))).is_empty());
        assert!(of(&with("date-time"), None).is_empty());
    }
}
