//! Cluster IPs and node ports: which are taken, and how a free one is found.
//!
//! In memory, filled from the services at start and kept in step by the service strategy. One
//! server writes; several would need upstream's allocation objects.
//!
//! Addresses come from the ranges of `ServiceCIDR` objects that are ready. The range of the
//! configuration counts until it has been learnt which there are: it is what the first of them is
//! made from.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::RngExt;
use serde_json::Value;

/// Upstream's default range of node ports.
pub(crate) const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// Random tries before the range is searched from one end.
const TRIES: usize = 64;
/// Offsets that are drawn from a large range: more would be of no use.
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
    last: u128,
}

/// What is allocated.
pub(crate) struct ServiceAddresses {
    /// The range of the configuration.
    own: Range,
    state: Mutex<State>,
}

struct State {
    taken: HashSet<IpAddr>,
    ports: HashSet<u16>,
    /// Those of the family of the configuration, the preferred ones first.
    ranges: Vec<Range>,
}

impl ServiceAddresses {
    /// An empty allocation over a range.
    pub(crate) fn new(range: (IpAddr, u8)) -> Self {
        let own = Range::new(range);
        let (taken, ports) = (HashSet::new(), HashSet::new());
        Self { own, state: Mutex::new(State { taken, ports, ranges: vec![own] }) }
    }

    /// The address of the `kubernetes` service.
    pub(crate) fn first(&self) -> IpAddr {
        self.own.at(1)
    }

    /// Whether the range is IPv4.
    pub(crate) fn is_ipv4(&self) -> bool {
        self.own.base.is_ipv4()
    }

    /// Sets the ranges, the preferred ones first; those of the other family do not count.
    pub(crate) fn set_ranges(&self, ranges: impl IntoIterator<Item = Range>) {
        let is_ipv4 = self.is_ipv4();
        let ranges = ranges.into_iter().filter(|range| range.base.is_ipv4() == is_ipv4).collect();
        self.lock().ranges = ranges;
    }

    /// Takes some free address.
    pub(crate) fn allocate(&self) -> Result<IpAddr, AllocationError> {
        let State { taken, ranges, .. } = &mut *self.lock();
        let found = ranges.iter().find_map(|range| range.free(taken));
        let address = found.ok_or(AllocationError::Full)?;
        taken.insert(address);
        Ok(address)
    }

    /// Takes this address.
    pub(crate) fn reserve(&self, address: IpAddr) -> Result<(), AllocationError> {
        let mut state = self.lock();
        if !state.ranges.iter().any(|range| range.has(address)) {
            return Err(AllocationError::OutOfRange);
        }
        if state.taken.insert(address) { Ok(()) } else { Err(AllocationError::Taken) }
    }

    /// Takes an address whatever the ranges, for something that is no service or for a service that
    /// has it already.
    pub(crate) fn occupy(&self, address: IpAddr) {
        self.lock().taken.insert(address);
    }

    /// Whether an address is taken.
    pub(crate) fn is_taken(&self, address: IpAddr) -> bool {
        self.lock().taken.contains(&address)
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

    /// The node ports that are taken.
    pub(crate) fn taken_ports(&self) -> BTreeSet<u16> {
        self.lock().ports.iter().copied().collect()
    }

    /// Gives a node port back.
    pub(crate) fn vacate_port(&self, port: u16) {
        self.lock().ports.remove(&port);
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
    /// The range of a network address and the length of its prefix.
    pub(crate) fn new((base, prefix): (IpAddr, u8)) -> Self {
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let host_bits = u32::from(bits - prefix.min(bits));
        let highest = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
        // Neither the network's own address nor, in IPv4, its broadcast address.
        let last = if base.is_ipv4() { highest.saturating_sub(1) } else { highest };
        Self { base: network(base, host_bits), last }
    }

    /// An address that is not taken.
    fn free(&self, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
        let last = u32::try_from(self.last.min(MAX_OFFSETS)).unwrap_or(u32::MAX);
        if last < 2 {
            return None;
        }
        let mut rng = rand::rng();
        // Upstream keeps the lower part for those who choose their address.
        let lower = (last / 16).clamp(1, 256);
        let is_free = |offset: &u32| !taken.contains(&self.at(*offset));
        for _ in 0..TRIES {
            let offset = rng.random_range(lower + 1..=last.max(lower + 1));
            if offset <= last && is_free(&offset) {
                return Some(self.at(offset));
            }
        }
        let offset = (lower + 1..=last).chain(2..=lower).find(is_free)?;
        Some(self.at(offset))
    }

    /// Whether an address is in the range.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        let offset = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                u32::from(address).checked_sub(u32::from(base)).map(u128::from)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                u128::from(address).checked_sub(u128::from(base))
            }
            _ => None,
        };
        offset.is_some_and(|offset| (1..=self.last).contains(&offset))
    }

    fn at(&self, offset: u32) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(offset))),
            IpAddr::V6(base) => {
                IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(u128::from(offset))))
            }
        }
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
        let ranges = ["10.96.0.0", "10.97.0.0", "fd00::"].map(|text| text.parse().unwrap());
        let ranges = ranges.map(|base: IpAddr| Range::new((base, 30)));
        addresses.set_ranges(ranges);
        assert_eq!(addresses.allocate().unwrap().to_string(), "10.97.0.2");
        assert_eq!(addresses.allocate(), Err(AllocationError::Full));
        let other = "10.97.0.1".parse().unwrap();
        assert_eq!(addresses.reserve(other), Ok(()));
        addresses.set_ranges([ranges[0]]);
        let gone = "10.97.0.2".parse().unwrap();
        assert_eq!(addresses.reserve(gone), Err(AllocationError::OutOfRange));
        assert_eq!(addresses.reserve(addresses.first()), Ok(()));
    }

    #[test]
    fn all_of_a_large_range_may_be_asked_for() {
        let check = |text: &str, prefix: u8, address: &str| {
            Range::new((text.parse().unwrap(), prefix)).has(address.parse().unwrap())
        };
        assert!(check("10.0.0.0", 8, "10.255.255.254") && !check("10.0.0.0", 8, "10.255.255.255"));
        assert!(!check("10.0.0.0", 8, "10.0.0.0") && !check("10.0.0.0", 8, "11.0.0.1"));
        assert!(check("fd00::", 108, "fd00::f:ffff") && !check("fd00::", 108, "fd00::"));
        assert!(!check("fd00::", 108, "fd00::10:0") && !check("fd00::", 8, "10.0.0.1"));
        assert!(check("::", 0, "ffff::1"));
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
