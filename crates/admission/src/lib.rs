//! Admission plugins: what may be changed or refused after authorization and before validation.
//!
//! Start reading at [`Plugin`] and [`Request`], then [`Chain`].
//!
//! Invariants: plugins see working forms with defaults; mutating ones run in upstream's order, then
//! validating ones; they read other objects through [`View`] only, which answers from memory.
//!
//! It does no I/O: quota, which must write, is checked here and charged by the server.
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

mod certificate_permission;
mod certificate_subject;
mod chain;
mod claim_resize;
mod declared_features;
mod default_toleration_seconds;
mod ingress_class;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod pod_topology_labels;
mod priority;
mod refusal;
mod request;
mod runtime_class;
mod service_account;
mod signer;
mod storage_class;
mod storage_protection;
mod taint_nodes;
#[cfg(test)]
mod testing;
mod trust_bundle;

pub use chain::{Chain, Plugin};
pub use request::{Operation, Request, View};
