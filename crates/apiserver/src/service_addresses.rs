//! Cluster IPs and node ports: which are taken, and how a free one is found.
//!
//! In memory, filled from the services at start and kept in step by the service strategy. One
//! server writes; several would need upstream's allocation objects.
//!
//! Addresses come from the range of the configuration and, when that is full or somebody asks for
//! one of theirs, from those of `ServiceCIDR` objects that are ready.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::RngExt;
use serde_json::Value;

/// Upstream's default range of node ports.
pub(crate) const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// Random tries before the range is searched from one end.
const TRIES: usize = 64;
/// A larger range would be of no use, and offsets stay small numbers.
const MAX_OFFSETS: u128 = 1 << 20;

/// Why an address or port was not allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AllocationError {
    Taken,
    OutOfRange,
    Full,
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    base: IpAddr,
    /// Offsets from the base that may be used: 1 to this, inclusive.
    last: u32,
}

/// What is allocated.
pub(crate) struct ServiceAddresses {
    /// The range of the configuration.
    own: Range,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: HashSet<IpAddr>,
    ports: HashSet<u16>,
    /// Further ranges, of the same family.
    more: Vec<Range>,
}

impl ServiceAddresses {
    /// An empty allocation over a range.
    pub(crate) fn new(range: (IpAddr, u8)) -> Self {
        Self { own: Range::new(range), state: Mutex::default() }
    }

    /// The address of the `kubernetes` service.
    pub(crate) fn first(&self) -> IpAddr {
        self.own.at(1)
    }

    /// Whether the range is IPv4.
    pub(crate) fn is_ipv4(&self) -> bool {
        self.own.base.is_ipv4()
    }

    /// Sets the ranges beside that of the configuration; those of the other family do not count.
    pub(crate) fn set_more(&self, ranges: impl IntoIterator<Item = (IpAddr, u8)>) {
        let own = self.own;
        let ranges = ranges.into_iter().map(Range::new);
        let is_more = |range: &Range| *range != own && range.base.is_ipv4() == own.base.is_ipv4();
        self.lock().more = ranges.filter(is_more).collect();
    }

    /// Whether an address is in one of the ranges.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        self.own.has(address) || self.lock().more.iter().any(|range| range.has(address))
    }

    /// Takes some free address.
    pub(crate) fn allocate(&self) -> Result<IpAddr, AllocationError> {
        let State { taken, more, .. } = &mut *self.lock();
        let found = [&self.own].into_iter().chain(&*more).find_map(|range| range.free(taken));
        let address = found.ok_or(AllocationError::Full)?;
        taken.insert(address);
        Ok(address)
    }

    /// Takes this address.
    pub(crate) fn reserve(&self, address: IpAddr) -> Result<(), AllocationError> {
        if !self.covers(address) {
            return Err(AllocationError::OutOfRange);
        }
        if self.lock().taken.insert(address) { Ok(()) } else { Err(AllocationError::Taken) }
    }

    /// Takes an address for something that is no service.
    pub(crate) fn occupy(&self, address: IpAddr) {
        self.lock().taken.insert(address);
    }

    /// Gives it back.
    pub(crate) fn vacate(&self, address: IpAddr) {
        self.lock().taken.remove(&address);
    }

    /// Takes some free node port.
    pub(crate) fn allocate_port(&self) -> Result<u16, AllocationError> {
        let mut state = self.lock();
        let mut rng = rand::rng();
        for _ in 0..TRIES {
            let port = rng.random_range(NODE_PORTS);
            if state.ports.insert(port) {
                return Ok(port);
            }
        }
        let free = NODE_PORTS.into_iter().find(|port| !state.ports.contains(port));
        let port = free.ok_or(AllocationError::Full)?;
        state.ports.insert(port);
        Ok(port)
    }

    /// Takes this node port.
    pub(crate) fn reserve_port(&self, port: u16) -> Result<(), AllocationError> {
        if !NODE_PORTS.contains(&port) {
            return Err(AllocationError::OutOfRange);
        }
        if self.lock().ports.insert(port) { Ok(()) } else { Err(AllocationError::Taken) }
    }

    /// Takes everything a stored service has; what is taken already stays as it is.
    pub(crate) fn adopt(&self, service: &Value) {
        let mut state = self.lock();
        state.taken.extend(addresses(service));
        state.ports.extend(ports(service));
    }

    /// Gives back what `service` has and `kept` has not.
    pub(crate) fn release(&self, service: &Value, kept: Option<&Value>) {
        let kept_addresses = kept.map(addresses).unwrap_or_default();
        let kept_ports = kept.map(ports).unwrap_or_default();
        let mut state = self.lock();
        for address in addresses(service).iter().filter(|a| !kept_addresses.contains(a)) {
            state.taken.remove(address);
        }
        for port in ports(service).iter().filter(|port| !kept_ports.contains(port)) {
            state.ports.remove(port);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Range {
    fn new((base, prefix): (IpAddr, u8)) -> Self {
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let host_bits = u32::from(bits - prefix.min(bits));
        let size = if host_bits >= 20 { MAX_OFFSETS } else { 1 << host_bits };
        // Neither the network's own address nor, in IPv4, its broadcast address.
        let reserved = if base.is_ipv4() { 2 } else { 1 };
        let last = u32::try_from(size.saturating_sub(reserved)).unwrap_or(u32::MAX);
        Self { base: network(base, host_bits), last }
    }

    /// An address that is not taken.
    fn free(&self, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
        if self.last < 2 {
            return None;
        }
        let mut rng = rand::rng();
        // Upstream keeps the lower part for those who choose their address.
        let lower = (self.last / 16).clamp(1, 256);
        let is_free = |offset: &u32| !taken.contains(&self.at(*offset));
        for _ in 0..TRIES {
            let offset = rng.random_range(lower + 1..=self.last.max(lower + 1));
            if offset <= self.last && is_free(&offset) {
                return Some(self.at(offset));
            }
        }
        let offset = (lower + 1..=self.last).chain(2..=lower).find(is_free)?;
        Some(self.at(offset))
    }

    fn has(&self, address: IpAddr) -> bool {
        self.offset(address).is_some()
    }

    fn at(&self, offset: u32) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(offset))),
            IpAddr::V6(base) => {
                IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(u128::from(offset))))
            }
        }
    }

    fn offset(&self, address: IpAddr) -> Option<u32> {
        let offset = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                u128::from(u32::from(address).checked_sub(u32::from(base))?)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                u128::from(address).checked_sub(u128::from(base))?
            }
            _ => return None,
        };
        u32::try_from(offset).ok().filter(|offset| (1..=self.last).contains(offset))
    }
}

fn network(base: IpAddr, host_bits: u32) -> IpAddr {
    match base {
        IpAddr::V4(base) => {
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(base) & mask))
        }
        IpAddr::V6(base) => {
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(base) & mask))
        }
    }
}

fn addresses(service: &Value) -> Vec<IpAddr> {
    let list = service.pointer("/spec/clusterIPs").and_then(Value::as_array);
    let one = service.pointer("/spec/clusterIP");
    let all = list.into_iter().flatten().chain(one);
    let mut found: Vec<IpAddr> = all.filter_map(|value| value.as_str()?.parse().ok()).collect();
    found.dedup();
    found
}

fn ports(service: &Value) -> Vec<u16> {
    let list = service.pointer("/spec/ports").and_then(Value::as_array);
    let of_ports = list.into_iter().flatten().map(|port| &port["nodePort"]);
    of_ports
        .chain(service.pointer("/spec/healthCheckNodePort"))
        .filter_map(|port| u16::try_from(port.as_u64()?).ok())
        .filter(|port| *port != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(text: &str, prefix: u8) -> ServiceAddresses {
        ServiceAddresses::new((text.parse().unwrap(), prefix))
    }

    #[test]
    fn every_address_of_the_range_is_found_once() {
        let addresses = range("10.96.0.0", 28);
        assert_eq!(addresses.first().to_string(), "10.96.0.1");
        addresses.reserve(addresses.first()).unwrap();
        let mut found: Vec<_> = (0..13).map(|_| addresses.allocate().unwrap()).collect();
        found.sort();
        found.dedup();
        assert_eq!(found.len(), 13);
        assert_eq!(addresses.allocate(), Err(AllocationError::Full));
    }

    #[test]
    fn further_ranges_are_used_when_the_first_is_full() {
        let addresses = range("10.96.0.0", 30);
        assert_eq!(addresses.allocate().unwrap().to_string(), "10.96.0.2");
        assert_eq!(addresses.allocate(), Err(AllocationError::Full));
        let more = ["10.97.0.0", "fd00::", "10.96.0.0"].map(|text| text.parse().unwrap());
        addresses.set_more(more.map(|base: IpAddr| (base, 30)));
        assert_eq!(addresses.allocate().unwrap().to_string(), "10.97.0.2");
        assert_eq!(addresses.allocate(), Err(AllocationError::Full));
        let other = "10.97.0.1".parse().unwrap();
        assert_eq!(addresses.reserve(other), Ok(()));
        addresses.set_more([]);
        let gone = "10.97.0.2".parse().unwrap();
        assert_eq!(addresses.reserve(gone), Err(AllocationError::OutOfRange));
        assert!(addresses.covers(addresses.first()) && !addresses.covers(gone));
    }

    #[test]
    fn addresses_of_others_are_left_to_them() {
        let addresses = range("10.96.0.0", 30);
        let taken = "10.96.0.2".parse().unwrap();
        addresses.occupy(taken);
        assert_eq!(addresses.allocate(), Err(AllocationError::Full));
        assert_eq!(addresses.reserve(taken), Err(AllocationError::Taken));
        addresses.vacate(taken);
        assert_eq!(addresses.allocate(), Ok(taken));
    }

    #[test]
    fn what_is_released_can_be_taken_again() {
        let addresses = range("10.96.0.0", 16);
        let service = json!({"spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"nodePort": 30001}]}});
        addresses.adopt(&service);
        let ip = "10.96.0.9".parse().unwrap();
        assert_eq!(addresses.reserve(ip), Err(AllocationError::Taken));
        assert_eq!(addresses.reserve_port(30001), Err(AllocationError::Taken));
        addresses.release(&service, None);
        assert_eq!(addresses.reserve(ip), Ok(()));
        assert_eq!(addresses.reserve_port(30001), Ok(()));
        assert_eq!(
            addresses.reserve("10.97.0.1".parse().unwrap()),
            Err(AllocationError::OutOfRange)
        );
        assert_eq!(addresses.reserve_port(80), Err(AllocationError::OutOfRange));
    }
}
