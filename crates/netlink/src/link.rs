//! Network devices.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};

use crate::{Connection, NetlinkError};

/// A device as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its maximum transmission unit in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether it is the loopback device.
    pub is_loopback: bool,
    /// The index of the bridge it is a port of.
    pub controller: Option<u32>,
}

/// The far end of a veth pair.
pub struct VethPeer<'a> {
    /// Its name.
    pub name: &'a str,
    /// The namespace it is made in.
    pub netns: BorrowedFd<'a>,
}

impl Connection {
    /// All devices of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.query("list devices", message, NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(read_link).collect())
    }

    /// The device with this name.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than that there is none.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let message = RouteNetlinkMessage::GetLink(message);
        match self.query(&format!("find device {name}"), message, 0) {
            Ok(answers) => Ok(answers.iter().find_map(read_link)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge, down.
    ///
    /// # Errors
    /// When the kernel refuses; [`NetlinkError::is_exists`] when the name is taken.
    pub fn add_bridge(&mut self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        self.create(format!("create bridge {name}"), message)
    }

    /// Makes a veth pair, both ends down, the peer in another namespace from the start.
    ///
    /// # Errors
    /// When the kernel refuses; [`NetlinkError::is_exists`] when a name is taken.
    pub fn add_veth(
        &mut self,
        name: &str,
        mtu: u32,
        peer: &VethPeer<'_>,
    ) -> Result<(), NetlinkError> {
        let mut far = LinkMessage::default();
        far.attributes = vec![
            LinkAttribute::IfName(peer.name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::NetNsFd(peer.netns.as_raw_fd()),
        ];
        let mut near = LinkMessage::default();
        near.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
            ]),
        ];
        self.create(format!("create veth {name}"), near)
    }

    /// Takes a device up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        let message = RouteNetlinkMessage::SetLink(message);
        self.change(format!("take device {index} up"), message, 0)
    }

    /// Makes a device a port of a bridge.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_controller(&mut self, index: u32, bridge: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![LinkAttribute::Controller(bridge)];
        let message = RouteNetlinkMessage::SetLink(message);
        self.change(format!("add device {index} to bridge {bridge}"), message, 0)
    }

    /// Lets a bridge send a frame back through the port where it came from.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_hairpin(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ])];
        let message = RouteNetlinkMessage::NewLink(message);
        self.change(format!("set hairpin mode of bridge port {index}"), message, 0)
    }

    /// Removes a device; the other end of a veth pair goes with it. A device that is gone is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let Some(link) = self.link(name)? else { return Ok(()) };
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        let message = RouteNetlinkMessage::DelLink(message);
        match self.change(format!("remove device {name}"), message, 0) {
            Err(error) if error.is_absent() => Ok(()),
            result => result,
        }
    }

    fn create(&mut self, operation: String, message: LinkMessage) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewLink(message);
        self.change(operation, message, NLM_F_CREATE | NLM_F_EXCL)
    }
}

fn read_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        is_up: message.header.flags.contains(LinkFlags::Up),
        is_loopback: message.header.flags.contains(LinkFlags::Loopback),
        controller: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            _ => {}
        }
    }
    Some(link)
}
