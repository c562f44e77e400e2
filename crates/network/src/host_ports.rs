//! The nftables table of the pod network: masquerading and host ports.
//!
//! Host ports are elements of two maps, so that a pod adds and removes its own and nothing else
//! changes.

use std::net::SocketAddrV4;

use ipnet::Ipv4Net;
use netlink::NetlinkError;
use netlink::nft::{
    Element, ElementData, Family, Hook, HookKind, HookPoint, KeyField, Layer4, Rule, Set, SetData,
    Transaction,
};

use crate::lease::{Lease, Protocol};

pub(crate) const TABLE: &str = "ironclad-network";
/// Any address of the node.
const PORTS: &str = "host-ports";
/// One address of the node.
const ADDRESS_PORTS: &str = "host-address-ports";
/// After the service proxy's chains, which have upstream's priority of -100.
const PRIORITY_DNAT: i32 = -90;
const PRIORITY_SNAT: i32 = 100;

/// Makes the table anew, in one transaction, with the host ports of all leases.
pub(crate) fn rebuild<'a>(
    bridge: &str,
    pod_cidr: Ipv4Net,
    cluster_cidr: Ipv4Net,
    leases: impl Iterator<Item = &'a Lease>,
) -> Result<(), NetlinkError> {
    let mut transaction = Transaction::new(Family::Ip, TABLE);
    transaction.replace_table();
    let ports = vec![KeyField::Layer4, KeyField::Port];
    let address_ports = vec![KeyField::Address, KeyField::Layer4, KeyField::Port];
    for (name, key) in [(PORTS, ports), (ADDRESS_PORTS, address_ports)] {
        let data = SetData::AddressPort;
        transaction.add_set(&Set { name: name.to_owned(), key, data, timeout_ms: None });
    }
    for (chain, point) in [("prerouting", HookPoint::Prerouting), ("output", HookPoint::Output)] {
        let hook = Hook { kind: HookKind::Nat, point, priority: PRIORITY_DNAT };
        transaction.add_chain(chain, Some(hook));
        let by_address = Rule::new().dnat_by_destination(ADDRESS_PORTS);
        let by_port = Rule::new().destination_is_local().dnat_by_port(PORTS);
        transaction.add_rule(chain, &by_address).add_rule(chain, &by_port);
    }
    let hook = Hook { kind: HookKind::Nat, point: HookPoint::Postrouting, priority: PRIORITY_SNAT };
    transaction.add_chain("postrouting", Some(hook));
    let (pods, pods_len) = (pod_cidr.network(), pod_cidr.prefix_len());
    let (cluster, cluster_len) = (cluster_cidr.network(), cluster_cidr.prefix_len());
    let leaving =
        Rule::new().source(pods, pods_len).destination_not(cluster, cluster_len).masquerade();
    // The node reaching a host port through its loopback address.
    let loopback = std::net::Ipv4Addr::new(127, 0, 0, 0);
    let from_loopback = Rule::new().source(loopback, 8).output_device(bridge, true).masquerade();
    transaction.add_rule("postrouting", &leaving).add_rule("postrouting", &from_loopback);
    for lease in leases {
        add(&mut transaction, lease);
    }
    transaction.commit()
}

/// Opens the host ports of a lease.
pub(crate) fn open(lease: &Lease) -> Result<(), NetlinkError> {
    let mut transaction = Transaction::new(Family::Ip, TABLE);
    add(&mut transaction, lease);
    transaction.commit()
}

/// Closes the host ports of a lease; those that are not open are fine.
pub(crate) fn close(lease: &Lease) -> Result<(), NetlinkError> {
    for (map, element) in elements(lease) {
        let mut transaction = Transaction::new(Family::Ip, TABLE);
        transaction.delete_elements(map, &[element]);
        match transaction.commit() {
            Err(error) if error.is_absent() => {}
            result => result?,
        }
    }
    Ok(())
}

fn add(transaction: &mut Transaction, lease: &Lease) {
    for (map, element) in elements(lease) {
        transaction.add_elements(map, &[element]);
    }
}

fn elements(lease: &Lease) -> impl Iterator<Item = (&'static str, Element)> + '_ {
    lease.host_ports.iter().map(|port| {
        let to = ElementData::AddressPort(SocketAddrV4::new(lease.address, port.port));
        let protocol = match port.protocol {
            Protocol::Tcp => Layer4::Tcp,
            Protocol::Udp => Layer4::Udp,
            Protocol::Sctp => Layer4::Sctp,
        };
        match port.host_address {
            None => (PORTS, Element::port(protocol, port.host_port, to)),
            Some(address) => {
                (ADDRESS_PORTS, Element::service(address, protocol, port.host_port, to))
            }
        }
    })
}
