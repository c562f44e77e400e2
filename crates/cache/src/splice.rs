//! Putting the resource version into an object's JSON.
//!
//! The version is known only when a write is committed: the store is told the place, and what it
//! keeps is then shared by every reader. Values of a store that cannot do this get it when they are
//! read. Canonical JSON has metadata early and its fields in a fixed order, so the place is found by
//! skipping a few values, without parsing.

use bytes::{Bytes, BytesMut};

/// Fields of metadata that come before the resource version.
const BEFORE: [&[u8]; 5] = [b"name", b"generateName", b"namespace", b"selfLink", b"uid"];

/// The JSON with this resource version, in place of another or of none.
///
/// `None` when the bytes are not an object with metadata.
pub fn with_resource_version(json: &Bytes, version: u64) -> Option<Bytes> {
    let place = find(json)?;
    let text = version.to_string();
    let found = &json[place.start..place.end];
    let found = found.strip_prefix(FIELD).and_then(|found| found.strip_suffix(b"\""));
    if found == Some(text.as_bytes()) {
        return Some(json.clone());
    }
    Some(insert(json, &place, &text).0)
}

/// The JSON with an empty resource version, and where its digits belong.
pub fn with_place_for_version(json: &[u8]) -> Option<(Bytes, usize)> {
    Some(insert(json, &find(json)?, ""))
}

/// What comes before the digits.
const FIELD: &[u8] = b"\"resourceVersion\":\"";

fn insert(json: &[u8], place: &Place, text: &str) -> (Bytes, usize) {
    let mut out = BytesMut::with_capacity(json.len() + text.len() + FIELD.len() + 2);
    out.extend_from_slice(&json[..place.start]);
    if place.needs_comma_before {
        out.extend_from_slice(b",");
    }
    out.extend_from_slice(FIELD);
    let at = out.len();
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\"");
    if place.needs_comma_after {
        out.extend_from_slice(b",");
    }
    out.extend_from_slice(&json[place.end..]);
    (out.freeze(), at)
}

/// The bytes of `metadata`, braces included.
pub fn metadata(json: &[u8]) -> Option<&[u8]> {
    let start = enter_metadata(json)? - 1;
    let found = &json[start..skip_value(json, start)?];
    // Brackets are only counted.
    found.ends_with(b"}").then_some(found)
}

struct Place {
    start: usize,
    end: usize,
    needs_comma_before: bool,
    needs_comma_after: bool,
}

fn find(json: &[u8]) -> Option<Place> {
    let mut at = enter_metadata(json)?;
    let mut is_first = true;
    loop {
        if json.get(at) == Some(&b'}') {
            let start = at;
            return Some(Place {
                start,
                end: start,
                needs_comma_before: !is_first,
                needs_comma_after: false,
            });
        }
        let key_at = if is_first { at } else { expect(json, at, b',')? };
        let (key, value) = key(json, key_at)?;
        let end = skip_value(json, value)?;
        if key == b"resourceVersion" {
            return Some(Place {
                start: key_at,
                end,
                needs_comma_before: false,
                needs_comma_after: false,
            });
        }
        if !BEFORE.contains(&key) {
            return Some(Place {
                start: key_at,
                end: key_at,
                needs_comma_before: false,
                needs_comma_after: true,
            });
        }
        at = end;
        is_first = false;
    }
}

/// The offset behind the opening brace of `metadata`.
fn enter_metadata(json: &[u8]) -> Option<usize> {
    let mut at = expect(json, 0, b'{')?;
    loop {
        let (key, value) = key(json, at)?;
        if key == b"metadata" {
            return expect(json, value, b'{');
        }
        at = expect(json, skip_value(json, value)?, b',')?;
    }
}

/// A key and the offset of its value.
fn key(json: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let end = skip_string(json, at)?;
    Some((&json[at + 1..end - 1], expect(json, end, b':')?))
}

fn expect(json: &[u8], at: usize, byte: u8) -> Option<usize> {
    (json.get(at) == Some(&byte)).then_some(at + 1)
}

fn skip_string(json: &[u8], at: usize) -> Option<usize> {
    let mut at = expect(json, at, b'"')?;
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn skip_value(json: &[u8], at: usize) -> Option<usize> {
    match json.get(at)? {
        b'"' => skip_string(json, at),
        b'{' | b'[' => {
            let mut depth = 0_usize;
            let mut at = at;
            loop {
                match json.get(at)? {
                    b'"' => at = skip_string(json, at)?,
                    b'{' | b'[' => {
                        depth += 1;
                        at += 1;
                    }
                    b'}' | b']' => {
                        depth -= 1;
                        at += 1;
                        if depth == 0 {
                            return Some(at);
                        }
                    }
                    _ => at += 1,
                }
            }
        }
        _ => {
            let length = json[at..].iter().position(|byte| b",}]".contains(byte))?;
            Some(at + length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &str) {
        let json = Bytes::copy_from_slice(json.as_bytes());
        let found = with_resource_version(&json, 7).unwrap();
        assert_eq!(std::str::from_utf8(&found).unwrap(), expected);
        // Replacing finds the same place, and what is right already is shared.
        let other = with_resource_version(&found, 12).unwrap();
        assert_eq!(with_resource_version(&other, 7).unwrap(), found);
        assert_eq!(with_resource_version(&found, 7).unwrap().as_ptr(), found.as_ptr());
        let (with_place, at) = with_place_for_version(&json).unwrap();
        let (before, after) = with_place.split_at(at);
        assert_eq!([before, b"7", after].concat(), found);
    }

    #[test]
    fn the_version_goes_behind_the_uid() {
        check(
            r#"{"kind":"X","metadata":{"name":"a","uid":"u","labels":{"a":"}"}},"spec":{}}"#,
            r#"{"kind":"X","metadata":{"name":"a","uid":"u","resourceVersion":"7","labels":{"a":"}"}},"spec":{}}"#,
        );
        check(
            r#"{"metadata":{"name":"a\"b"}}"#,
            r#"{"metadata":{"name":"a\"b","resourceVersion":"7"}}"#,
        );
        check(r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"7"}}"#);
        check(
            r#"{"metadata":{"creationTimestamp":null}}"#,
            r#"{"metadata":{"resourceVersion":"7","creationTimestamp":null}}"#,
        );
        check(
            r#"{"metadata":{"name":"a","resourceVersion":"12","generation":1}}"#,
            r#"{"metadata":{"name":"a","resourceVersion":"7","generation":1}}"#,
        );
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for bad in ["", "[]", "{}", r#"{"metadata":3}"#, r#"{"metadata":{"name""#] {
            assert!(with_resource_version(&Bytes::from(bad), 7).is_none(), "{bad}");
        }
    }
}
