//! The API server: HTTP in, objects out.
//!
//! Start reading at [`ApiServer::start`] (`start.rs`), then `chain.rs`, the way of every request;
//! `write.rs`, the way of every write; `cache.rs`, the source of every read.
//!
//! Invariants: every request, from a socket or from this process, passes authorization and
//! admission; an object is encoded once and its bytes are shared by every reader; reads are served
//! at an exact revision; a write is answered after it is durable.
//!
//! It does not ask webhooks about scale, binding, eviction and token requests.
//!
//! Tested by unit tests beside the code, by `tests/it` over TLS and in process, and by the
//! conformance corpus.

#![forbid(unsafe_code)]

mod aggregation;
mod audit;
mod bootstrap;
mod chain;
mod config;
mod context;
mod conversion;
mod custom;
mod decode;
mod discovery;
mod errors;
mod etag;
mod event_expiry;
mod events;
mod fields;
mod flow_objects;
mod handle;
#[cfg(test)]
mod hostile;
mod identity_lease;
mod legacy_tokens;
mod metrics;
mod negotiate;
mod node_graph;
mod non_resource;
mod options;
mod ownership;
mod proxy;
mod pump;
mod query;
mod quota;
mod rbac_source;
mod render;
mod request_info;
mod resources;
mod server;
mod service_addresses;
mod service_ranges;
mod start;
mod storage_path;
mod storage_versions;
mod strategy;
mod subresources;
mod table;
mod tls;
mod token_tracking;
mod traffic;
mod verbs;
mod warnings;
mod webhook;
mod websocket;
mod write;

pub use config::{Config, Deps, Pki, StartError};
pub use connection::{Body, BodyError};
pub use handle::{Handle, Listed};
pub use start::{ApiServer, Started};
