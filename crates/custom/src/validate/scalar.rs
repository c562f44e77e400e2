//! Types, and what is said of strings and numbers.

use serde_json::Value;

use super::{Finding, Outcome, What, type_of};
use crate::format;
use crate::structural::{Checks, JsonType, Structural};

pub(super) fn check_type(schema: &Structural, value: &Value, path: &str, out: &mut Outcome) {
    let actual = type_of(value);
    let format = schema.checks.as_ref().and_then(|checks| checks.format.as_deref());
    let wanted = match (schema.ty, schema.is_int_or_string) {
        (Some(ty), _) => ty.word(),
        (None, true) => "integer,string",
        (None, false) => return,
    };
    let wrong = |wanted: &str, actual: &str| {
        let detail = format!("{path} in body must be of type {wanted}: {actual:?}");
        Finding::new(path, What::WrongType(Value::from(actual), detail))
    };
    if value.is_null() {
        if !schema.is_nullable {
            out.add(wrong(wanted, actual));
        }
        return;
    }
    let fits = wanted.split(',').any(|wanted| match wanted {
        "number" => matches!(actual, "number" | "integer"),
        "integer" => actual == "integer" || is_whole(value),
        wanted => wanted == actual,
    });
    if fits {
        return;
    }
    match format {
        // Upstream leaves strings to the check of their format, and tells of the format otherwise.
        Some(format) if !matches!(schema.ty, Some(JsonType::Number | JsonType::Integer)) => {
            let found = match value {
                Value::String(_) | Value::Array(_) => return,
                Value::Number(number) if number.is_f64() => "double",
                Value::Number(_) => "int64",
                _ => "",
            };
            out.add(wrong(format, found));
        }
        _ => out.add(wrong(wanted, actual)),
    }
}

/// Whether a double is an integer, as `3.0` is.
fn is_whole(value: &Value) -> bool {
    value
        .as_f64()
        .is_some_and(|double| double.fract() == 0.0 && double.abs() <= 9_007_199_254_740_991.0)
}

/// Strings and numbers.
pub(super) fn check(checks: &Checks, value: &Value, path: &str, out: &mut Outcome) {
    match value {
        Value::String(text) => check_string(checks, text, path, out),
        Value::Number(_) => check_number(checks, value, path, out),
        _ => {}
    }
}

fn check_string(checks: &Checks, text: &str, path: &str, out: &mut Outcome) {
    out.merge(Outcome {
        findings: first_about(checks, text, path).into_iter().collect(),
        matches: 1,
    });
    if let Some(format) = checks.format.as_deref().filter(|format| !format::fits(format, text)) {
        let detail = format!("{path} in body must be of type {format}: {text:?}");
        out.add(Finding::new(path, What::WrongType(Value::from(text), detail)));
    }
}

/// Upstream tells only the first of these.
fn first_about(checks: &Checks, text: &str, path: &str) -> Option<Finding> {
    let length = text.chars().count() as u64;
    let invalid =
        |detail: String| Some(Finding::new(path, What::Invalid(Value::from(text), detail)));
    if let Some(max) = checks.max_length.filter(|max| length > *max) {
        return Some(Finding::new(path, What::TooLong(max)));
    }
    if let Some(min) = checks.min_length.filter(|min| length < *min) {
        return invalid(format!("{path} in body should be at least {min} chars long"));
    }
    let pattern = checks.pattern.as_ref()?;
    let shown = &pattern.text;
    match pattern.compiled() {
        Some(regex) if regex.is_match(text) => None,
        Some(_) => invalid(format!("{path} in body should match '{shown}'")),
        None => invalid(format!(
            "{path} in body should match '{shown}, but pattern is invalid: it is no regular \
             expression, or a very large one'"
        )),
    }
}

fn check_number(checks: &Checks, value: &Value, path: &str, out: &mut Outcome) {
    let Some(number) = value.as_f64() else { return };
    let limits = (checks.multiple_of, checks.maximum, checks.minimum);
    if limits == (None, None, None) {
        return;
    }
    let is_integer = !value.is_f64();
    let mut invalid = |what: String| {
        let detail = format!("{path} in body {what}");
        out.add(Finding::new(path, What::Invalid(value.clone(), detail)));
    };
    let shown = |limit: f64| print(limit, is_integer);
    if let Some(factor) = checks.multiple_of.filter(|factor| !is_multiple(value, *factor)) {
        invalid(format!("should be a multiple of {}", shown(factor)));
    }
    if let Some(min) = checks.minimum {
        if checks.exclusive_minimum && number <= min {
            invalid(format!("should be greater than {}", shown(min)));
        } else if number < min {
            invalid(format!("should be greater than or equal to {}", shown(min)));
        }
    }
    if let Some(max) = checks.maximum {
        if checks.exclusive_maximum && number >= max {
            invalid(format!("should be less than {}", shown(max)));
        } else if number > max {
            invalid(format!("should be less than or equal to {}", shown(max)));
        }
    }
}

fn is_multiple(value: &Value, factor: f64) -> bool {
    if let (Some(integer), true) = (value.as_i64(), factor.fract() == 0.0 && factor >= 1.0) {
        // Doubles of this size are integers exactly.
        #[expect(clippy::cast_possible_truncation, reason = "saturates, as it should")]
        let factor = factor as i64;
        return integer % factor == 0;
    }
    let Some(number) = value.as_f64() else { return true };
    if factor <= 0.0 {
        return false;
    }
    let quotient = if factor < 1.0 { 1.0 / factor * number } else { number / factor };
    (quotient - quotient.round()).abs() < 1e-9 * quotient.abs().max(1.0)
}

/// A limit as Go prints it: as an integer beside one, otherwise with an exponent from 1e21 on.
fn print(limit: f64, is_integer: bool) -> String {
    if is_integer && limit.fract() == 0.0 {
        return format!("{limit:.0}");
    }
    if limit != 0.0 && !(1e-4..1e21).contains(&limit.abs()) {
        let text = format!("{limit:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, size) = match exponent.strip_prefix('-') {
            Some(size) => ('-', size),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{size:0>2}");
    }
    format!("{limit}")
}

pub(super) fn check_enum(checks: &Checks, value: &Value, path: &str, out: &mut Outcome) {
    let allowed = &checks.allowed;
    if allowed.is_empty() || allowed.iter().any(|one| is_equal(one, value)) {
        return;
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let supported = allowed.iter().map(text).collect();
    out.add(Finding::new(path, What::NotSupported(value.clone(), supported)));
}

fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}
