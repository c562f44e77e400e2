//! Whether a configuration fits the tables, in upstream's words.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::element::Element;
use crate::scalar::{go_type, print, print_as_syntax};
use crate::shape::{Atom, ListShape, MapShape, Relation, Scalar, Shape};

/// Findings that are told; a body of the allowed size could have a million, and nobody reads those.
const FINDINGS_MAX: usize = 1000;

/// Why an object does not fit a table, in upstream's words.
pub fn misfit(ty: &schema::Type, object: &Value) -> Option<String> {
    check(Shape::of(ty), object).err()
}

/// What does not fit; one line, or a list of them.
///
/// # Errors
/// Upstream's text.
pub(crate) fn check(shape: Shape<'_>, value: &Value) -> Result<(), String> {
    let mut findings = Vec::new();
    walk(shape, value, &mut String::new(), &mut findings);
    match findings.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => {
            let lines: Vec<String> = many.iter().map(|finding| format!("\n  {finding}")).collect();
            Err(format!("errors:{}", lines.concat()))
        }
    }
}

fn walk(shape: Shape<'_>, value: &Value, path: &mut String, findings: &mut Vec<String>) {
    if findings.len() >= FINDINGS_MAX {
        return;
    }
    let atom = shape.atom(Some(value));
    let wrong = match (atom, value) {
        (_, Value::Null) => None,
        (Atom::Scalar(scalar), _) => check_scalar(scalar, value),
        (Atom::List(list), Value::Array(items)) => {
            return walk_items(list, items, path, findings);
        }
        (Atom::Map(map), Value::Object(members)) => {
            return walk_members(map, members, path, findings);
        }
        (Atom::List(_), other) => Some(format!("expected list, got &{{{}}}", print(other))),
        (Atom::Map(_), other) => Some(format!("expected map, got &{{{}}}", print(other))),
    };
    findings.extend(wrong.map(|why| at(path, &why)));
}

fn at(path: &str, why: &str) -> String {
    if path.is_empty() { why.to_owned() } else { format!("{path}: {why}") }
}

fn check_scalar(scalar: Scalar, value: &Value) -> Option<String> {
    let shown = || format!("&value.valueUnstructured{{Value:{}}}", print_as_syntax(value));
    match (scalar, value) {
        (Scalar::Number, Value::Number(_))
        | (Scalar::String, Value::String(_))
        | (Scalar::Bool, Value::Bool(_))
        | (Scalar::Any, Value::Number(_) | Value::String(_) | Value::Bool(_)) => None,
        (Scalar::Number, other) => {
            Some(format!("expected numeric (int or float), got {}", go_type(other)))
        }
        (Scalar::String, _) => Some(format!("expected string, got {}", shown())),
        (Scalar::Bool, _) => Some(format!("expected boolean, got {}", shown())),
        (Scalar::Any, other) => Some(format!("expected any scalar, got &{{{}}}", print(other))),
    }
}

fn walk_items(list: ListShape<'_>, items: &[Value], path: &mut String, findings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let element = match list.element(index, item) {
            Ok(element) => element,
            Err(why) => {
                findings.push(at(path, &format!("element {index}: {why}")));
                return;
            }
        };
        let is_told = !matches!(list.relation, Relation::Atomic);
        if is_told && !seen.insert(element.clone()) {
            findings.push(at(path, &format!("duplicate entries for key {element}")));
        }
        below(&element, list.item, item, path, findings);
    }
}

fn walk_members(
    map: MapShape<'_>,
    members: &serde_json::Map<String, Value>,
    path: &mut String,
    findings: &mut Vec<String>,
) {
    for (name, value) in members {
        let element = Element::Field(name.clone().into());
        let Some(member) = map.member(name) else {
            findings.push(format!("{path}{element}: field not declared in schema"));
            return;
        };
        below(&element, member, value, path, findings);
    }
}

fn below(
    element: &Element,
    shape: Shape<'_>,
    value: &Value,
    path: &mut String,
    findings: &mut Vec<String>,
) {
    let length = path.len();
    path.push_str(&element.to_string());
    walk(shape, value, path, findings);
    path.truncate(length);
}
