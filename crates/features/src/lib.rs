//! Feature gates: their names, stages and defaults, and what `--feature-gates` makes of them.
//!
//! Start reading at [`Features::parse`], then [`Features::is_enabled`].
//!
//! Invariants: a gate that is locked has its default; what is said of one gate outranks what is
//! said of all gates of its stage, in whatever order the two are given.
//!
//! It does not know what a gate switches: who asks for it does. Gates that nobody here asks for are
//! accepted, as other servers of the cluster may be given the same flags.
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

mod gates;
mod parse_bool;

pub use gates::{Features, Gate, GateError, Stage};
pub use parse_bool::{ParseBoolError, parse_bool};
