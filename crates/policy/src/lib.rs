//! Evaluation of admission policies and match conditions.
//!
//! What it is: `ValidatingAdmissionPolicy` and `MutatingAdmissionPolicy`, compiled once from their
//! objects, and what they say about a request: which validations fail and with which words, which
//! patches are to be applied, which parameters a binding has.
//!
//! Start reading at [`Input`], what expressions see of a request, then [`Conditions`],
//! [`Validating`] and [`Mutating`].
//!
//! Invariants: everything is a function of the compiled policy and its input; what goes wrong while
//! an expression runs is a result, which the failure policy turns into a refusal or nothing; texts
//! are upstream's.
//!
//! What it deliberately does not do: it does not match rules and selectors, look up bindings, apply
//! patches or answer clients. That is the API server's, which knows resources.
//!
//! Tested by unit tests beside the code, and by the conformance corpus.

#![forbid(unsafe_code)]

mod conditions;
mod evaluate;
mod input;
mod mutating;
mod params;
mod validating;

pub use conditions::{Condition, Conditions};
pub use input::Input;
pub use mutating::{Mutating, Patch};
pub use params::{Param, ParamKind, ParamRef, Params, collect};
pub use validating::{Annotation, Denial, Outcome, Validating};
