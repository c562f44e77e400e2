//! `'…%s…'.format([…])`.
//!
//! Upstream: cel-go's `ext/formatting.go`.

use super::{no_overload, strings, time};
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        string_format: <string>.format(list(dyn)) -> string
    ",
    functions: &[("format", format)],
};

/// Longest text that is made.
const MAX_LENGTH: usize = 1 << 20;
/// Most decimals, so that a short text does not make a long one.
const MAX_PRECISION: usize = 1_000;

fn failed<T>(text: impl Into<String>) -> Outcome<T> {
    Err(EvaluationError::failed(text.into()))
}

fn format<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::String(pattern), list] = args else { return no_overload() };
    let mut items = list.items().ok_or(EvaluationError::NoSuchOverload)?.enumerate();
    let (mut out, mut rest) = (String::new(), &**pattern);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let precision = match rest.strip_prefix('.') {
            Some(after) => {
                let digits = after.bytes().take_while(u8::is_ascii_digit).count();
                let precision = after[..digits].parse().unwrap_or(0);
                rest = &after[digits..];
                Some(usize::min(precision, MAX_PRECISION))
            }
            None => None,
        };
        let Some(verb) = rest.chars().next() else {
            return failed("unexpected end of string");
        };
        rest = &rest[verb.len_utf8()..];
        let Some((_, item)) = items.next() else {
            let index = list.size().unwrap_or(0);
            return failed(format!("index {index} out of range"));
        };
        out.push_str(&clause(verb, precision, &item)?);
        if out.len() > MAX_LENGTH {
            return Err(EvaluationError::CostLimitExceeded);
        }
    }
    out.push_str(rest);
    Ok(Value::string(out))
}

fn clause(verb: char, precision: Option<usize>, item: &Value<'_>) -> Outcome<String> {
    let wrong = |what: &str, may: &str| {
        failed(format!(
            "error during formatting: {what} clause can only be used on {may}, was given {}",
            item.type_name()
        ))
    };
    match verb {
        's' => text(item),
        'd' => match item {
            Value::Int(value) => Ok(value.to_string()),
            Value::Uint(value) => Ok(value.to_string()),
            Value::Double(value) if !value.is_finite() => Ok(special(*value)),
            _ => wrong("decimal", "integers"),
        },
        'f' => match number(item) {
            Some(value) if !value.is_finite() => Ok(special(value)),
            Some(value) => Ok(format!("{value:.*}", precision.unwrap_or(6))),
            None => wrong("fixed-point", "doubles"),
        },
        'e' => match number(item) {
            Some(value) if !value.is_finite() => Ok(special(value)),
            Some(value) => Ok(scientific(value, precision.unwrap_or(6))),
            None => wrong("scientific", "doubles"),
        },
        'b' => match item {
            Value::Bool(value) => Ok(u8::from(*value).to_string()),
            Value::Int(value) => Ok(signed(*value, format!("{:b}", value.unsigned_abs()))),
            Value::Uint(value) => Ok(format!("{value:b}")),
            _ => wrong("binary", "integers and bools"),
        },
        'o' => match item {
            Value::Int(value) => Ok(signed(*value, format!("{:o}", value.unsigned_abs()))),
            Value::Uint(value) => Ok(format!("{value:o}")),
            _ => wrong("octal", "integers"),
        },
        'x' | 'X' => {
            let hex = match item {
                Value::Int(value) => signed(*value, format!("{:x}", value.unsigned_abs())),
                Value::Uint(value) => format!("{value:x}"),
                Value::String(text) => hex(text.as_bytes()),
                Value::Bytes(bytes) => hex(bytes),
                _ => return wrong("hex", "integers, byte buffers, and strings"),
            };
            Ok(if verb == 'X' { hex.to_ascii_uppercase() } else { hex })
        }
        other => failed(format!(
            "could not parse formatting clause: unrecognized formatting clause \"{other}\""
        )),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn signed(value: i64, digits: String) -> String {
    if value < 0 { format!("-{digits}") } else { digits }
}

fn special(value: f64) -> String {
    let text = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    text.to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "numbers are printed as doubles here")]
fn number(item: &Value<'_>) -> Option<f64> {
    match item {
        Value::Double(value) => Some(*value),
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        _ => None,
    }
}

fn scientific(value: f64, precision: usize) -> String {
    let printed = format!("{value:.precision$e}");
    let (mantissa, exponent) = printed.split_once('e').unwrap_or((&printed, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// A value as text, with what is in lists and maps.
fn text(item: &Value<'_>) -> Outcome<String> {
    if let Some(items) = item.items() {
        let mut out = String::from("[");
        for (at, item) in items.enumerate() {
            if at > 0 {
                out.push_str(", ");
            }
            out.push_str(&text(&item)?);
            if out.len() > MAX_LENGTH {
                return Err(EvaluationError::CostLimitExceeded);
            }
        }
        out.push(']');
        return Ok(out);
    }
    if let Some(entries) = item.entries() {
        let mut printed = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            printed.push(format!("{}: {}", text(&key)?, text(&value)?));
        }
        printed.sort_unstable();
        return Ok(format!("{{{}}}", printed.join(", ")));
    }
    Ok(match item {
        Value::Null => "null".to_owned(),
        Value::String(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Double(value) if !value.is_finite() => special(*value),
        Value::Duration(nanos) => time::print_duration(*nanos),
        Value::Timestamp(at) => time::print_timestamp(*at),
        Value::Type(name) => name.to_string(),
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) => strings::plain(item),
        other => {
            return failed(format!(
                "error during formatting: string clause can only be used on strings, bools, \
                 bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
                other.type_name()
            ));
        }
    })
}
