//! The pod network of a node: a bridge, a veth pair and an address for every sandbox.
//!
//! A pod has a /32 address and reaches everything, its neighbours on the bridge too, through the
//! bridge's own address:
//!
//! ```text
//!   pod netns                      node netns
//!   eth0 10.42.0.7/32 ──veth──▶ port of bridge 10.42.0.1/24 ──▶ routing, nftables
//! ```
//!
//! So all traffic is routed and passes connection tracking both ways, and services translate
//! correctly between pods of one node, whether bridged traffic passes the IP hooks
//! (`bridge-nf-call-iptables`) or not.
//!
//! Start reading at [`Network`]. Addresses are kept in [`Leases`], one file each.
//!
//! Invariants: an address belongs to one sandbox at most, also across a crash; what is on disk is
//! written before the kernel is changed and removed after.
//!
//! It does not route between nodes, and knows nothing of services.
//!
//! Tested in network namespaces that the tests make for themselves.

#![forbid(unsafe_code)]

mod error;
mod host_ports;
mod lease;
mod network;
mod sysctl;

pub use error::NetworkError;
pub use lease::{HostPort, Lease, Leases, Protocol};
pub use network::{Network, NetworkConfig, reset};
