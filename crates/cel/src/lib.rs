//! The Common Expression Language as Kubernetes speaks it.
//!
//! What it is: parser, type checker, cost estimates and interpreter, with the libraries of
//! upstream's 1.36 environment: lists, strings, regular expressions, URLs, IP addresses and CIDRs,
//! quantities, semantic versions, formats, sets, comprehensions with two variables, optional values,
//! the authorizer, and the objects and JSON patches of mutating policies.
//!
//! Start reading at [`Environment`], which compiles a text into a [`Program`], and
//! [`Program::evaluate`]. Below, in order: `syntax` (text to tree), `check` (types), `estimate`
//! (cost before it runs), `plan` (tree to what is run), `eval`.
//!
//! Invariants: no text makes the crate panic, recurse without bound or run without bound: the parser
//! limits size and depth, every step of an evaluation is charged as upstream charges it, and a
//! budget can be interrupted. Values borrow from the JSON they are read from; nothing is converted
//! before an expression looks at it. Compiled programs are immutable and shared. Error texts are
//! upstream's.
//!
//! What it deliberately does not do: it evaluates no policies and rules (`policy`, `apiserver`) and
//! knows of requests only what expressions see of them, speaks no protobuf, and reads no clock.
//!
//! Tested by tables of expressions beside the code, by properties (no text panics), and through the
//! crates that use it by the conformance corpus.

#![forbid(unsafe_code)]

mod activation;
pub mod admission;
mod authorizer;
mod budget;
mod charge;
mod check;
mod declaration;
mod environment;
mod error;
mod escape;
mod estimate;
mod eval;
mod fold;
mod functions;
mod library;
mod operate;
mod plan;
mod program;
mod schema;
mod source;
mod syntax;
mod table;
mod types;
mod value;

#[cfg(test)]
mod tests;

pub use activation::Activation;
pub use authorizer::{Authorizer, Check, Decision};
pub use budget::{
    Budget, MATCH_CONDITIONS_BUDGET, PER_CALL_LIMIT, RUNTIME_BUDGET, STATIC_CRD_LIMIT, STATIC_LIMIT,
};
pub use declaration::{Declaration, Fields, ListKind};
pub use environment::Environment;
pub use error::EvaluationError;
pub use escape::{escape, unescape};
pub use estimate::Range;
pub use program::Program;
pub use source::CompileErrors;
pub use types::Type;
pub use value::Value;
