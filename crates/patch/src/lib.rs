//! JSON patch, merge patch and strategic merge patch.
//!
//! What it is: pure functions from a document and a patch to the patched document, with upstream's
//! error texts.
//!
//! Start reading at [`strategic_merge`]; [`merge`] and [`json`] are short.
//!
//! Invariants: a patch never changes its inputs; merging is driven by the tables of `schema` alone.
//!
//! What it deliberately does not do: it does not decode the result (the server does, strictly) and
//! it does not do server-side apply.
//!
//! Tested by unit and property tests beside the code, and by the conformance corpus.

#![forbid(unsafe_code)]

use schema::Type;
use serde_json::Value;

/// Why a patch cannot be applied. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is not of the right form: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the document: 422.
    #[error("{0}")]
    Rejected(String),
    /// The patch is too large: 413.
    #[error("{0}")]
    TooLarge(String),
}

/// Applies a JSON patch (RFC 6902).
///
/// # Errors
/// When the patch is malformed, too long, or an operation fails.
pub fn json(document: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let _ = (document, patch);
    Err(PatchError::Malformed("not implemented".to_owned()))
}

/// Applies a merge patch (RFC 7386).
///
/// # Errors
/// When the patch is not a JSON object.
pub fn merge(document: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let _ = (document, patch);
    Err(PatchError::Malformed("not implemented".to_owned()))
}

/// Applies a strategic merge patch to an object of a type.
///
/// # Errors
/// When the patch is not a JSON object or has a malformed directive.
pub fn strategic_merge(ty: &Type, document: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let _ = (ty, document, patch);
    Err(PatchError::Malformed("not implemented".to_owned()))
}
