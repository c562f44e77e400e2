//! Values against schemas, worded as upstream words it.
//!
//! On updates a finding about what has not changed is let pass: nobody is kept from changing a label
//! because a schema became stricter. Items of lists are told apart by their keys, where they have
//! any.
//!
//! Upstream: `kube-openapi/pkg/validation/validate` and `apiextensions-apiserver/pkg/apiserver/validation`.

mod combined;
mod scalar;

use serde_json::{Map, Value};
use validation::{ErrorType, FieldError, Path};

use crate::structural::{Additional, Checks, JsonType, ListType, Structural};

/// Findings that are told; an object of the allowed size could have a million.
const FINDINGS_MAX: usize = 1000;

/// What is wrong with a value of a schema. `old` is what it was before.
pub fn validate(value: &Value, old: Option<&Value>, schema: &Structural) -> Vec<FieldError> {
    let result = check(schema, value, old, "");
    result.findings.into_iter().map(Finding::into_error).collect()
}

/// Whether findings keep rules from being asked: what they read may not be there, or be too much.
pub(crate) fn blocks_rules(findings: &[FieldError]) -> bool {
    findings.iter().any(|finding| {
        matches!(
            finding.error_type,
            ErrorType::NotSupported
                | ErrorType::Required
                | ErrorType::TooLong
                | ErrorType::TooMany
                | ErrorType::TypeInvalid
        )
    })
}

/// A finding before it is one of the API.
#[derive(Clone, Debug, PartialEq)]
struct Finding {
    /// In dots; `None` for what upstream reports without a place.
    path: Option<String>,
    error: What,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Required,
    NotSupported(Value, Vec<String>),
    TooLong(u64),
    TooMany(u64, u64),
    WrongType(Value, String),
    Invalid(Value, String),
}

impl Finding {
    fn new(path: &str, error: What) -> Self {
        Self { path: Some(path.to_owned()), error }
    }

    fn into_error(self) -> FieldError {
        let path = match self.path.as_deref().map(|path| path.trim_start_matches('.')) {
            None | Some("") => nowhere(),
            Some(path) => Path::default().member(path),
        };
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        match self.error {
            What::Required => FieldError::required(&path, ""),
            What::NotSupported(value, supported) => {
                let supported: Vec<&str> = supported.iter().map(String::as_str).collect();
                FieldError::not_supported(&path, value, &supported)
            }
            What::TooLong(max) => FieldError::too_long(&path, size(max)),
            What::TooMany(actual, max) => FieldError::too_many(&path, size(actual), size(max)),
            What::WrongType(value, detail) => {
                FieldError::invalid(&path, value, detail).of_wrong_type()
            }
            What::Invalid(value, detail) => FieldError::invalid(&path, value, detail),
        }
    }
}

/// The path that upstream prints where there is none.
pub(crate) fn nowhere() -> Path {
    Path::new("<nil>")
}

/// What came of checking a value, and how much of it was looked at: of several alternatives that do
/// not fit, the findings of the one that got furthest are told.
#[derive(Default)]
struct Outcome {
    findings: Vec<Finding>,
    matches: usize,
}

impl Outcome {
    fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn merge(&mut self, other: Outcome) {
        self.matches += other.matches;
        other.findings.into_iter().for_each(|finding| self.add(finding));
    }

    fn is_valid(&self) -> bool {
        self.findings.is_empty()
    }
}

fn check(schema: &Structural, value: &Value, old: Option<&Value>, path: &str) -> Outcome {
    let outcome = check_new(schema, value, old, path);
    if !outcome.is_valid() && old.is_some_and(|old| is_same(schema, value, old)) {
        return Outcome { findings: Vec::new(), matches: outcome.matches };
    }
    outcome
}

fn check_new(schema: &Structural, value: &Value, old: Option<&Value>, path: &str) -> Outcome {
    let mut out = Outcome::default();
    scalar::check_type(schema, value, path, &mut out);
    out.matches += 1;
    let checks = schema.checks.as_deref();
    if value.is_null() {
        if let Some(checks) = checks {
            scalar::check_enum(checks, value, path, &mut out);
        }
        return out;
    }
    if let Some(checks) = checks {
        combined::check(checks, value, old, path, &mut out);
        scalar::check(checks, value, path, &mut out);
    }
    match value {
        Value::Array(items) => {
            check_items(schema, items, old, path, &mut out);
            if let Some(checks) = checks {
                check_count_of_items(checks, items, path, &mut out);
                scalar::check_enum(checks, value, path, &mut out);
            }
        }
        Value::Object(map) => {
            if let Some(checks) = checks {
                scalar::check_enum(checks, value, path, &mut out);
            }
            check_members(schema, map, old, path, &mut out);
        }
        _ => {
            if let Some(checks) = checks {
                scalar::check_enum(checks, value, path, &mut out);
            }
        }
    }
    out.matches += 1;
    out
}

fn check_items(
    schema: &Structural,
    items: &[Value],
    old: Option<&Value>,
    path: &str,
    out: &mut Outcome,
) {
    let Some(of) = &schema.items else { return };
    let before = old.and_then(Value::as_array);
    for (at, item) in items.iter().enumerate() {
        let old = before.and_then(|before| correlated(schema, item, before));
        out.merge(check(of, item, old, &format!("{path}[{at}]")));
    }
}

/// The old item that a new one is, as far as that can be told.
pub(crate) fn correlated<'a>(
    schema: &Structural,
    item: &Value,
    before: &'a [Value],
) -> Option<&'a Value> {
    let ListType::Map(keys) = &schema.list_type else { return None };
    before.iter().find(|old| keys.iter().all(|key| old.get(&**key) == item.get(&**key)))
}

fn check_count_of_items(checks: &Checks, items: &[Value], path: &str, out: &mut Outcome) {
    let count = items.len() as u64;
    if let Some(min) = checks.min_items.filter(|min| count < *min) {
        let detail = format!("{path} in body should have at least {min} items");
        out.add(Finding::new(path, What::Invalid(count.into(), detail)));
    }
    if let Some(max) = checks.max_items.filter(|max| count > *max) {
        out.add(Finding::new(path, What::TooMany(count, max)));
    }
    let repeats = || {
        let mut seen = std::collections::HashSet::new();
        items.iter().any(|item| !seen.insert(item.to_string()))
    };
    if checks.unique_items && repeats() {
        let detail = format!("{path} in body shouldn't contain duplicates");
        out.add(Finding::new(path, What::Invalid(Value::from(""), detail)));
    }
}

fn check_members(
    schema: &Structural,
    map: &Map<String, Value>,
    old: Option<&Value>,
    path: &str,
    out: &mut Outcome,
) {
    let none = Checks::default();
    let checks = schema.checks.as_deref().unwrap_or(&none);
    let count = map.len() as u64;
    if let Some(min) = checks.min_properties.filter(|min| count < *min) {
        let detail = format!("{path} in body should have at least {min} properties");
        return out.add(Finding::new(path, What::Invalid(count.into(), detail)));
    }
    if let Some(max) = checks.max_properties.filter(|max| count > *max) {
        return out.add(Finding::new(path, What::TooMany(count, max)));
    }
    let child =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let before = |name: &str| old.and_then(|old| old.get(name));
    if let Additional::Schema(more) = &schema.additional {
        for (name, value) in map.iter().filter(|(name, _)| schema.property(name).is_none()) {
            out.merge(check(more, value, before(name), &child(name)));
        }
    }
    for (name, property) in &schema.properties {
        if let Some(value) = map.get(&**name) {
            out.merge(check(property, value, before(name), &child(name)));
        }
    }
    for name in checks.required.iter().filter(|name| !map.contains_key(&***name)) {
        out.add(Finding::new(&child(name), What::Required));
    }
}

/// Whether two values are the same, whatever the order of items that have keys.
pub(crate) fn is_same(schema: &Structural, new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len()
                && match (&schema.list_type, &schema.items) {
                    (ListType::Map(_), Some(of)) => new.iter().all(|item| {
                        correlated(schema, item, old).is_some_and(|old| is_same(of, item, old))
                    }),
                    _ => new == old,
                }
        }
        (Value::Object(new), Value::Object(old)) => {
            new.len() == old.len()
                && new.iter().all(|(name, value)| match (old.get(name), schema.member(name)) {
                    (Some(old), Some(of)) => is_same(of, value, old),
                    (Some(old), None) => old == value,
                    (None, _) => false,
                })
        }
        _ => new == old,
    }
}

/// The type of a value, as schemas call it.
pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => JsonType::Boolean.word(),
        Value::Number(number) if number.is_f64() => JsonType::Number.word(),
        Value::Number(_) => JsonType::Integer.word(),
        Value::String(_) => JsonType::String.word(),
        Value::Array(_) => JsonType::Array.word(),
        Value::Object(_) => JsonType::Object.word(),
    }
}

#[cfg(test)]
mod tests;
