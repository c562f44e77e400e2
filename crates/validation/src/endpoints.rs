//! Endpoints.

use meta::names;

use crate::FieldError;
use crate::address::{self, endpoint_ip};
use crate::node::{Findings, Node};

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    for subset in object.get("subsets").items() {
        let lists = ["addresses", "notReadyAddresses"].map(|field| subset.get(field));
        if lists.iter().all(|list| list.len() == 0) {
            let detail = "must specify `addresses` or `notReadyAddresses`";
            out.push(FieldError::required(&subset.path, detail));
        }
        for address in lists.iter().flat_map(Node::items) {
            let ip = address.get("ip");
            let before = out.len();
            address::ip(&ip, out);
            if out.len() == before {
                endpoint_ip(&ip, out);
            } else {
                let detail = "must be a valid IP address";
                out.push(FieldError::invalid(&ip.path, ip.text(), detail));
            }
            let (hostname, node) = (address.get("hostname"), address.get("nodeName"));
            if !hostname.text().is_empty() {
                hostname.invalid_each(names::dns1123_label(hostname.text()), out);
            }
            if node.is_set() {
                node.invalid_each(names::dns1123_subdomain(node.text()), out);
            }
        }
        let ports = subset.get("ports");
        for port in ports.items() {
            let name = port.get("name");
            if !name.text().is_empty() {
                name.invalid_each(names::dns1123_label(name.text()), out);
            } else if ports.len() > 1 {
                out.push(FieldError::required(&name.path, ""));
            }
            port.get("port").port_number(out);
            port.get("protocol").require_one_of(&["SCTP", "TCP", "UDP"], out);
        }
    }
}
