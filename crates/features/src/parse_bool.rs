//! Truth as upstream's flags spell it.

/// A text that is neither true nor false.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("strconv.ParseBool: parsing {0:?}: invalid syntax")]
pub struct ParseBoolError(String);

/// Reads a truth value in any of the forms that Go's `strconv.ParseBool` takes.
///
/// # Errors
/// With Go's words, which upstream's own messages carry.
pub fn parse_bool(text: &str) -> Result<bool, ParseBoolError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ParseBoolError(text.to_owned())),
    }
}
