//! Both encodings of the same objects.

use super::*;
use std::path::{Path, PathBuf};

use crate::registry::EVERY_VERSION;

/// Every vector decodes from protobuf to the same working form as from JSON, and back to the same
/// bytes.
#[test]
fn vectors_agree_between_json_and_protobuf() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let seen = check_vectors(&dir);
    assert!(seen >= 20, "only {seen} vectors");
}

/// The same for a larger set that is not kept here; a path that is given must be there.
#[test]
fn vectors_from_elsewhere_agree_between_json_and_protobuf() {
    let Some(dir) = std::env::var_os("IRONCLAD_VECTORS") else { return };
    let seen = check_vectors(&PathBuf::from(dir));
    assert!(seen >= 100, "only {seen} vectors");
}

fn check_vectors(dir: &Path) -> usize {
    let mut seen = 0;
    let mut failures = Vec::new();
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    for path in names.iter().filter(|path| path.extension().is_some_and(|e| e == "pb")) {
        seen += 1;
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(path).unwrap();
        let json = std::fs::read(path.with_extension("json")).unwrap();
        let Some((gvk, ty)) = kind_of(&name, &bytes) else {
            failures.push(format!("{name}: no table"));
            continue;
        };
        let raw = read_envelope(&bytes).map(|(_, raw)| raw);
        let value = match raw.and_then(|raw| decode_protobuf_body(ty, &gvk, raw)) {
            Ok(decoded) => decoded,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        let expected = crate::decode_json(ty, &json, crate::FieldValidation::Strict);
        match expected {
            Ok(expected) if expected.value != value => failures.push(format!(
                "{name}: {}",
                difference("", &expected.value, &value).unwrap_or_default()
            )),
            Ok(_) => {}
            Err(error) => failures.push(format!("{name}: {error}")),
        }
        let mut printed = Vec::new();
        crate::encode_json(ty, &value, &mut printed);
        let trimmed = compact(&json);
        if printed != trimmed {
            let at = printed.iter().zip(&trimmed).take_while(|(a, b)| a == b).count();
            let show = |bytes: &[u8]| {
                let end = bytes.len().min(at + 60);
                String::from_utf8_lossy(&bytes[at.saturating_sub(60).min(end)..end]).into_owned()
            };
            failures.push(format!(
                "{name}: printed {}\n   wanted {}",
                show(&printed),
                show(&trimmed)
            ));
        }
        let encoded = write::envelope(&gvk, &encode_protobuf_raw(ty, &value));
        if encoded != bytes {
            let at = encoded.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
            failures.push(format!(
                "{name}: protobuf differs at {at} of {}/{}",
                encoded.len(),
                bytes.len()
            ));
        }
    }
    assert!(failures.is_empty(), "{} of {seen}:\n{}", failures.len(), failures.join("\n"));
    seen
}

/// The kind in the envelope and its table. Events of watches say no kind.
fn kind_of(name: &str, bytes: &[u8]) -> Option<(GroupVersionKind, &'static Type)> {
    let (gvk, _) = read_envelope(bytes).ok()?;
    let ty = match gvk.kind.as_str() {
        "" => EVERY_VERSION.type_named(&format!("meta/v1.{}", name.rsplit('.').next()?)),
        _ => EVERY_VERSION.kind(&gvk),
    };
    Some((gvk, ty?))
}

/// JSON without the blanks between its tokens, in its own order.
fn compact(json: &[u8]) -> Vec<u8> {
    let (mut is_string, mut is_escaped) = (false, false);
    let mut keep = |byte: &&u8| {
        let kept = is_string || !byte.is_ascii_whitespace();
        if !is_escaped && **byte == b'"' {
            is_string = !is_string;
        }
        is_escaped = is_string && !is_escaped && **byte == b'\\';
        kept
    };
    json.iter().filter(|byte| keep(byte)).copied().collect()
}

fn difference(path: &str, a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for key in x.keys().chain(y.keys()) {
                let (left, right) = (x.get(key), y.get(key));
                if left != right {
                    let path = format!("{path}.{key}");
                    return match (left, right) {
                        (Some(left), Some(right)) => difference(&path, left, right),
                        _ => Some(format!("{path}: {left:?} vs {right:?}")),
                    };
                }
            }
            None
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => x
            .iter()
            .zip(y)
            .enumerate()
            .find_map(|(i, (x, y))| difference(&format!("{path}[{i}]"), x, y)),
        _ if a == b => None,
        _ => Some(format!("{path}: {a} vs {b}")),
    }
}

#[test]
fn malformed_bytes_are_refused() {
    assert_eq!(decode_protobuf(b"{}"), Err(ProtobufError::Magic));
    let pod = GroupVersionKind::new("", "v1", "Pod");
    let good = encode_protobuf(&pod, &serde_json::json!({"metadata": {"name": "a"}}));
    for len in 5..good.len() - 4 {
        assert!(decode_protobuf(&good[..len]).is_err() || len < 20, "{len}");
    }
}
