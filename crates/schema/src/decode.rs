//! Decoding by table: JSON, YAML, and values that are already parsed.
//!
//! Errors are worded as upstream's decoders word them: `encoding/json` for syntax and types
//! (`sigs.k8s.io/json` for strictness).

mod json;
mod scalar;
mod scanner;
mod yaml;

use serde_json::Value;

pub use self::yaml::yaml_to_value;
use crate::table::Type;

/// What to do about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Nothing.
    Ignore,
    /// Report them as warnings.
    #[default]
    Warn,
    /// Reject the object.
    Strict,
}

/// A decoded object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The working form; see the crate's invariants.
    pub value: Value,
    /// Unknown and duplicate fields, as `unknown field "spec.x"`.
    pub warnings: Vec<String>,
}

/// The kind an object says it is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeMeta {
    /// `apiVersion`, empty when absent.
    pub api_version: String,
    /// `kind`, empty when absent.
    pub kind: String,
}

/// Why bytes are not an object of the wanted type. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON.
    #[error("{0}")]
    Syntax(String),
    /// A value has the wrong type, or a scalar its own syntax error.
    #[error("{0}")]
    Type(String),
    /// Unknown or duplicate fields, and strictness was asked for.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
    /// Not YAML.
    #[error("{0}")]
    Yaml(String),
    /// The kind and version cannot be found out.
    #[error("couldn't get version/kind; json parse error: {0}")]
    TypeMeta(String),
}

/// Decodes JSON into the working form of a type.
///
/// # Errors
/// When the bytes are not JSON, do not fit the type, or are not strict although they should be.
pub fn decode_json(
    ty: &Type,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let decoded = json::decode(ty, bytes, validation != FieldValidation::Ignore)?;
    if validation == FieldValidation::Strict && !decoded.warnings.is_empty() {
        return Err(DecodeError::Strict(decoded.warnings));
    }
    Ok(decoded)
}

/// Decodes JSON without a table, as the objects of custom resources are; the warnings are members
/// that are given twice.
///
/// # Errors
/// When the bytes are not JSON.
pub fn decode_untyped(bytes: &[u8], validation: FieldValidation) -> Result<Decoded, DecodeError> {
    json::decode_untyped(bytes, validation != FieldValidation::Ignore)
}

/// Decodes a value that is already parsed, such as the result of a patch.
///
/// # Errors
/// As [`decode_json`].
pub fn decode_value(
    ty: &Type,
    value: &Value,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let bytes =
        serde_json::to_vec(value).map_err(|error| DecodeError::Syntax(error.to_string()))?;
    decode_json(ty, &bytes, validation)
}

/// Decodes one YAML document into the working form of a type.
///
/// # Errors
/// As [`decode_json`]; also when the bytes are not YAML.
pub fn decode_yaml(
    ty: &Type,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let (value, duplicates) = yaml_to_value(bytes)?;
    let relaxed = match validation {
        FieldValidation::Ignore => FieldValidation::Ignore,
        FieldValidation::Warn | FieldValidation::Strict => FieldValidation::Warn,
    };
    let decoded = decode_value(ty, &value, relaxed)?;
    if validation == FieldValidation::Ignore {
        return Ok(decoded);
    }
    let strict = validation == FieldValidation::Strict;
    let mut findings = Vec::new();
    if strict && !duplicates.is_empty() {
        let lines: Vec<String> = duplicates.iter().map(|text| format!("\n  {text}")).collect();
        findings.push(format!("yaml: unmarshal errors:{}", lines.concat()));
    } else {
        findings.extend(duplicates);
    }
    findings.extend(decoded.warnings);
    if strict && !findings.is_empty() {
        return Err(DecodeError::Strict(findings));
    }
    Ok(Decoded { value: decoded.value, warnings: findings })
}

/// Reads kind and version, and checks on the way that the whole text is JSON.
///
/// # Errors
/// [`DecodeError::TypeMeta`].
pub fn read_type_meta(bytes: &[u8]) -> Result<TypeMeta, DecodeError> {
    json::read_type_meta(bytes).map_err(DecodeError::TypeMeta)
}

/// Checks that a text is JSON.
///
/// # Errors
/// Go's text for what is wrong with it.
pub fn check_json_syntax(bytes: &[u8]) -> Result<(), String> {
    json::syntax_error(bytes).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
