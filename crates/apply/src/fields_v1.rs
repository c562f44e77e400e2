//! `FieldsV1`: a set of fields as JSON.
//!
//! A step is a member named `f:name`, `k:{"key":…}`, `v:value` or `i:place`; what is below it is its
//! value, and `.` in that says that the path itself is in the set. An empty value says so too.

use std::fmt;

use schema::go_escape;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::element::Element;
use crate::set::{Branch, FieldSet, Node};

/// Why managed fields cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FieldsError(pub(crate) String);

impl FieldSet {
    /// Reads `FieldsV1`.
    ///
    /// # Errors
    /// When the text is not JSON, or a step is malformed; steps of unknown sorts are left out.
    pub fn from_fields_v1(text: &str) -> Result<Self, FieldsError> {
        let below: Below =
            serde_json::from_str(text).map_err(|error| FieldsError(error.to_string()))?;
        Ok(below.branch.below)
    }

    /// Appends the set as `FieldsV1`, in upstream's order.
    pub fn write_fields_v1(&self, out: &mut Vec<u8>) {
        write(self, false, out);
    }

    /// The set as `FieldsV1`.
    pub fn to_fields_v1(&self) -> String {
        let mut out = Vec::with_capacity(256);
        self.write_fields_v1(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}

fn write(set: &FieldSet, is_member: bool, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut is_first = true;
    if is_member && !set.is_empty() {
        out.extend_from_slice(b"\".\":{}");
        is_first = false;
    }
    for node in set.nodes() {
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        write_element(&node.element, out);
        out.push(b':');
        write(&node.branch.below, node.branch.is_member, out);
    }
    out.push(b'}');
}

/// Whether a text stands for itself in JSON, and in JSON that is a string in JSON.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte))
}

/// Appends the step into a field.
pub(crate) fn write_field(name: &str, out: &mut Vec<u8>) {
    // Nearly every name is plain.
    if is_plain(name) {
        out.extend_from_slice(b"\"f:");
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
    } else {
        go_escape(&format!("f:{name}"), out);
    }
}

/// Appends the step to an item whose keys are plain texts and numbers; whether they are.
fn write_plain_keys(keys: &[(schema::Text, Value)], out: &mut Vec<u8>) -> bool {
    let is_simple = |(name, value): &(schema::Text, Value)| match value {
        Value::String(text) => is_plain(text) && is_plain(name),
        Value::Number(_) => is_plain(name),
        _ => false,
    };
    if !keys.iter().all(is_simple) {
        return false;
    }
    out.extend_from_slice(b"\"k:{");
    for (at, (name, value)) in keys.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",\\\"" } else { b"\\\"" });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\\\":");
        match value {
            Value::String(text) => {
                out.extend_from_slice(b"\\\"");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\\\"");
            }
            other => out.extend_from_slice(other.to_string().as_bytes()),
        }
    }
    out.extend_from_slice(b"}\"");
    true
}

/// Appends a step.
pub(crate) fn write_element(element: &Element, out: &mut Vec<u8>) {
    let text = match element {
        Element::Field(name) => return write_field(name, out),
        Element::Key(keys) if write_plain_keys(keys, out) => return,
        Element::Key(keys) => {
            let keys: Vec<String> = keys
                .iter()
                .map(|(name, value)| format!("{}:{value}", Value::from(&**name)))
                .collect();
            format!("k:{{{}}}", keys.join(","))
        }
        Element::Value(value) => format!("v:{value}"),
        Element::Index(at) => format!("i:{at}"),
    };
    go_escape(&text, out);
}

/// A step from its text; `None` for sorts that are not known.
fn read_element(text: &str) -> Result<Option<Element>, FieldsError> {
    let Some((sort, rest)) = text.split_at_checked(2).filter(|(sort, _)| sort.ends_with(':'))
    else {
        return Err(FieldsError(format!("invalid key: {text:?}")));
    };
    let json = || -> Result<Value, FieldsError> {
        serde_json::from_str(rest).map_err(|error| FieldsError(error.to_string()))
    };
    Ok(match sort {
        "f:" => Some(Element::Field(rest.to_owned().into())),
        "k:" => match json()? {
            Value::Object(keys) => {
                Some(Element::Key(keys.into_iter().map(|(key, v)| (key.into(), v)).collect()))
            }
            other => return Err(FieldsError(format!("invalid key: {other}"))),
        },
        "v:" => Some(Element::Value(json()?)),
        "i:" => {
            let at = rest.parse().map_err(|_| FieldsError(format!("invalid index: {rest:?}")))?;
            Some(Element::Index(at))
        }
        _ => None,
    })
}

/// The value of a step.
struct Below {
    branch: Branch,
}

impl<'de> Deserialize<'de> for Below {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BelowVisitor)
    }
}

struct BelowVisitor;

impl<'de> Visitor<'de> for BelowVisitor {
    type Value = Below;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a set of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Below, A::Error> {
        let (mut nodes, mut is_member) = (Vec::new(), false);
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == "." {
                map.next_value::<IgnoredAny>()?;
                is_member = true;
                continue;
            }
            match read_element(&key).map_err(serde::de::Error::custom)? {
                Some(element) => {
                    let below: Below = map.next_value()?;
                    nodes.push(Node { element, branch: below.branch });
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let below = FieldSet::from_nodes(nodes);
        is_member |= below.is_empty();
        Ok(Below { branch: Branch { is_member, below } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sets_are_written_in_upstream_order() {
        let text = r#"{"f:data":{".":{},"f:a":{}},"f:ports":{"k:{\"containerPort\":443,\"protocol\":\"TCP\"}":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{}}},"f:set":{"v:\"x\"":{}}}"#;
        let set = FieldSet::from_fields_v1(text).unwrap();
        assert_eq!(
            set.to_fields_v1(),
            r#"{"f:data":{".":{},"f:a":{}},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{}},"k:{\"containerPort\":443,\"protocol\":\"TCP\"}":{}},"f:set":{"v:\"x\"":{}}}"#
        );
        assert_eq!(set.len(), 6);
    }

    #[test]
    fn unknown_sorts_are_left_out_and_malformed_steps_refused() {
        assert!(FieldSet::from_fields_v1(r#"{"z:a":{"f:b":{}}}"#).unwrap().is_empty());
        for bad in ["[]", r#"{"f":{}}"#, r#"{"i:x":{}}"#, r#"{"k:3":{}}"#, r#"{"f:a":1}"#] {
            assert!(FieldSet::from_fields_v1(bad).is_err(), "{bad}");
        }
    }

    pub(crate) fn sets() -> impl Strategy<Value = FieldSet> {
        let element = prop_oneof![
            "[a-c<\"/]{1,2}".prop_map(|name| Element::Field(name.into())),
            (0..3_i64, "[a-b\"]").prop_map(|(port, name)| Element::Key(
                [("name".into(), Value::from(name)), ("port".into(), Value::from(port))].into()
            )),
            "[a-b<]".prop_map(|text| Element::Value(Value::from(text))),
            (0..2_i64).prop_map(Element::Index),
        ];
        let path = prop::collection::vec(element, 1..4);
        prop::collection::vec(path, 0..8).prop_map(|paths| {
            let mut set = FieldSet::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn encoding_and_decoding_is_the_identity(set in sets()) {
            prop_assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()).unwrap(), set);
        }

        #[test]
        fn algebra_agrees_with_that_of_lists(a in sets(), b in sets()) {
            let (left, right) = (a.paths(), b.paths());
            let check = |set: FieldSet, keeps: &dyn Fn(&Vec<Element>) -> bool| {
                let mut expected = FieldSet::default();
                left.iter().chain(&right).filter(|p| keeps(p)).for_each(|p| expected.insert(p));
                assert_eq!(set, expected);
            };
            check(a.union(&b), &|_| true);
            check(a.intersection(&b), &|path| left.contains(path) && right.contains(path));
            check(a.difference(&b), &|path| left.contains(path) && !right.contains(path));
            check(a.recursive_difference(&b), &|path| {
                left.contains(path) && !right.iter().any(|other| path.starts_with(other))
            });
            let goes_on = |path: &[Element]| {
                left.iter().any(|other| other.len() > path.len() && other.starts_with(path))
            };
            check(a.leaves(), &|path| left.contains(path) && !goes_on(path));
            for path in &left {
                prop_assert!(a.contains(path));
            }
        }
    }
}
