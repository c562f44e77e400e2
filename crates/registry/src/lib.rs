//! Images from registries: the client's half of the OCI distribution protocol, version 2.
//!
//! What it is: which hosts stand for a registry and how to speak to them, tokens, manifests for
//! this machine, and layers that are downloaded beside each other and unpacked while they arrive.
//!
//! Start reading at [`Registry::pull`].
//!
//! Invariants:
//! - Nothing that comes over the network is used before its digest was checked, except the name's
//!   own manifest, which is what the name means.
//! - Every body has a limit of bytes, and every wait has one of time without progress.
//! - Credentials go to the registry that the image names and to the token server it tells, never to
//!   a mirror or to where a redirect leads, and never over an unencrypted connection unless the
//!   registry itself is spoken to over one.
//! - A pull that fails leaves nothing but whole layers, which the next attempt uses or the
//!   collector removes.
//!
//! It deliberately does not push, reads no environment, and does not decide who may pull what.
//!
//! Tested by unit tests beside the code, and against registries of the tests' own, well-behaved
//! and hostile, in `tests/it`.

#![forbid(unsafe_code)]

mod pull;

mod auth;
mod download;
mod error;
mod flight;
mod hosts;
mod line;
mod progress;
mod proxy;
mod repository;
mod spool;
mod tls;
mod wire;

pub use auth::Credentials;
pub use error::PullError;
pub use hosts::{HostsDirectory, HostsError};
pub use progress::Progress;
pub use proxy::{Proxies, ProxyError};
pub use pull::{Config, Registry};
