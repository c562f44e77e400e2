//! Links, addresses, routes and nftables without an external program.
//!
//! Every call is synchronous: the kernel answers a netlink request before the send returns, in
//! microseconds, so there is nothing to wait for. Callers on an async runtime still move groups of
//! calls to a blocking thread, because creating and removing devices takes the kernel's global
//! lock for some milliseconds.
//!
//! Start reading at [`Connection`] for links, addresses and routes, [`nft::Transaction`] for
//! nftables, and [`netns`] for working inside another network namespace.
//!
//! Invariants: an [`nft::Transaction`] is applied whole or not at all.
//!
//! It knows nothing of pods and services, and it does not watch for changes.
//!
//! Tested in network namespaces that the tests make for themselves.

mod address;
mod connection;
mod error;
mod link;
pub mod netns;
pub mod nft;
mod route;

pub use connection::Connection;
pub use error::NetlinkError;
pub use link::{Link, VethPeer};
pub use route::{DefaultRoute, Route};
