//! Kinds whose text has a syntax of its own: quantities, times, durations, bytes, int-or-string.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meta::{Quantity, time};
use serde_json::Value;

use crate::table::Kind;

pub(super) enum ScalarError {
    /// Go notes it and goes on.
    Note(String),
    /// Go stops with this text.
    Stop(String),
    /// Go stops because of a value of the wrong type: what it is, and the Go type it should have.
    Mismatch(String, &'static str),
}

/// From the text of a JSON string.
pub(super) fn from_string(kind: &Kind, text: &str) -> Result<Value, ScalarError> {
    let stop = |error: String| ScalarError::Stop(error);
    Ok(Value::String(match kind {
        Kind::Quantity => {
            let quantity: Quantity = text
                .trim()
                .parse()
                .map_err(|error: meta::QuantityError| stop(error.to_string()))?;
            quantity.to_string()
        }
        Kind::Time => time::normalize(text).map_err(stop)?,
        Kind::MicroTime => time::normalize_micro(text).map_err(stop)?,
        Kind::Duration => time::normalize_duration(text).map_err(stop)?,
        Kind::Bytes => {
            // Go ignores line breaks in base64, and what it prints has none.
            let packed: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
            match STANDARD.decode(&packed) {
                Ok(bytes) => STANDARD.encode(bytes),
                Err(error) => return Err(ScalarError::Note(corrupt_base64(&packed, &error))),
            }
        }
        _ => text.to_owned(),
    }))
}

/// From JSON that is not a string.
pub(super) fn from_other(
    kind: &Kind,
    text: &str,
    what: &'static str,
) -> Result<Value, ScalarError> {
    match (kind, what) {
        // Go hands the raw text over, so a number is as good as a string.
        (Kind::Quantity, _) => from_string(kind, text),
        (Kind::IntOrString, "number") => match text.parse::<i32>() {
            Ok(number) => Ok(Value::from(number)),
            Err(_) => Err(ScalarError::Mismatch(format!("number {text}"), "int32")),
        },
        (Kind::IntOrString, _) => Err(ScalarError::Mismatch(what.to_owned(), "int32")),
        (Kind::Bytes, _) => Err(ScalarError::Mismatch(what.to_owned(), "[]uint8")),
        _ => Err(ScalarError::Mismatch(what.to_owned(), "string")),
    }
}

fn corrupt_base64(text: &str, error: &base64::DecodeError) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _)
        | base64::DecodeError::InvalidLastSymbol { offset: at, .. } => *at,
        // Go reports a text that ends too early at the start of its last group.
        _ => text.trim_end_matches('=').len() / 4 * 4,
    };
    format!("illegal base64 data at input byte {at}")
}
