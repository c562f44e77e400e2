//! Kinds whose text has a syntax of its own: quantities, times, durations, bytes, int-or-string.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use meta::{Quantity, time};
use serde_json::Value;

use crate::table::Kind;

/// Go does not mind bits that are left over at the end.
const STANDARD: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

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
                Err(_) => {
                    let at = corrupt_at(text.as_bytes());
                    let text = format!("illegal base64 data at input byte {at}");
                    return Err(ScalarError::Note(text));
                }
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

/// Where Go finds that a text is not base64. It reads groups of four, and says where a letter is
/// wrong, where a group begins that is not complete, or what comes after the padding.
fn corrupt_at(text: &[u8]) -> usize {
    let mut letters =
        text.iter().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n')).peekable();
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let mut in_group = 0;
    while let Some((at, &byte)) = letters.next() {
        if is_letter(byte) {
            in_group = (in_group + 1) % 4;
            continue;
        }
        if byte != b'=' || in_group < 2 {
            return at;
        }
        if in_group == 2 {
            match letters.next() {
                Some((_, b'=')) => {}
                Some((second, _)) => return second - 1,
                None => return text.len(),
            }
        }
        return letters.next().map_or(text.len(), |(rest, _)| rest);
    }
    text.len() - in_group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_base64_is_found_where_go_finds_it() {
        for (text, at) in
            [("!", 0), ("YW!=", 2), ("YWJ", 0), ("YWJjZA", 4), ("=", 0), ("Y===", 1), ("YW=", 3)]
        {
            assert_eq!(corrupt_at(text.as_bytes()), at, "{text}");
        }
        assert_eq!(corrupt_at(b"dg==z"), 4);
    }

    #[test]
    fn bits_that_are_left_over_do_not_matter() {
        let decoded = from_string(&Kind::Bytes, "dh==");
        assert_eq!(decoded.ok(), Some(Value::from("dg==")));
    }
}
