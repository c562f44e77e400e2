//! A rule, written as one reads it: matches from left to right, then what happens.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::attributes::Attributes;
use super::expression::{self, Comparison, Meta, register};

/// What happens to a packet, or where it goes next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The packet is dropped.
    Drop,
    /// The packet leaves this hook.
    Accept,
    /// A chain, and back.
    Jump(String),
    /// A chain, not back.
    Goto(String),
    /// Back to the calling chain.
    Return,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer4 {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

/// A rule under construction. Two equal rules have equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    expressions: Attributes,
}

impl Rule {
    /// A rule that matches everything and does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn encoded(&self) -> &Attributes {
        &self.expressions
    }

    /// Matches packets from a network.
    #[must_use]
    pub fn source(self, network: Ipv4Addr, prefix_len: u8) -> Self {
        self.address(12, network, prefix_len, Comparison::Equal)
    }

    /// Matches packets from outside a network.
    #[must_use]
    pub fn source_not(self, network: Ipv4Addr, prefix_len: u8) -> Self {
        self.address(12, network, prefix_len, Comparison::NotEqual)
    }

    /// Matches packets to a network.
    #[must_use]
    pub fn destination(self, network: Ipv4Addr, prefix_len: u8) -> Self {
        self.address(16, network, prefix_len, Comparison::Equal)
    }

    /// Matches packets to outside a network.
    #[must_use]
    pub fn destination_not(self, network: Ipv4Addr, prefix_len: u8) -> Self {
        self.address(16, network, prefix_len, Comparison::NotEqual)
    }

    /// Matches packets to an address of this host.
    #[must_use]
    pub fn destination_is_local(self) -> Self {
        const LOCAL: u32 = 2;
        self.then(expression::destination_type(register(0))).then(expression::compare(
            register(0),
            Comparison::Equal,
            &LOCAL.to_ne_bytes(),
        ))
    }

    /// Matches packets of a protocol.
    #[must_use]
    pub fn layer4(self, protocol: Layer4) -> Self {
        self.then(expression::load_meta(register(0), Meta::Layer4)).then(expression::compare(
            register(0),
            Comparison::Equal,
            &[protocol as u8],
        ))
    }

    /// Matches packets to a port; match the protocol first.
    #[must_use]
    pub fn destination_port(self, port: u16) -> Self {
        self.then(expression::transport_header(register(0), 2, 2)).then(expression::compare(
            register(0),
            Comparison::Equal,
            &port.to_be_bytes(),
        ))
    }

    /// Matches packets that leave, or do not leave, through a device.
    #[must_use]
    pub fn output_device(self, name: &str, is: bool) -> Self {
        self.device(Meta::OutputName, name, is)
    }

    /// Matches packets that came, or did not come, through a device.
    #[must_use]
    pub fn input_device(self, name: &str, is: bool) -> Self {
        self.device(Meta::InputName, name, is)
    }

    /// Matches packets of new connections.
    #[must_use]
    pub fn connection_is_new(self) -> Self {
        self.connection_state(8)
    }

    /// Matches packets that belong to no connection and begin none.
    #[must_use]
    pub fn connection_is_invalid(self) -> Self {
        self.connection_state(1)
    }

    /// Matches packets whose mark has these bits.
    #[must_use]
    pub fn mark_has(self, bits: u32) -> Self {
        let bits = bits.to_ne_bytes();
        self.then(expression::load_meta(register(0), Meta::Mark))
            .then(expression::bitwise(register(0), register(0), &bits, &[0; 4]))
            .then(expression::compare(register(0), Comparison::Equal, &bits))
    }

    /// Matches packets whose mark lacks these bits.
    #[must_use]
    pub fn mark_lacks(self, bits: u32) -> Self {
        self.then(expression::load_meta(register(0), Meta::Mark))
            .then(expression::bitwise(register(0), register(0), &bits.to_ne_bytes(), &[0; 4]))
            .then(expression::compare(register(0), Comparison::Equal, &[0; 4]))
    }

    /// Adds bits to the packet's mark.
    #[must_use]
    pub fn set_mark(self, bits: u32) -> Self {
        self.change_mark(!bits, bits)
    }

    /// Flips bits of the packet's mark: clears bits that [`Rule::mark_has`] matched.
    #[must_use]
    pub fn clear_mark(self, bits: u32) -> Self {
        self.change_mark(!bits, 0)
    }

    /// Continues where a verdict map says for destination address, protocol and port.
    #[must_use]
    pub fn dispatch_by_destination(self, map: &str) -> Self {
        self.then(expression::network_header(register(0), 16, 4))
            .then(expression::load_meta(register(1), Meta::Layer4))
            .then(expression::transport_header(register(2), 2, 2))
            .then(to_verdict(map, register(0)))
    }

    /// Continues where a verdict map says for protocol and destination port.
    #[must_use]
    pub fn dispatch_by_port(self, map: &str) -> Self {
        self.then(expression::load_meta(register(0), Meta::Layer4))
            .then(expression::transport_header(register(1), 2, 2))
            .then(to_verdict(map, register(0)))
    }

    /// Continues where an anonymous map says for a random number below `modulus`. `id` is what
    /// [`super::Transaction::add_anonymous_map`] answered.
    #[must_use]
    pub fn dispatch_at_random(self, map: &str, id: u32, modulus: u32) -> Self {
        self.then(expression::random_number(register(0), modulus)).then(expression::lookup(
            map,
            Some(id),
            register(0),
            Some(expression::VERDICT_REGISTER),
            false,
        ))
    }

    /// Matches, with probability one in `modulus`.
    #[must_use]
    pub fn one_in(self, modulus: u32) -> Self {
        self.then(expression::random_number(register(0), modulus)).then(expression::compare(
            register(0),
            Comparison::Equal,
            &0_u32.to_ne_bytes(),
        ))
    }

    /// Matches packets whose source address is, or is not, in a set.
    #[must_use]
    pub fn source_in(self, set: &str, is: bool) -> Self {
        self.then(expression::network_header(register(0), 12, 4)).then(expression::lookup(
            set,
            None,
            register(0),
            None,
            !is,
        ))
    }

    /// Matches packets whose destination address is, or is not, in a set.
    #[must_use]
    pub fn destination_in(self, set: &str, is: bool) -> Self {
        self.then(expression::network_header(register(0), 16, 4)).then(expression::lookup(
            set,
            None,
            register(0),
            None,
            !is,
        ))
    }

    /// Remembers the source address in a set for a time.
    #[must_use]
    pub fn remember_source(self, set: &str, timeout_ms: u64) -> Self {
        self.then(expression::network_header(register(0), 12, 4)).then(expression::update_set(
            set,
            register(0),
            timeout_ms,
        ))
    }

    /// Sends the connection to an address and port.
    #[must_use]
    pub fn dnat(self, to: SocketAddrV4) -> Self {
        self.then(expression::immediate(register(0), &to.ip().octets()))
            .then(expression::immediate(register(1), &to.port().to_be_bytes()))
            .then(expression::destination_nat(register(0), Some(register(1))))
    }

    /// Sends the connection where a map from protocol and destination port says.
    #[must_use]
    pub fn dnat_by_port(self, map: &str) -> Self {
        self.then(expression::load_meta(register(0), Meta::Layer4))
            .then(expression::transport_header(register(1), 2, 2))
            .then(expression::lookup(map, None, register(0), Some(register(0)), false))
            .then(expression::destination_nat(register(0), Some(register(1))))
    }

    /// Sends the connection where a map from destination address, protocol and port says.
    #[must_use]
    pub fn dnat_by_destination(self, map: &str) -> Self {
        self.then(expression::network_header(register(0), 16, 4))
            .then(expression::load_meta(register(1), Meta::Layer4))
            .then(expression::transport_header(register(2), 2, 2))
            .then(expression::lookup(map, None, register(0), Some(register(0)), false))
            .then(expression::destination_nat(register(0), Some(register(1))))
    }

    /// Gives the connection the source address of the device it leaves through.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.then(expression::masquerade())
    }

    /// Answers that the port cannot be reached; for tables of IPv4.
    #[must_use]
    pub fn reject(self) -> Self {
        self.then(expression::reject())
    }

    /// Ends the rule with a verdict.
    #[must_use]
    pub fn verdict(self, verdict: &Verdict) -> Self {
        self.then(expression::verdict(verdict))
    }

    /// Ends the rule with a jump.
    #[must_use]
    pub fn jump(self, chain: &str) -> Self {
        self.verdict(&Verdict::Jump(chain.to_owned()))
    }

    /// Ends the rule with a goto.
    #[must_use]
    pub fn goto(self, chain: &str) -> Self {
        self.verdict(&Verdict::Goto(chain.to_owned()))
    }

    fn then(mut self, expression: Attributes) -> Self {
        self.expressions.append(&expression);
        self
    }

    fn address(
        self,
        offset: u32,
        network: Ipv4Addr,
        prefix_len: u8,
        comparison: Comparison,
    ) -> Self {
        let load = expression::network_header(register(0), offset, 4);
        let rule = self.then(load);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0);
        let rule = if mask == u32::MAX {
            rule
        } else {
            let mask = mask.to_be_bytes();
            rule.then(expression::bitwise(register(0), register(0), &mask, &[0; 4]))
        };
        let masked = network.to_bits() & mask;
        rule.then(expression::compare(register(0), comparison, &masked.to_be_bytes()))
    }

    fn device(self, key: Meta, name: &str, is: bool) -> Self {
        // IFNAMSIZ
        let mut padded = [0; 16];
        for (to, from) in padded.iter_mut().zip(name.bytes().take(15)) {
            *to = from;
        }
        let comparison = if is { Comparison::Equal } else { Comparison::NotEqual };
        self.then(expression::load_meta(register(0), key)).then(expression::compare(
            register(0),
            comparison,
            &padded,
        ))
    }

    fn connection_state(self, bit: u32) -> Self {
        self.then(expression::connection_state(register(0)))
            .then(expression::bitwise(register(0), register(0), &bit.to_ne_bytes(), &[0; 4]))
            .then(expression::compare(register(0), Comparison::NotEqual, &[0; 4]))
    }

    fn change_mark(self, mask: u32, xor: u32) -> Self {
        self.then(expression::load_meta(register(0), Meta::Mark))
            .then(expression::bitwise(
                register(0),
                register(0),
                &mask.to_ne_bytes(),
                &xor.to_ne_bytes(),
            ))
            .then(expression::store_meta(register(0), Meta::Mark))
    }
}

fn to_verdict(map: &str, key: u32) -> Attributes {
    expression::lookup(map, None, key, Some(expression::VERDICT_REGISTER), false)
}
