//! IP addresses and networks.

use std::fmt;
use std::net::IpAddr;

use super::{OpaqueValue, no_overload, only_text};
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        string_to_ip: ip(string) -> ip
        cidr_ip: <cidr>.ip() -> ip
        is_ip: isIP(string) -> bool
        ip_is_canonical: ip.isCanonical(string) -> bool
        ip_family: <ip>.family() -> int
        ip_is_unspecified: <ip>.isUnspecified() -> bool
        ip_is_loopback: <ip>.isLoopback() -> bool
        ip_is_link_local_multicast: <ip>.isLinkLocalMulticast() -> bool
        ip_is_link_local_unicast: <ip>.isLinkLocalUnicast() -> bool
        ip_is_global_unicast: <ip>.isGlobalUnicast() -> bool
        string_to_cidr: cidr(string) -> cidr
        is_cidr: isCIDR(string) -> bool
        cidr_contains_ip_string: <cidr>.containsIP(string) -> bool
        cidr_contains_ip_ip: <cidr>.containsIP(ip) -> bool
        cidr_contains_cidr_string: <cidr>.containsCIDR(string) -> bool
        cidr_contains_cidr: <cidr>.containsCIDR(cidr) -> bool
        cidr_masked: <cidr>.masked() -> cidr
        cidr_prefix_length: <cidr>.prefixLength() -> int
    ",
    functions: &[
        ("ip", ip),
        ("isIP", |args| Ok(Value::Bool(parse_ip(only_text(args)?).is_ok()))),
        ("ip.isCanonical", |args| {
            let text = only_text(args)?;
            Ok(Value::Bool(parse_ip(text).map_err(EvaluationError::failed)?.to_string() == text))
        }),
        ("family", |args| Ok(Value::Int(if ip_of(args)?.is_ipv4() { 4 } else { 6 }))),
        ("isUnspecified", |args| Ok(Value::Bool(ip_of(args)?.is_unspecified()))),
        ("isLoopback", |args| Ok(Value::Bool(ip_of(args)?.is_loopback()))),
        ("isLinkLocalMulticast", |args| Ok(Value::Bool(is_link_local_multicast(ip_of(args)?)))),
        ("isLinkLocalUnicast", |args| Ok(Value::Bool(is_link_local_unicast(ip_of(args)?)))),
        ("isGlobalUnicast", |args| Ok(Value::Bool(is_global_unicast(ip_of(args)?)))),
        ("cidr", |args| match Cidr::parse(only_text(args)?) {
            Ok(cidr) => Ok(Value::opaque(OpaqueValue::Cidr(cidr))),
            Err(why) => Err(EvaluationError::failed(why)),
        }),
        ("isCIDR", |args| Ok(Value::Bool(Cidr::parse(only_text(args)?).is_ok()))),
        ("containsIP", contains_ip),
        ("containsCIDR", contains_cidr),
        ("masked", |args| Ok(Value::opaque(OpaqueValue::Cidr(cidr_of(args.first())?.masked())))),
        ("prefixLength", |args| Ok(Value::Int(i64::from(cidr_of(args.first())?.bits)))),
    ],
};

/// A network: an address in it and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub(super) ip: IpAddr,
    bits: u8,
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        Ok(ip) => Ok(ip),
        Err(_) if text.contains('%') => {
            Err(format!("IP address {text:?} with zone value is not allowed"))
        }
        Err(_) => Err(format!(
            "IP Address {text:?} parse error during conversion from string: \
             ParseAddr({text:?}): unable to parse IP"
        )),
    }
}

impl Cidr {
    fn parse(text: &str) -> Result<Self, String> {
        let why = |why: &str| {
            format!(
                "network address parse error during conversion from string: \
                 netip.ParsePrefix({text:?}): {why}"
            )
        };
        let failed = || why("unable to parse IP");
        let (ip, bits) = text.rsplit_once('/').ok_or_else(|| why("no '/'"))?;
        let ip: IpAddr = ip.parse().map_err(|_| failed())?;
        let is_mapped = matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
        let is_plain = bits == "0" || !bits.starts_with(['0', '+']);
        if is_mapped {
            return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
        }
        let bits: Option<u8> = bits.parse().ok().filter(|_| is_plain);
        let bits = bits.ok_or_else(|| why("bad bits after slash"))?;
        if bits > if ip.is_ipv4() { 32 } else { 128 } {
            Err(failed())
        } else {
            Ok(Self { ip, bits })
        }
    }

    fn masked(self) -> Self {
        let ip = match self.ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4((u32::from(ip) & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V6((u128::from(ip) & mask).into())
            }
        };
        Self { ip, bits: self.bits }
    }

    fn contains(self, ip: IpAddr) -> bool {
        self.ip.is_ipv4() == ip.is_ipv4()
            && Self { ip, bits: self.bits }.masked().ip == self.masked().ip
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

fn ip<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let ip = match args {
        [Value::Opaque(_)] => cidr_of(args.first())?.ip,
        args => parse_ip(only_text(args)?).map_err(EvaluationError::failed)?,
    };
    Ok(Value::opaque(OpaqueValue::Ip(ip)))
}

fn ip_of(args: &[Value<'_>]) -> Outcome<IpAddr> {
    match args {
        [Value::Opaque(value)] => match &**value {
            OpaqueValue::Ip(ip) => Ok(*ip),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn cidr_of(value: Option<&Value<'_>>) -> Outcome<Cidr> {
    match value {
        Some(Value::Opaque(value)) => match &**value {
            OpaqueValue::Cidr(cidr) => Ok(*cidr),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let cidr = cidr_of(args.first())?;
    let ip = match args.get(1) {
        Some(Value::String(text)) => parse_ip(text).map_err(EvaluationError::failed)?,
        Some(other) => ip_of(std::slice::from_ref(other))?,
        None => return no_overload(),
    };
    Ok(Value::Bool(cidr.contains(ip)))
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let cidr = cidr_of(args.first())?;
    let other = match args.get(1) {
        Some(Value::String(text)) => Cidr::parse(text).map_err(EvaluationError::failed)?,
        other => cidr_of(other)?,
    };
    Ok(Value::Bool(cidr.bits <= other.bits && cidr.contains(other.ip)))
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.octets()[0] == 0xff && ip.octets()[1] & 0x0f == 0x02,
    }
}

fn is_link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !is_broadcast
        && !ip.is_unspecified()
        && !ip.is_loopback()
        && !ip.is_multicast()
        && !is_link_local_unicast(ip)
}
