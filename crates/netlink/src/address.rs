//! Addresses of devices.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Connection, NetlinkError};

impl Connection {
    /// Gives a device an address; one that it has already is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix_len: u8,
    ) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = prefix_len;
        message.attributes =
            vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        match address {
            IpAddr::V4(v4) => {
                message.header.family = AddressFamily::Inet;
                if prefix_len < 31 {
                    let host_bits = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
                    let broadcast = Ipv4Addr::from_bits(v4.to_bits() | host_bits);
                    message.attributes.push(AddressAttribute::Broadcast(broadcast));
                }
            }
            IpAddr::V6(_) => {
                message.header.family = AddressFamily::Inet6;
                // Addresses are given out by us: nobody else can have them, so no detection.
                message.header.flags = AddressHeaderFlags::Nodad;
            }
        }
        let message = RouteNetlinkMessage::NewAddress(message);
        let operation = format!("add address {address}/{prefix_len} to device {index}");
        self.change(operation, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// All addresses of global scope: device index, address, prefix length.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpAddr, u8)>, NetlinkError> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.query("list addresses", message, NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(read_address).collect())
    }
}

fn read_address(message: &RouteNetlinkMessage) -> Option<(u32, IpAddr, u8)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // The local address of a point-to-point link; the other one is its peer's.
            AddressAttribute::Local(address) => found = Some(*address),
            AddressAttribute::Address(address) if found.is_none() => found = Some(*address),
            _ => {}
        }
    }
    Some((message.header.index, found?, message.header.prefix_len))
}
