//! The instructions that a rule consists of, encoded.
//!
//! Registers: 0 takes verdicts; 8 to 23 are sixteen registers of four bytes, used here from the
//! first one on; a longer value takes several.

use super::attributes::Attributes;
use super::rule::Verdict;

const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

pub(super) const VERDICT_REGISTER: u32 = 0;

/// The n-th four-byte register.
pub(super) fn register(n: u32) -> u32 {
    8 + n
}

/// Metadata keys, `enum nft_meta_keys`.
#[derive(Clone, Copy)]
pub(super) enum Meta {
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    Layer4 = 16,
}

/// Comparison, `enum nft_cmp_ops`.
#[derive(Clone, Copy)]
pub(super) enum Comparison {
    Equal = 0,
    NotEqual = 1,
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    let mut inner = Attributes::default();
    inner.text(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, data);
    let mut element = Attributes::default();
    element.nested(LIST_ELEMENT, &inner);
    element
}

pub(super) fn value(bytes: &[u8]) -> Attributes {
    let mut data = Attributes::default();
    data.value(DATA_VALUE, bytes);
    data
}

pub(super) fn verdict_data(verdict: &Verdict) -> Attributes {
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    let mut inner = Attributes::default();
    inner.i32(1, code);
    if let Some(chain) = chain {
        inner.text(2, chain);
    }
    let mut data = Attributes::default();
    data.nested(DATA_VERDICT, &inner);
    data
}

pub(super) fn verdict(verdict: &Verdict) -> Attributes {
    let mut data = Attributes::default();
    data.u32(1, VERDICT_REGISTER).nested(2, &verdict_data(verdict));
    expression("immediate", &data)
}

pub(super) fn immediate(to: u32, bytes: &[u8]) -> Attributes {
    let mut data = Attributes::default();
    data.u32(1, to).nested(2, &value(bytes));
    expression("immediate", &data)
}

/// Loads bytes of the network header.
pub(super) fn network_header(to: u32, offset: u32, length: u32) -> Attributes {
    payload(to, 1, offset, length)
}

/// Loads bytes of the transport header.
pub(super) fn transport_header(to: u32, offset: u32, length: u32) -> Attributes {
    payload(to, 2, offset, length)
}

fn payload(to: u32, base: u32, offset: u32, length: u32) -> Attributes {
    let mut data = Attributes::default();
    data.u32(1, to).u32(2, base).u32(3, offset).u32(4, length);
    expression("payload", &data)
}

pub(super) fn load_meta(to: u32, key: Meta) -> Attributes {
    let mut data = Attributes::default();
    data.u32(1, to).u32(2, key as u32);
    expression("meta", &data)
}

pub(super) fn store_meta(from: u32, key: Meta) -> Attributes {
    let mut data = Attributes::default();
    data.u32(2, key as u32).u32(3, from);
    expression("meta", &data)
}

pub(super) fn compare(from: u32, comparison: Comparison, bytes: &[u8]) -> Attributes {
    let mut data = Attributes::default();
    data.u32(1, from).u32(2, comparison as u32).nested(3, &value(bytes));
    expression("cmp", &data)
}

/// `to = (from & mask) ^ xor`, all of the same length.
pub(super) fn bitwise(from: u32, to: u32, mask: &[u8], xor: &[u8]) -> Attributes {
    let length = u32::try_from(mask.len()).expect("a mask is at most 16 bytes");
    let mut data = Attributes::default();
    data.u32(1, from).u32(2, to).u32(3, length).nested(4, &value(mask)).nested(5, &value(xor));
    expression("bitwise", &data)
}

/// Looks a key up in a set; in a map when `to` is given. `id` names a set of the same transaction.
pub(super) fn lookup(
    set: &str,
    id: Option<u32>,
    from: u32,
    to: Option<u32>,
    inverted: bool,
) -> Attributes {
    let mut data = Attributes::default();
    data.text(1, set).u32(2, from);
    if let Some(to) = to {
        data.u32(3, to);
    }
    if let Some(id) = id {
        data.u32(4, id);
    }
    if inverted {
        data.u32(5, 1);
    }
    expression("lookup", &data)
}

/// Destination translation to an IPv4 address and port in registers.
pub(super) fn destination_nat(address: u32, port: Option<u32>) -> Attributes {
    let mut data = Attributes::default();
    data.u32(1, 1).u32(2, 2).u32(3, address);
    if let Some(port) = port {
        data.u32(5, port);
    }
    expression("nat", &data)
}

/// Source translation to the address of the outgoing device, with a fully random port.
pub(super) fn masquerade() -> Attributes {
    const RANDOM_FULLY: u32 = 1 << 4;
    let mut data = Attributes::default();
    data.u32(1, RANDOM_FULLY);
    expression("masq", &data)
}

/// Loads the type of the destination address as the routing table sees it.
pub(super) fn destination_type(to: u32) -> Attributes {
    const RESULT_ADDRESS_TYPE: u32 = 3;
    const FLAG_DESTINATION: u32 = 2;
    let mut data = Attributes::default();
    data.u32(1, to).u32(2, RESULT_ADDRESS_TYPE).u32(3, FLAG_DESTINATION);
    expression("fib", &data)
}

pub(super) fn random_number(to: u32, modulus: u32) -> Attributes {
    let mut data = Attributes::default();
    data.u32(1, to).u32(2, modulus).u32(3, 1).u32(4, 0);
    expression("numgen", &data)
}

/// Loads the connection's state bits.
pub(super) fn connection_state(to: u32) -> Attributes {
    let mut data = Attributes::default();
    data.u32(1, to).u32(2, 0);
    expression("ct", &data)
}

/// Answers with an ICMP port-unreachable. The type that suits every family is accepted in a table
/// of IPv4 too, but silently drops there.
pub(super) fn reject() -> Attributes {
    const TYPE_ICMP: u32 = 0;
    const PORT_UNREACHABLE: u8 = 3;
    let mut data = Attributes::default();
    data.u32(1, TYPE_ICMP).u8(2, PORT_UNREACHABLE);
    expression("reject", &data)
}

/// Puts a key into a set, or renews its timeout.
pub(super) fn update_set(set: &str, key: u32, timeout_ms: u64) -> Attributes {
    const OPERATION_UPDATE: u32 = 1;
    let mut data = Attributes::default();
    data.text(1, set).u32(3, OPERATION_UPDATE).u32(4, key).u64(6, timeout_ms);
    expression("dynset", &data)
}
