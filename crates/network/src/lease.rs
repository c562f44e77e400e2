//! Which sandbox has which address: one JSON file per address.
//!
//! The file is made before the address is used and removed after the sandbox is disconnected, so
//! after a crash at any point an address may be lost to nobody but never belongs to two.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::NetworkError;

/// A transport protocol of a host port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp,
}

/// A port of the node that leads to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// The node's address, or `None` for all of them.
    pub host_address: Option<Ipv4Addr>,
    /// The node's port.
    pub host_port: u16,
    /// The sandbox's port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// What a sandbox has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The sandbox's id.
    pub sandbox_id: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Ports of the node that lead to it.
    #[serde(default)]
    pub host_ports: Vec<HostPort>,
}

/// All leases of a node.
#[derive(Debug)]
pub struct Leases {
    directory: PathBuf,
    by_address: BTreeMap<Ipv4Addr, Lease>,
    by_sandbox: BTreeMap<String, Ipv4Addr>,
    /// The last address given out: the search goes on from there, so that an address rests before
    /// it is used again.
    last: Option<Ipv4Addr>,
}

impl Leases {
    /// Reads the leases of a directory, which is made if absent. Files that a crash left half
    /// written are removed: their address was never used.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(directory: &Path) -> Result<Self, NetworkError> {
        let error = |source| NetworkError::Record { path: directory.to_path_buf(), source };
        std::fs::create_dir_all(directory).map_err(error)?;
        let mut leases = Self {
            directory: directory.to_path_buf(),
            by_address: BTreeMap::new(),
            by_sandbox: BTreeMap::new(),
            last: None,
        };
        for entry in std::fs::read_dir(directory).map_err(error)? {
            let path = entry.map_err(error)?.path();
            let bytes = std::fs::read(&path).map_err(error)?;
            match serde_json::from_slice::<Lease>(&bytes) {
                Ok(lease) => leases.remember(lease),
                Err(source) => {
                    tracing::warn!(path = %path.display(), %source, "unreadable lease removed");
                    std::fs::remove_file(&path).map_err(error)?;
                }
            }
        }
        Ok(leases)
    }

    /// Every lease, in the order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.by_address.values()
    }

    /// The lease of a sandbox.
    pub fn of(&self, sandbox_id: &str) -> Option<&Lease> {
        self.by_address.get(self.by_sandbox.get(sandbox_id)?)
    }

    /// Gives a sandbox an address of `cidr`; the one it has already when it asks again.
    ///
    /// The network's own address, the gateway's (the first one) and the broadcast address are
    /// never given out.
    ///
    /// # Errors
    /// When there is none left, or the record cannot be written.
    pub fn acquire(
        &mut self,
        cidr: Ipv4Net,
        sandbox_id: &str,
        host_ports: Vec<HostPort>,
    ) -> Result<Lease, NetworkError> {
        if let Some(lease) = self.of(sandbox_id) {
            return Ok(lease.clone());
        }
        let address = self.free_address(cidr).ok_or(NetworkError::Exhausted(cidr))?;
        let lease = Lease { sandbox_id: sandbox_id.to_owned(), address, host_ports };
        let path = self.path(address);
        let json = serde_json::to_vec(&lease)
            .map_err(|error| NetworkError::Record { path: path.clone(), source: error.into() })?;
        // Not synced: after a power loss no sandbox is running either.
        std::fs::write(&path, json).map_err(|source| NetworkError::Record { path, source })?;
        self.last = Some(address);
        self.remember(lease.clone());
        Ok(lease)
    }

    /// Takes a sandbox's address back; none is fine.
    ///
    /// # Errors
    /// When the record cannot be removed.
    pub fn release(&mut self, sandbox_id: &str) -> Result<(), NetworkError> {
        let Some(address) = self.by_sandbox.get(sandbox_id).copied() else { return Ok(()) };
        let path = self.path(address);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(NetworkError::Record { path, source });
            }
            _ => {}
        }
        self.by_sandbox.remove(sandbox_id);
        self.by_address.remove(&address);
        Ok(())
    }

    fn free_address(&self, cidr: Ipv4Net) -> Option<Ipv4Addr> {
        let first = cidr.network().to_bits() + 2;
        let end = cidr.broadcast().to_bits();
        let count = end.checked_sub(first)?;
        let begin = match self.last {
            Some(last) if cidr.contains(&last) => last.to_bits() + 1,
            _ => first,
        };
        (0..count)
            .map(|n| Ipv4Addr::from_bits(first + (begin.wrapping_sub(first) + n) % count))
            .find(|address| !self.by_address.contains_key(address))
    }

    fn remember(&mut self, lease: Lease) {
        self.by_sandbox.insert(lease.sandbox_id.clone(), lease.address);
        self.by_address.insert(lease.address, lease);
    }

    fn path(&self, address: Ipv4Addr) -> PathBuf {
        self.directory.join(address.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_unique_and_rest_before_reuse() {
        let directory = tempfile::tempdir().unwrap();
        let mut leases = Leases::open(directory.path()).unwrap();
        let net = cidr("10.42.0.0/29");
        let take = |leases: &mut Leases, id: &str| {
            leases.acquire(net, id, Vec::new()).map(|lease| lease.address.octets()[3])
        };
        assert_eq!(take(&mut leases, "a").unwrap(), 2);
        assert_eq!(take(&mut leases, "b").unwrap(), 3);
        assert_eq!(take(&mut leases, "a").unwrap(), 2, "asking again changes nothing");
        leases.release("a").unwrap();
        assert_eq!(take(&mut leases, "c").unwrap(), 4);
        assert_eq!(take(&mut leases, "d").unwrap(), 5);
        assert_eq!(take(&mut leases, "e").unwrap(), 6);
        assert_eq!(take(&mut leases, "f").unwrap(), 2);
        let full = take(&mut leases, "g").unwrap_err();
        assert_eq!(full.to_string(), "no IP addresses available in range set: 10.42.0.0/29");
    }

    #[test]
    fn leases_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let ports = vec![HostPort {
            host_address: None,
            host_port: 8080,
            port: 80,
            protocol: Protocol::Tcp,
        }];
        let mut leases = Leases::open(directory.path()).unwrap();
        let lease = leases.acquire(cidr("10.42.0.0/24"), "a", ports).unwrap();
        std::fs::write(directory.path().join("10.42.0.9"), b"{\"sandbox").unwrap();
        let leases = Leases::open(directory.path()).unwrap();
        assert_eq!(leases.iter().collect::<Vec<_>>(), [&lease]);
        assert!(!directory.path().join("10.42.0.9").exists());
    }
}
