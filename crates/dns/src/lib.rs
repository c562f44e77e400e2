//! Cluster DNS: the names of services and pods, and everything else from the host's resolvers.
//!
//! Names follow the Kubernetes DNS specification 1.1.0. Answers are computed from a zone that
//! follows the API, so a change is visible with the next question; nothing is cached.
//!
//! Start reading at [`zone::Zone`], which is told of changes, and [`lookup`], which answers from
//! it. [`run`] is the component.
//!
//! Invariants: a name under the cluster's domain is never asked of other resolvers, except the
//! target of an ExternalName service.
//!
//! It serves no zone transfers, no DNSSEC and no cache.
//!
//! Tested by questions to a zone as tables, and over UDP and TCP on loopback.

#![forbid(unsafe_code)]

mod forward;
pub mod lookup;
mod message;
mod run;
mod server;
pub mod zone;

pub use forward::Upstreams;
pub use run::{Config, Deps, DnsError, run};
