//! Sets and maps.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::attributes::Attributes;
use super::expression::{value, verdict_data};
use super::rule::{Layer4, Verdict};

const FLAG_ANONYMOUS: u32 = 0x1;
const FLAG_CONSTANT: u32 = 0x2;
const FLAG_MAP: u32 = 0x8;
const FLAG_TIMEOUT: u32 = 0x10;
const FLAG_DYNAMIC: u32 = 0x20;
const VERDICT_TYPE: u32 = 0xffff_ff00;

/// One field of a key, or of a map's value; each takes four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyField {
    /// An IPv4 address.
    Address,
    /// A transport protocol.
    Layer4,
    /// A port.
    Port,
    /// A number, such as a random one.
    Number,
}

impl KeyField {
    /// What `nft list` should print the field as: libnftables' data types.
    fn display_type(self) -> u32 {
        match self {
            Self::Address => 7,
            Self::Layer4 => 12,
            Self::Port => 13,
            Self::Number => 4,
        }
    }
}

/// What a map leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetData {
    /// Nothing: it is a set.
    None,
    /// Verdicts.
    Verdict,
    /// Addresses and ports.
    AddressPort,
}

/// A set or map to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The fields of its keys.
    pub key: Vec<KeyField>,
    /// What it leads to.
    pub data: SetData,
    /// Whether rules put keys into it that time out after so many milliseconds.
    pub timeout_ms: Option<u64>,
}

impl Set {
    pub(super) fn encode(&self, id: u32, anonymous: bool) -> Attributes {
        let mut flags = 0;
        if anonymous {
            flags |= FLAG_ANONYMOUS | FLAG_CONSTANT;
        }
        if self.data != SetData::None {
            flags |= FLAG_MAP;
        }
        if self.timeout_ms.is_some() {
            flags |= FLAG_TIMEOUT | FLAG_DYNAMIC;
        }
        let key_type = display_type(&self.key);
        let key_length = 4 * u32::try_from(self.key.len()).expect("a key has a few fields");
        let mut set = Attributes::default();
        set.text(2, &self.name).u32(3, flags).u32(4, key_type).u32(5, key_length);
        match self.data {
            SetData::None => {}
            SetData::Verdict => {
                set.u32(6, VERDICT_TYPE);
            }
            SetData::AddressPort => {
                set.u32(6, display_type(&[KeyField::Address, KeyField::Port])).u32(7, 8);
            }
        }
        set.u32(10, id);
        if let Some(timeout) = self.timeout_ms {
            set.u64(11, timeout);
        }
        set
    }
}

fn display_type(fields: &[KeyField]) -> u32 {
    fields.iter().fold(0, |concatenated, field| concatenated << 6 | field.display_type())
}

/// What an element of a map leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ElementData {
    /// Nothing: it is an element of a set.
    None,
    /// A verdict.
    Verdict(Verdict),
    /// An address and port.
    AddressPort(SocketAddrV4),
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    key: Vec<u8>,
    data: ElementData,
}

impl Element {
    /// For a key of address, protocol and port.
    pub fn service(address: Ipv4Addr, protocol: Layer4, port: u16, data: ElementData) -> Self {
        let mut key = address.octets().to_vec();
        key.extend(protocol_and_port(protocol, port));
        Self { key, data }
    }

    /// For a key of protocol and port.
    pub fn port(protocol: Layer4, port: u16, data: ElementData) -> Self {
        Self { key: protocol_and_port(protocol, port).to_vec(), data }
    }

    /// For a key of one address.
    pub fn address(address: Ipv4Addr, data: ElementData) -> Self {
        Self { key: address.octets().to_vec(), data }
    }

    /// For a key of one number.
    pub fn number(number: u32, data: ElementData) -> Self {
        Self { key: number.to_ne_bytes().to_vec(), data }
    }

    pub(super) fn encode(&self) -> Attributes {
        let mut element = Attributes::default();
        element.nested(1, &value(&self.key));
        match &self.data {
            ElementData::None => {}
            ElementData::Verdict(verdict) => {
                element.nested(2, &verdict_data(verdict));
            }
            ElementData::AddressPort(to) => {
                let mut bytes = to.ip().octets().to_vec();
                bytes.extend(to.port().to_be_bytes());
                bytes.extend([0, 0]);
                element.nested(2, &value(&bytes));
            }
        }
        element
    }
}

fn protocol_and_port(protocol: Layer4, port: u16) -> [u8; 8] {
    let port = port.to_be_bytes();
    [protocol as u8, 0, 0, 0, port[0], port[1], 0, 0]
}
