//! JSON patch, merge patch and strategic merge patch.
//!
//! What it is: pure functions from a document and a patch to the patched document, with upstream's
//! error texts.
//!
//! Start reading at [`strategic_merge`]; [`merge`] and [`json`] are short.
//!
//! Invariants: a patch never changes its inputs; the document is the canonical JSON of the object,
//! not its working form, because JSON patch may point at what is always printed; merging is driven
//! by the tables of `schema` alone.
//!
//! What it deliberately does not do: it does not decode the result (the server does, strictly) and
//! it does not do server-side apply, which is crate `apply`.
//!
//! Tested by unit and property tests beside the code, and by the conformance corpus.

#![forbid(unsafe_code)]

mod go_conversion;
mod go_print;
mod json_patch;
mod merge_patch;
mod strategic;
mod touched;

pub use go_conversion::conversion_error;
pub use go_print::go_print;
pub use json_patch::{json, json_unknown_fields};
pub use merge_patch::merge;
pub use strategic::strategic_merge;
pub use touched::{Merge, merge_touched};

/// Why a patch cannot be applied. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is not of the right form: 400, `BadRequest`.
    #[error("{0}")]
    Malformed(String),
    /// An operation does not fit the document: 422, with upstream's generic text.
    #[error("the server rejected our request due to an error in our request")]
    Rejected,
    /// Too many operations: 413.
    #[error("The allowed maximum operations in a JSON patch is {max}, got {count}")]
    TooManyOperations {
        /// The limit.
        max: usize,
        /// How many there are.
        count: usize,
    },
    /// A strategic merge patch that cannot be merged: upstream answers 500 with this text and no
    /// reason.
    #[error("{0}")]
    Unmergeable(String),
}
