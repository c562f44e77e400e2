//! Routes of the main table.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Connection, NetlinkError};

/// A unicast route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network; `0.0.0.0/0` or `::/0` is the default route.
    pub destination: (IpAddr, u8),
    /// The next hop; `None` when the network is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The device to send through.
    pub index: u32,
}

/// The IPv4 default route of the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The device it leads through.
    pub index: u32,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The source address it prefers.
    pub preferred_source: Option<IpAddr>,
}

impl Connection {
    /// Adds a route or replaces the one to the same network.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let (network, prefix_len) = route.destination;
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(network),
            destination_prefix_length: prefix_len,
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Boot,
            scope: if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link },
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        message.attributes.push(RouteAttribute::Oif(route.index));
        if prefix_len > 0 {
            message.attributes.push(RouteAttribute::Destination(route_address(network)));
        }
        if let Some(gateway) = route.gateway {
            message.attributes.push(RouteAttribute::Gateway(route_address(gateway)));
        }
        let operation = format!("set route to {network}/{prefix_len}");
        let message = RouteNetlinkMessage::NewRoute(message);
        self.change(operation, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// The IPv4 default route, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn default_route(&mut self) -> Result<Option<DefaultRoute>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let message = RouteNetlinkMessage::GetRoute(message);
        let answers = self.query("list routes", message, NLM_F_DUMP)?;
        Ok(answers.iter().find_map(read_default_route))
    }
}

fn read_default_route(message: &RouteNetlinkMessage) -> Option<DefaultRoute> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    let is_default = header.destination_prefix_length == 0
        && header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast;
    if !is_default {
        return None;
    }
    let mut route = DefaultRoute { index: 0, gateway: None, preferred_source: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.index = *index,
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::PrefSource(address) => route.preferred_source = ip(address),
            _ => {}
        }
    }
    (route.index != 0).then_some(route)
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
