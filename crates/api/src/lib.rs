//! Typed views of the built-in kinds, and the words of the API that programs compare.
//!
//! The types come from `k8s-openapi`; they drop unknown fields, so they are views and never what
//! is stored or sent back whole. Here are the well-known labels, taints, annotations and
//! finalizers as constants, and the questions about pods that several components ask.
//!
//! Start reading at [`pod`] and [`typed`]. Every constant is spelled as upstream spells it.
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

pub mod annotations;
pub mod finalizers;
pub mod labels;
pub mod node_selector;
pub mod pod;
pub mod quota;
pub mod resources;
pub mod storage_versions;
pub mod taints;
pub mod typed;
pub mod volumes;

pub use typed::Typed;
