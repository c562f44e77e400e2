//! The service proxy: ClusterIP, NodePort, external and LoadBalancer addresses in nftables.
//!
//! What a service needs is planned by a pure function of the service, its endpoints and where this
//! node is ([`plan::plan`]); the difference to what it needed before becomes one nftables transaction
//! ([`dataplane::Dataplane`]). So the cost of a change follows the change, not the number of
//! services. Table, chain names and packet path are those of upstream's nftables proxier.
//!
//! Start reading at [`run`], then [`plan`].
//!
//! Invariants: a packet never meets a half-changed service; what is in the kernel is what the
//! last successful transaction says, and a failed one is answered by building the table anew.
//!
//! It serves IPv4. It runs no iptables, IPVS or user-space mode.
//!
//! Tested by plans of services as tables, and with real connections in network namespaces.

#![forbid(unsafe_code)]

pub mod dataplane;
mod health;
pub mod plan;
mod run;
pub mod service;

pub use run::{Config, Deps, ProxyError, run};
