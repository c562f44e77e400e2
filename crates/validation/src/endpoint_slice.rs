//! Endpoint slices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use meta::names;

use crate::FieldError;
use crate::address::endpoint_ip;
use crate::node::{Findings, Node};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const HINTS_MAX: usize = 8;
const TOPOLOGY_MAX: usize = 16;
const PORTS_MAX: usize = 20_000;

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    head(object, out);
    endpoints(object, out);
}

/// Endpoints that stay as they are, are not looked at again.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    head(new, out);
    if new.get("endpoints").value != old.get("endpoints").value {
        endpoints(new, out);
    }
    new.get("addressType").immutable_text(&old.get("addressType"), out);
}

fn head(object: &Node<'_>, out: &mut Findings) {
    object.get("addressType").require_one_of(&["FQDN", "IPv4", "IPv6"], out);
    ports(&object.get("ports"), out);
}

fn endpoints(object: &Node<'_>, out: &mut Findings) {
    let kind = object.get("addressType");
    let endpoints = object.get("endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        out.push(FieldError::too_many(&endpoints.path, endpoints.len(), ENDPOINTS_MAX));
        return;
    }
    for endpoint in endpoints.items() {
        addresses(&endpoint.get("addresses"), kind.text(), out);
        for (field, rule) in [
            ("nodeName", names::dns1123_subdomain as fn(&str) -> Vec<String>),
            ("hostname", names::dns1123_label),
        ] {
            let name = endpoint.get(field);
            if name.is_set() {
                name.invalid_each(rule(name.text()), out);
            }
        }
        let topology = endpoint.get("deprecatedTopology");
        topology.at_most(TOPOLOGY_MAX, out);
        crate::metadata::labels(&topology, out);
        for list in ["forZones", "forNodes"] {
            hints(&endpoint.get("hints").get(list), list, out);
        }
    }
}

fn addresses(addresses: &Node<'_>, kind: &str, out: &mut Findings) {
    if addresses.len() == 0 {
        let detail = "must contain at least 1 address";
        out.push(FieldError::required(&addresses.path, detail));
    } else if addresses.len() > ADDRESSES_MAX {
        out.push(FieldError::too_many(&addresses.path, addresses.len(), ADDRESSES_MAX));
        return;
    }
    for address in addresses.items() {
        let parsed = address.text().parse::<IpAddr>();
        match (kind, parsed) {
            ("IPv4" | "IPv6", Err(_)) => crate::address::ip(&address, out),
            // Upstream reports these at the list.
            ("IPv4", Ok(IpAddr::V6(_))) => {
                let detail = "must be an IPv4 address";
                out.push(FieldError::invalid(&addresses.path, address.text(), detail));
            }
            ("IPv6", Ok(IpAddr::V4(_))) => {
                let detail = "must be an IPv6 address";
                out.push(FieldError::invalid(&addresses.path, address.text(), detail));
            }
            ("IPv4" | "IPv6", Ok(_)) => endpoint_ip(&address, out),
            _ => {}
        }
    }
}

fn hints(hints: &Node<'_>, list: &str, out: &mut Findings) {
    if hints.len() > HINTS_MAX {
        out.push(FieldError::too_many(&hints.path, hints.len(), HINTS_MAX));
        return;
    }
    let mut seen = BTreeSet::new();
    for hint in hints.items() {
        let name = hint.get("name");
        if !seen.insert(name.text()) {
            out.push(FieldError::duplicate(&name.path, name.text()));
        } else if list == "forZones" {
            name.invalid_each(names::label_value(name.text()), out);
        } else {
            name.invalid_each(names::dns1123_subdomain(name.text()), out);
        }
    }
}

fn ports(ports: &Node<'_>, out: &mut Findings) {
    if ports.len() > PORTS_MAX {
        out.push(FieldError::too_many(&ports.path, ports.len(), PORTS_MAX));
        return;
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.text().is_empty() {
            name.invalid_each(names::dns1123_label(name.text()), out);
        }
        if !seen.insert(name.text()) {
            out.push(FieldError::duplicate(&name.path, name.text()));
        }
        port.get("protocol").require_one_of(&["SCTP", "TCP", "UDP"], out);
        let application = port.get("appProtocol");
        if application.is_set() {
            application.invalid_each(names::qualified_name(application.text()), out);
        }
    }
}
