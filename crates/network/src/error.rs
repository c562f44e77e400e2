//! Why a sandbox could not be connected.

use std::io;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use netlink::NetlinkError;

/// A failed change of the pod network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The node has no pod CIDR yet.
    #[error("node has no pod CIDR assigned yet")]
    NoPodCidr,
    /// All addresses are given out.
    #[error("no IP addresses available in range set: {0}")]
    Exhausted(Ipv4Net),
    /// The kernel refused.
    #[error("network cannot be changed")]
    Netlink(#[from] NetlinkError),
    /// The sandbox's namespace cannot be entered.
    #[error("cannot enter network namespace {path}")]
    Namespace {
        /// The path of the namespace.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A device that was just made is not there.
    #[error("device {0} is gone")]
    DeviceGone(String),
    /// The record of addresses cannot be read or written.
    #[error("address record {path} cannot be used")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A kernel setting cannot be written.
    #[error("kernel setting {name} cannot be set")]
    Sysctl {
        /// Its path below `/proc/sys`.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The task that does the work panicked.
    #[error("network task failed")]
    Task,
}
