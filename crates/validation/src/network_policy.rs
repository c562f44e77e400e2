//! Network policies.

use crate::FieldError;
use crate::address;
use crate::metadata::label_selector;
use crate::node::{Findings, Node};

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
        // Upstream quotes the port and not its end.
        let detail = "must be greater than or equal to `port`";
        out.push(FieldError::invalid(&end.path, number.int(), detail));
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
    let cidr = block.get("cidr");
    if !cidr.require(out) {
        return;
    }
    let before = out.len();
    address::cidr(&cidr, out);
    if out.len() > before {
        return;
    }
    for except in block.get("except").items() {
        address::cidr(&except, out);
        if address::is_strictly_within(except.text(), cidr.text()) == Some(false) {
            out.push(except.invalid("must be a strict subset of `cidr`"));
        }
    }
}
