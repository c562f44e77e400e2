//! Changes to one table, committed whole or not at all.

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt;

use super::attributes::Attributes;
use super::rule::Rule;
use super::set::{Element, Set};
use crate::NetlinkError;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;
const FLAG_CREATE: u16 = 0x400;
const FLAG_APPEND: u16 = 0x800;
const TYPE_ERROR: u16 = 2;
/// Elements per message, so that its list stays well below an attribute's 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;
/// Room for acknowledgements and for large batches: 100,000 elements take about 6 MB.
const SOCKET_BUFFER_BYTES: usize = 32 << 20;

/// The address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ip = 2,
    /// IPv6.
    Ip6 = 10,
}

/// What kind of base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// Filters.
    Filter,
    /// Translates addresses of new connections.
    Nat,
}

/// Where a base chain is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    /// Before routing.
    Prerouting = 0,
    /// To this host.
    Input = 1,
    /// Through this host.
    Forward = 2,
    /// From this host.
    Output = 3,
    /// After routing.
    Postrouting = 4,
}

/// What makes a chain a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What kind.
    pub kind: HookKind,
    /// Where.
    pub point: HookPoint,
    /// In which order among others there; lower is earlier.
    pub priority: i32,
}

#[derive(Clone, Copy)]
#[repr(u16)]
enum Message {
    NewTable = 0,
    DelTable = 2,
    NewChain = 3,
    DelChain = 5,
    NewRule = 6,
    DelRule = 8,
    NewSet = 9,
    DelSet = 11,
    NewSetElement = 12,
    DelSetElement = 14,
}

/// Changes under construction. Nothing happens before [`Transaction::commit`].
pub struct Transaction {
    family: Family,
    table: String,
    bytes: Vec<u8>,
    /// What each message does, for the error of the one that fails.
    operations: Vec<String>,
    next_set_id: u32,
}

impl Transaction {
    /// Changes to a table.
    pub fn new(family: Family, table: impl Into<String>) -> Self {
        let mut transaction = Self {
            family,
            table: table.into(),
            bytes: Vec::new(),
            operations: Vec::new(),
            next_set_id: 0,
        };
        transaction.batch_mark(BATCH_BEGIN, "begin");
        transaction
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.operations.len() == 1
    }

    /// Makes the table; one that is there is fine.
    pub fn add_table(&mut self) -> &mut Self {
        let mut attributes = Attributes::default();
        attributes.text(1, &self.table).u32(2, 0);
        self.push(Message::NewTable, FLAG_CREATE, "add table", &attributes)
    }

    /// Removes the table with everything in it; it must be there.
    pub fn delete_table(&mut self) -> &mut Self {
        let mut attributes = Attributes::default();
        attributes.text(1, &self.table);
        self.push(Message::DelTable, 0, "delete table", &attributes)
    }

    /// Makes the table anew and empty, whether it was there or not.
    pub fn replace_table(&mut self) -> &mut Self {
        self.add_table().delete_table().add_table()
    }

    /// Makes a chain; one of this name that is there, with the same hook, is fine.
    pub fn add_chain(&mut self, name: &str, hook: Option<Hook>) -> &mut Self {
        let mut attributes = Attributes::default();
        attributes.text(1, &self.table).text(3, name);
        if let Some(hook) = hook {
            let mut inner = Attributes::default();
            inner.u32(1, hook.point as u32).i32(2, hook.priority);
            let kind = match hook.kind {
                HookKind::Filter => "filter",
                HookKind::Nat => "nat",
            };
            attributes.nested(4, &inner).text(7, kind);
        }
        self.push(Message::NewChain, FLAG_CREATE, format!("add chain {name}"), &attributes)
    }

    /// Removes a chain; no rule may lead to it and it must be empty.
    pub fn delete_chain(&mut self, name: &str) -> &mut Self {
        let mut attributes = Attributes::default();
        attributes.text(1, &self.table).text(3, name);
        self.push(Message::DelChain, 0, format!("delete chain {name}"), &attributes)
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) -> &mut Self {
        let mut attributes = Attributes::default();
        attributes.text(1, &self.table).text(2, name);
        self.push(Message::DelRule, 0, format!("flush chain {name}"), &attributes)
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, rule: &Rule) -> &mut Self {
        let mut attributes = Attributes::default();
        attributes.text(1, &self.table).text(2, chain).nested(4, rule.encoded());
        let flags = FLAG_CREATE | FLAG_APPEND;
        self.push(Message::NewRule, flags, format!("add rule to {chain}"), &attributes)
    }

    /// Makes a set or map; one that is there, of the same shape, is fine.
    pub fn add_set(&mut self, set: &Set) -> &mut Self {
        self.next_set_id += 1;
        let attributes = self.with_table(&set.encode(self.next_set_id, false));
        self.push(Message::NewSet, FLAG_CREATE, format!("add set {}", set.name), &attributes)
    }

    /// Makes a map for one rule of this transaction; answers its id for the rule.
    ///
    /// The name must be unique within the transaction. The map goes with its rule.
    pub fn add_anonymous_map(&mut self, set: &Set, elements: &[Element]) -> u32 {
        self.next_set_id += 1;
        let id = self.next_set_id;
        let attributes = self.with_table(&set.encode(id, true));
        self.push(Message::NewSet, FLAG_CREATE, "add anonymous map", &attributes);
        self.elements(Message::NewSetElement, FLAG_CREATE, &set.name, Some(id), elements);
        id
    }

    /// Removes a set or map; no rule may use it.
    pub fn delete_set(&mut self, name: &str) -> &mut Self {
        let mut attributes = Attributes::default();
        attributes.text(2, name);
        let attributes = self.with_table(&attributes);
        self.push(Message::DelSet, 0, format!("delete set {name}"), &attributes)
    }

    /// Adds elements; none of their keys may lead elsewhere already.
    pub fn add_elements(&mut self, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(Message::NewSetElement, FLAG_CREATE, set, None, elements)
    }

    /// Removes elements, which must be there.
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(Message::DelSetElement, 0, set, None, elements)
    }

    /// Applies all changes, or none.
    ///
    /// # Errors
    /// The first refusal of the kernel, with the change that it refused.
    pub fn commit(mut self) -> Result<(), NetlinkError> {
        if self.is_empty() {
            return Ok(());
        }
        self.batch_mark(BATCH_END, "commit");
        let socket = open_socket()?;
        socket.send(&self.bytes, 0).map_err(NetlinkError::Socket)?;
        // The kernel has worked off the batch before send returned: every answer is there.
        socket.set_non_blocking(true).map_err(NetlinkError::Socket)?;
        loop {
            let bytes = match socket.recv_from_full() {
                Ok((bytes, _)) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(NetlinkError::Socket(error)),
            };
            if let Some((sequence, errno)) = first_error(&bytes) {
                let operation = self.operations.get(sequence).map_or("commit", String::as_str);
                let operation = format!("{operation} in nftables table {}", self.table);
                return Err(NetlinkError::refused(operation, errno));
            }
        }
    }

    fn with_table(&self, rest: &Attributes) -> Attributes {
        let mut attributes = Attributes::default();
        attributes.text(1, &self.table).append(rest);
        attributes
    }

    fn elements(
        &mut self,
        message: Message,
        flags: u16,
        set: &str,
        id: Option<u32>,
        elements: &[Element],
    ) -> &mut Self {
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let mut list = Attributes::default();
            for element in chunk {
                list.nested(1, &element.encode());
            }
            let mut attributes = Attributes::default();
            attributes.text(1, &self.table).text(2, set).nested(3, &list);
            if let Some(id) = id {
                attributes.u32(4, id);
            }
            let operation = match message {
                Message::DelSetElement => format!("delete elements of {set}"),
                _ => format!("add elements to {set}"),
            };
            self.push(message, flags, operation, &attributes);
        }
        self
    }

    fn push(
        &mut self,
        message: Message,
        flags: u16,
        operation: impl Into<String>,
        attributes: &Attributes,
    ) -> &mut Self {
        let kind = SUBSYSTEM << 8 | message as u16;
        self.message(kind, flags, self.family as u8, 0, operation.into(), attributes);
        self
    }

    fn batch_mark(&mut self, kind: u16, operation: &str) {
        let attributes = Attributes::default();
        self.message(kind, 0, 0, SUBSYSTEM, operation.to_owned(), &attributes);
    }

    /// The sequence number of a message is its index in `operations`.
    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        operation: String,
        attributes: &Attributes,
    ) {
        let length = u32::try_from(20 + attributes.len()).expect("a message is below 64 KiB");
        let sequence = u32::try_from(self.operations.len()).expect("fewer than 2^32 messages");
        // Without FLAG_ACK the kernel answers only to what fails.
        let flags = FLAG_REQUEST | (flags & !FLAG_ACK);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.bytes.extend_from_slice(attributes.bytes());
        self.operations.push(operation);
    }
}

pub(super) fn open_socket() -> Result<Socket, NetlinkError> {
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(NetlinkError::Socket)?;
    socket.bind_auto().map_err(NetlinkError::Socket)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(NetlinkError::Socket)?;
    // Both need CAP_NET_ADMIN, as everything here does.
    let refused = |errno: rustix::io::Errno| NetlinkError::Socket(errno.into());
    sockopt::set_socket_send_buffer_size_force(&socket, SOCKET_BUFFER_BYTES).map_err(refused)?;
    sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER_BYTES).map_err(refused)?;
    Ok(socket)
}

/// Sequence number and errno of the first failure among answers.
fn first_error(mut bytes: &[u8]) -> Option<(usize, i32)> {
    while let (Some(header), Some(length)) = (bytes.get(..16), word(bytes, 0)) {
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if kind == TYPE_ERROR {
            let code = i32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?);
            if code != 0 {
                return Some((word(bytes, 8)? as usize, -code));
            }
        }
        bytes = bytes.get((length as usize).max(16).next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
