//! JSON patch, RFC 6902, with what upstream's library adds: negative indices count from the end.

use serde_json::{Map, Value};

use crate::PatchError;
use crate::go_print::json_word;

/// Upstream's limit on operations in one patch.
const MAX_OPERATIONS: usize = 10_000;
/// Upstream's limit on the bytes of all values that one patch copies: each may hold the ones before.
const MAX_COPIED: usize = 3 << 20;
const GO_TYPE: &str = "[]handlers.jsonPatchOp";

/// Applies a JSON patch (RFC 6902).
///
/// # Errors
/// When the patch is malformed, too long, or an operation does not fit.
pub fn json(document: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let operations = parse(patch)?;
    let mut document = document.clone();
    let mut room = Room(MAX_COPIED);
    for operation in &operations {
        apply(&mut document, operation, &mut room).ok_or(PatchError::Rejected)?;
    }
    Ok(document)
}

/// Members of operations that mean nothing, as `json patch unknown field "[0].x"`.
pub fn json_unknown_fields(patch: &[u8]) -> Vec<String> {
    let Ok(operations) = parse(patch) else { return Vec::new() };
    let known = |name: &str| matches!(name, "op" | "path" | "from" | "value");
    let mut findings = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        for name in operation.keys().filter(|name| !known(name)) {
            findings.push(format!("json patch unknown field \"[{at}].{name}\""));
        }
    }
    findings
}

fn parse(patch: &[u8]) -> Result<Vec<Map<String, Value>>, PatchError> {
    let malformed = |text: String| PatchError::Malformed(format!("error decoding patch: {text}"));
    schema::check_json_syntax(patch).map_err(malformed)?;
    let parsed: Value =
        serde_json::from_slice(patch).map_err(|error| malformed(error.to_string()))?;
    let items = match parsed {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        other => {
            let what = json_word(&other);
            return Err(malformed(format!(
                "json: cannot unmarshal {what} into Go value of type {GO_TYPE}"
            )));
        }
    };
    if items.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations { max: MAX_OPERATIONS, count: items.len() });
    }
    items
        .into_iter()
        .map(|item| match item {
            Value::Object(operation) => Ok(operation),
            other => Err(malformed(format!(
                "json: cannot unmarshal {} into Go value of type handlers.jsonPatchOp",
                json_word(&other)
            ))),
        })
        .collect()
}

/// Bytes that may still be copied.
struct Room(usize);

impl std::io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn apply(document: &mut Value, operation: &Map<String, Value>, room: &mut Room) -> Option<()> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let path = text("path")?;
    let value = || operation.get("value").cloned();
    match text("op")? {
        "add" => add(document, path, value().unwrap_or(Value::Null)),
        "remove" => remove(document, path).map(drop),
        "replace" => {
            let slot = find(document, path)?;
            *slot = value().unwrap_or(Value::Null);
            Some(())
        }
        "move" => {
            let moved = remove(document, text("from")?)?;
            add(document, path, moved)
        }
        "copy" => {
            let found = find(document, text("from")?)?;
            // It is printed to nowhere, to know how large it is.
            serde_json::to_writer(room, found).ok()?;
            let copied = found.clone();
            add(document, path, copied)
        }
        "test" => {
            let wanted = value().unwrap_or(Value::Null);
            let same = match find(document, path) {
                Some(found) => *found == wanted,
                // A member that is not there is as good as null, but its parent must be there.
                None => wanted.is_null() && parent(document, path).is_some(),
            };
            same.then_some(())
        }
        _ => None,
    }
}

/// The steps of a pointer; whatever stands before the first slash is ignored, as upstream does.
fn steps(path: &str) -> Option<Vec<String>> {
    let (_, rest) = path.split_once('/')?;
    Some(rest.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

fn find<'a>(document: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    if path.is_empty() {
        return Some(document);
    }
    steps(path)?.iter().try_fold(document, |value, step| descend(value, step))
}

fn parent<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let mut steps = steps(path)?;
    let last = steps.pop()?;
    let parent = steps.iter().try_fold(document, |value, step| descend(value, step))?;
    Some((parent, last))
}

fn descend<'a>(value: &'a mut Value, step: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(map) => map.get_mut(step),
        Value::Array(items) => {
            let at = index(step, items.len(), items.len().checked_sub(1)?)?;
            items.get_mut(at)
        }
        _ => None,
    }
}

/// An index into a list of `len` items, at most `max`; negative ones count from the end.
fn index(step: &str, len: usize, max: usize) -> Option<usize> {
    let number: i64 = step.parse().ok()?;
    let at = if number < 0 {
        len.checked_sub(usize::try_from(number.unsigned_abs()).ok()?)?
    } else {
        usize::try_from(number).ok()?
    };
    (at <= max).then_some(at)
}

fn add(document: &mut Value, path: &str, value: Value) -> Option<()> {
    let (parent, last) = parent(document, path)?;
    match parent {
        Value::Object(map) => {
            map.insert(last, value);
        }
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            // Counted in the list as it will be.
            let at = index(&last, items.len() + 1, items.len())?;
            items.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(document: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = parent(document, path)?;
    match parent {
        Value::Object(map) => map.remove(&last),
        Value::Array(items) => {
            let at = index(&last, items.len(), items.len().checked_sub(1)?)?;
            Some(items.remove(at))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(patch: Value, expected: Option<Value>) {
        let document = json!({"a": {"b": [1, 2, 3], "c/d": "x"}});
        let text = serde_json::to_vec(&patch).unwrap();
        assert_eq!(json(&document, &text).ok(), expected, "{patch}");
    }

    #[test]
    fn copies_of_copies_end_at_a_limit() {
        let document = serde_json::json!({"a": {"x": "y".repeat(1000)}});
        let copies = |count: usize| {
            let one =
                |n| serde_json::json!({"op": "copy", "from": "/a", "path": format!("/a/c{n}")});
            let all: Vec<Value> = (0..count).map(one).collect();
            json(&document, Value::from(all).to_string().as_bytes())
        };
        assert!(copies(10).is_ok());
        assert_eq!(copies(60), Err(PatchError::Rejected));
    }

    #[test]
    fn operations_do_what_upstream_does() {
        let with = |b: Value| Some(json!({"a": {"b": b, "c/d": "x"}}));
        check(json!([{"op": "add", "path": "/a/b/-", "value": 4}]), with(json!([1, 2, 3, 4])));
        check(json!([{"op": "add", "path": "/a/b/1", "value": 4}]), with(json!([1, 4, 2, 3])));
        check(json!([{"op": "add", "path": "/a/b/9", "value": 4}]), None);
        check(json!([{"op": "remove", "path": "/a/b/-1"}]), with(json!([1, 2])));
        check(json!([{"op": "remove", "path": "/a/nope"}]), None);
        check(json!([{"op": "replace", "path": "/a/b/0", "value": 9}]), with(json!([9, 2, 3])));
        check(json!([{"op": "replace", "path": "/a/nope", "value": 9}]), None);
        check(json!([{"op": "add", "path": "", "value": {}}]), None);
        check(json!([{"op": "replace", "path": "", "value": {}}]), Some(json!({})));
        check(json!([{"op": "test", "path": "/a/c~1d", "value": "x"}]), with(json!([1, 2, 3])));
        check(json!([{"op": "test", "path": "/a/c~1d", "value": "y"}]), None);
        check(
            json!([{"op": "move", "from": "/a/c~1d", "path": "/e"}]),
            Some(json!({"a": {"b": [1, 2, 3]}, "e": "x"})),
        );
        check(json!([{"op": "nope", "path": "/a"}]), None);
    }

    #[test]
    fn malformed_patches_are_refused_in_upstream_words() {
        for (patch, expected) in [
            ("", "error decoding patch: unexpected end of JSON input"),
            (
                "{}",
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
        ] {
            assert_eq!(json(&json!({}), patch.as_bytes()).unwrap_err().to_string(), expected);
        }
        let many = format!("[{}]", vec!["{}"; 10_001].join(","));
        assert_eq!(
            json(&json!({}), many.as_bytes()).unwrap_err().to_string(),
            "The allowed maximum operations in a JSON patch is 10000, got 10001"
        );
        let unknown = br#"[{"op":"test","path":"/a","value":null,"zzz":1}]"#;
        assert_eq!(json_unknown_fields(unknown), ["json patch unknown field \"[0].zzz\""]);
    }
}
