//! Custom resources: what a definition means for the objects it defines.
//!
//! What it is: pure functions from a custom resource definition and objects to objects and findings:
//! schemas compiled, objects pruned, defaulted, validated, converted and printed.
//!
//! Start reading at [`Definition`], then [`Structural`], the compiled schema, and [`Compiled`],
//! which puts all that is done with objects of one version together.
//!
//! Invariants: definitions have been validated (`validation`); objects are plain JSON, in which null
//! and absence differ, but their metadata is as all objects have it. Tables for ownership come out of
//! the same schema ([`Compiled::table`]), so that built-in and custom kinds are applied by one code.
//! Everything is linear in the size of the object and of the schema.
//!
//! What it deliberately does not do: it stores, serves and calls nothing.
//!
//! Tested by unit tests beside the code, and by the conformance corpus.

#![forbid(unsafe_code)]

mod columns;
mod conversion;
mod default;
mod definition;
mod embedded;
mod format;
mod json_path;
mod list_type;
mod pattern;
mod prune;
mod rules;
pub mod scale;
mod shape;
mod structural;
mod validate;
mod version;

pub use columns::PrinterColumn;
pub use conversion::{ConversionError, Review, by_name};
pub use default::apply_defaults;
pub use definition::{
    Column, Condition, Conversion, ConversionWebhook, Definition, DefinitionStatus, Names,
    SelectableField, Spec, Subresources, Version, schema_of,
};
pub use embedded::{Malformed, coerce};
pub use format::is_known as is_known_format;
pub use json_path::{JsonPath, JsonPathError};
pub use prune::prune;
pub use rules::Verdict;
pub use scale::Scale;
pub use shape::wire;
pub use structural::{Additional, Checks, CompileError, JsonType, ListType, Pattern, Structural};
pub use validate::validate;
pub use version::Compiled;
