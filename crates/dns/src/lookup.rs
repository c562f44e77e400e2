//! Answers from the zone: a pure function of names.
//!
//! Names are lower case, without a trailing dot.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::zone::{Service, Zone, undashed};

/// The version of the DNS specification, served as `dns-version`.
const SPECIFICATION: &str = "1.1.0";

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Ports.
    Srv,
    /// A name of an address.
    Ptr,
    /// Text.
    Txt,
    /// An alias.
    Cname,
    /// Everything about the name.
    Any,
    /// Something that no name here has.
    Other,
}

/// One record's value. Names are complete, without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// An address.
    Address(IpAddr),
    /// Another name.
    Cname(String),
    /// The name of an address.
    Ptr(String),
    /// A port of a name.
    Srv(u16, String),
    /// Text.
    Txt(String),
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Records of the name that was asked for.
    Found(Vec<Value>),
    /// The same, with addresses of the names in it.
    FoundWith(Vec<Value>, Vec<(String, IpAddr)>),
    /// The name is an alias for one that must be asked for elsewhere.
    Alias(String),
    /// The name exists, but has no such record.
    NoData,
    /// The name does not exist.
    NoName,
    /// Not a name of this cluster.
    NotOurs,
}

/// Answers a question about `name` in the zone of `domain`.
pub fn lookup(zone: &Zone, domain: &str, name: &str, kind: Kind) -> Answer {
    if let Some(address) = reverse_address(name) {
        return reverse(zone, domain, address, kind);
    }
    let Some(inner) = within(name, domain) else { return Answer::NotOurs };
    let labels: Vec<&str> = inner.split('.').rev().filter(|label| !label.is_empty()).collect();
    match labels.as_slice() {
        [] | ["svc" | "pod"] => Answer::NoData,
        ["dns-version"] => pick(kind, vec![Value::Txt(SPECIFICATION.to_owned())]),
        ["svc", namespace] | ["pod", namespace] if zone.has_namespace(namespace) => Answer::NoData,
        ["svc", namespace, service, rest @ ..] => {
            ServiceName { zone, domain, namespace, service }.answer(rest, kind)
        }
        ["pod", namespace, label] if zone.has_namespace(namespace) => match undashed(label) {
            Some(address) => pick(kind, vec![Value::Address(address)]),
            None => Answer::NoName,
        },
        _ => Answer::NoName,
    }
}

struct ServiceName<'a> {
    zone: &'a Zone,
    domain: &'a str,
    namespace: &'a str,
    service: &'a str,
}

impl ServiceName<'_> {
    /// `rest` are the labels before the service's, the nearest first.
    fn answer(&self, rest: &[&str], kind: Kind) -> Answer {
        let Some(service) = self.zone.service(self.namespace, self.service) else {
            return Answer::NoName;
        };
        match (service, rest) {
            (Service::External(target), []) => {
                let target = target.trim_end_matches('.').to_ascii_lowercase();
                if kind == Kind::Cname {
                    Answer::Found(vec![Value::Cname(target)])
                } else {
                    Answer::Alias(target)
                }
            }
            (Service::Cluster { addresses, ports }, []) => {
                let mut values: Vec<Value> =
                    addresses.iter().copied().map(Value::Address).collect();
                values.extend(ports.iter().map(|port| Value::Srv(port.number, self.full_name())));
                self.with_addresses(kind, values)
            }
            (Service::Headless, []) => {
                let mut values: Vec<Value> = self
                    .endpoints()
                    .into_iter()
                    .map(|(_, address)| Value::Address(address))
                    .collect();
                if values.is_empty() {
                    return Answer::NoName;
                }
                values.extend(self.headless_ports(|_, _| true));
                self.with_addresses(kind, values)
            }
            (_, [protocol, port]) if protocol.starts_with('_') && port.starts_with('_') => {
                self.port(service, &protocol[1..], &port[1..], kind)
            }
            (Service::Headless, [label]) => {
                let endpoints = self.endpoints();
                let named = endpoints.into_iter().filter(|(name, _)| name == label);
                let values: Vec<Value> = named.map(|(_, a)| Value::Address(a)).collect();
                if values.is_empty() { Answer::NoName } else { pick(kind, values) }
            }
            _ => Answer::NoName,
        }
    }

    fn port(&self, service: &Service, protocol: &str, name: &str, kind: Kind) -> Answer {
        let values: Vec<Value> = match service {
            Service::Cluster { ports, .. } => ports
                .iter()
                .filter(|port| port.protocol == protocol && port.name == name)
                .map(|port| Value::Srv(port.number, self.full_name()))
                .collect(),
            Service::Headless => self.headless_ports(|p, n| p == protocol && n == name),
            Service::External(_) => Vec::new(),
        };
        if values.is_empty() { Answer::NoName } else { self.with_addresses(kind, values) }
    }

    /// The SRV values of every endpoint's ports that `which` takes by protocol and name.
    fn headless_ports(&self, which: impl Fn(&str, &str) -> bool) -> Vec<Value> {
        let mut values = BTreeSet::new();
        for slice in self.zone.slices(self.namespace, self.service) {
            for port in slice.ports.iter().filter(|port| which(&port.protocol, &port.name)) {
                for endpoint in &slice.endpoints {
                    let name = format!("{}.{}", endpoint.label, self.full_name());
                    values.insert(Value::Srv(port.number, name));
                }
            }
        }
        values.into_iter().collect()
    }

    fn endpoints(&self) -> BTreeSet<(String, IpAddr)> {
        let slices = self.zone.slices(self.namespace, self.service);
        slices
            .flat_map(|slice| &slice.endpoints)
            .map(|endpoint| (endpoint.label.clone(), endpoint.address))
            .collect()
    }

    /// Adds to SRV values the addresses of the names in them.
    fn with_addresses(&self, kind: Kind, values: Vec<Value>) -> Answer {
        let found = match pick(kind, values) {
            Answer::Found(found) => found,
            other => return other,
        };
        let mut addresses = BTreeSet::new();
        for value in &found {
            let Value::Srv(_, target) = value else { continue };
            for kind in [Kind::A, Kind::Aaaa] {
                if let Answer::Found(values) = lookup(self.zone, self.domain, target, kind) {
                    addresses.extend(values.into_iter().filter_map(|value| match value {
                        Value::Address(address) => Some((target.clone(), address)),
                        _ => None,
                    }));
                }
            }
        }
        if addresses.is_empty() {
            Answer::Found(found)
        } else {
            Answer::FoundWith(found, addresses.into_iter().collect())
        }
    }

    fn full_name(&self) -> String {
        format!("{}.{}.svc.{}", self.service, self.namespace, self.domain)
    }
}

fn pick(kind: Kind, values: Vec<Value>) -> Answer {
    let wanted: Vec<Value> = values
        .into_iter()
        .filter(|value| match (kind, value) {
            (Kind::Any, _)
            | (Kind::Cname, Value::Cname(_))
            | (Kind::Ptr, Value::Ptr(_))
            | (Kind::Srv, Value::Srv(..))
            | (Kind::Txt, Value::Txt(_)) => true,
            (Kind::A, Value::Address(address)) => address.is_ipv4(),
            (Kind::Aaaa, Value::Address(address)) => address.is_ipv6(),
            _ => false,
        })
        .collect();
    if wanted.is_empty() { Answer::NoData } else { Answer::Found(wanted) }
}

fn reverse(zone: &Zone, domain: &str, address: IpAddr, kind: Kind) -> Answer {
    let names = zone.names_of(address);
    if names.is_empty() {
        return Answer::NotOurs;
    }
    pick(kind, names.into_iter().map(|name| Value::Ptr(format!("{name}.{domain}"))).collect())
}

/// What stands before `.domain`, empty for the domain itself.
fn within<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let rest = name.strip_suffix(domain)?;
    if rest.is_empty() { Some("") } else { rest.strip_suffix('.') }
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let parts: Vec<&str> = labels.split('.').collect();
        if parts.len() != 4 {
            return None;
        }
        for (octet, part) in octets.iter_mut().rev().zip(parts) {
            *octet = part.parse().ok()?;
        }
        return Some(Ipv4Addr::from(octets).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let digits: String = labels.split('.').rev().collect();
    if digits.len() != 32 {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(|bits| Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests;
