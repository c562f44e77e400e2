//! Network policies.

use crate::FieldError;
use crate::metadata::label_selector;
use crate::node::{Findings, Node};
use crate::service::is_cidr;

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    label_selector(&spec.get("podSelector"), out);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(rules).items() {
            for port in rule.get("ports").items() {
                policy_port(&port, out);
            }
            for peer in rule.get(peers).items() {
                policy_peer(&peer, out);
            }
        }
    }
    let types = spec.get("policyTypes");
    if types.len() > 2 {
        out.push(types.invalid("may not specify more than two policyTypes"));
        return;
    }
    for kind in types.items() {
        kind.one_of(&["Ingress", "Egress"], out);
    }
}

fn policy_port(port: &Node<'_>, out: &mut Findings) {
    port.get("protocol").one_of(&["SCTP", "TCP", "UDP"], out);
    let (number, end) = (port.get("port"), port.get("endPort"));
    if !number.is_set() {
        if end.is_set() {
            out.push(end.invalid("may not be specified when `port` is not specified"));
        }
        return;
    }
    number.port_or_name(out);
    if !end.is_set() {
        return;
    }
    if number.value.is_string() {
        out.push(end.invalid("may not be specified when `port` is non-numeric"));
        return;
    }
    if end.int() < number.int() {
        out.push(end.invalid("must be greater than or equal to `port`"));
    }
    end.port_number(out);
}

fn policy_peer(peer: &Node<'_>, out: &mut Findings) {
    let mut members = 0;
    for field in ["podSelector", "namespaceSelector"] {
        let selector = peer.get(field);
        if selector.is_set() {
            members += 1;
            label_selector(&selector, out);
        }
    }
    let block = peer.get("ipBlock");
    if block.is_set() {
        ip_block(&block, out);
        if members > 0 {
            out.push(peer.forbidden("may not specify both ipBlock and another peer"));
        }
        members += 1;
    }
    if members == 0 {
        out.push(FieldError::required(&peer.path, "must specify a peer"));
    }
}

fn ip_block(block: &Node<'_>, out: &mut Findings) {
    const DETAIL: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let cidr = block.get("cidr");
    if !cidr.require(out) {
        return;
    }
    if !is_cidr(cidr.text()) {
        out.push(cidr.invalid(DETAIL));
        return;
    }
    for except in block.get("except").items() {
        if !is_cidr(except.text()) {
            out.push(except.invalid(DETAIL));
        } else if !contains(cidr.text(), except.text()) {
            out.push(except.invalid("must be a strict subset of `cidr`"));
        }
    }
}

/// Whether a range holds another, smaller one.
fn contains(outer: &str, inner: &str) -> bool {
    let parse = |text: &str| -> Option<(u128, u32, bool)> {
        let (ip, len) = text.split_once('/')?;
        let len: u32 = len.parse().ok()?;
        Some(match ip.parse().ok()? {
            std::net::IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, len, true),
            std::net::IpAddr::V6(v6) => (v6.to_bits(), len, false),
        })
    };
    let (Some((base, len, v4)), Some((part, part_len, part_v4))) = (parse(outer), parse(inner))
    else {
        return false;
    };
    let mask = if len == 0 { 0 } else { u128::MAX << (128 - len.min(128)) };
    v4 == part_v4 && part_len > len && base & mask == part & mask
}
