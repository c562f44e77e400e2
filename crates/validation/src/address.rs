//! Addresses and ranges of addresses.
//!
//! Upstream: `apimachinery/pkg/util/validation/ip.go`. Where objects of old clusters may hold odd
//! spellings, upstream only refuses what parsers read differently; elsewhere the text must be the
//! canonical one.

use std::net::{IpAddr, Ipv4Addr};

use crate::node::{Findings, Node};

const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// What is wrong with a text as an address.
fn address_findings(text: &str) -> Vec<&'static str> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address"]
        }
        Ok(_) => Vec::new(),
        Err(_) if without_zeros(text).is_some() => vec!["must not have leading 0s"],
        Err(_) => vec![NO_ADDRESS],
    }
}

/// The IPv4 address that a text would be without zeros in front of its numbers.
fn without_zeros(text: &str) -> Option<Ipv4Addr> {
    let trimmed: Vec<&str> = text
        .split('.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0",
            rest => rest,
        })
        .collect();
    trimmed.join(".").parse().ok()
}

fn parse(text: &str) -> Option<(IpAddr, u8)> {
    let (address, len) = text.split_once('/')?;
    let address: IpAddr = match address.parse() {
        Ok(address) => address,
        Err(_) => without_zeros(address)?.into(),
    };
    let max = if address.is_ipv4() { 32 } else { 128 };
    let is_number = !len.is_empty() && len.bytes().all(|byte| byte.is_ascii_digit());
    let len = len.parse().ok().filter(|len| is_number && *len <= max)?;
    Some((address, len))
}

/// What is wrong with a text as a range.
fn range_findings(text: &str) -> Vec<&'static str> {
    let Some((address, len)) = parse(text) else { return vec![NO_RANGE] };
    let mut findings = Vec::new();
    let (shown, shown_len) = text.split_once('/').unwrap_or_default();
    let has_zeros =
        shown.parse::<IpAddr>().is_err() || (shown_len.len() > 1 && shown_len.starts_with('0'));
    if has_zeros {
        findings.push("must not have leading 0s in IP or prefix length");
    }
    if matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        findings.push("must not have an IPv4-mapped IPv6 address");
    }
    if network(address, len) != address {
        findings.push("must not have bits set beyond the prefix length");
    }
    findings
}

/// The first address of the range that an address is in.
fn network(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            Ipv4Addr::from(u32::from(address) & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            std::net::Ipv6Addr::from(u128::from(address) & mask).into()
        }
    }
}

/// An IPv4 or IPv6 address, without what confuses parsers.
pub(crate) fn ip(ip: &Node<'_>, out: &mut Findings) {
    let findings = address_findings(ip.text());
    out.extend(findings.into_iter().map(|text| ip.invalid_text(text)));
}

/// What is wrong with a text as an address in its canonical spelling.
pub(crate) fn canonical_ip(text: &str) -> Vec<String> {
    let findings = address_findings(text);
    if !findings.is_empty() {
        return findings.into_iter().map(str::to_owned).collect();
    }
    let canonical = text.parse::<IpAddr>().map(|address| address.to_string()).unwrap_or_default();
    if canonical == text {
        return Vec::new();
    }
    vec![format!("must be in canonical form ({canonical:?})")]
}

/// A range of addresses, without what confuses parsers.
pub(crate) fn cidr(range: &Node<'_>, out: &mut Findings) {
    let findings = range_findings(range.text());
    out.extend(findings.into_iter().map(|text| range.invalid_text(text)));
}

/// A range in its canonical spelling.
pub(crate) fn canonical_cidr(range: &Node<'_>, out: &mut Findings) {
    let before = out.len();
    cidr(range, out);
    if out.len() > before {
        return;
    }
    if let Some((address, len)) = parse(range.text()) {
        let canonical = format!("{address}/{len}");
        if canonical != range.text() {
            out.push(range.invalid_text(format!("must be in canonical form ({canonical:?})")));
        }
    }
}

/// Whether a text is a range of IPv4 addresses; `None` when it is no range.
pub(crate) fn is_ipv4_range(text: &str) -> Option<bool> {
    parse(text).map(|(address, _)| address.is_ipv4())
}

/// Whether one range lies in another and is not all of it; `None` when one of them is no range.
pub(crate) fn is_strictly_within(inner: &str, outer: &str) -> Option<bool> {
    let ((inner, inner_len), (outer, outer_len)) = (parse(inner)?, parse(outer)?);
    let same = inner.is_ipv4() == outer.is_ipv4();
    Some(same && inner_len > outer_len && network(inner, outer_len) == network(outer, outer_len))
}

/// An address that endpoints may have.
pub(crate) fn endpoint_ip(ip: &Node<'_>, out: &mut Findings) {
    let Ok(address) = ip.text().parse::<IpAddr>() else { return };
    if address.is_unspecified() {
        out.push(ip.invalid(format!("may not be unspecified ({address})")));
    }
    if address.is_loopback() {
        out.push(ip.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    let (local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] == 0xff02),
    };
    if local {
        out.push(ip.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)"));
    }
    if multicast {
        let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        out.push(ip.invalid(detail));
    }
}

/// At most one of each family; what cannot be read is refused elsewhere.
pub(crate) fn one_of_each_family(families: impl Iterator<Item = Option<bool>>) -> bool {
    let families: Vec<bool> = families.flatten().collect();
    families.iter().filter(|is_ipv4| **is_ipv4).count() <= 1
        && families.iter().filter(|is_ipv4| !**is_ipv4).count() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_as_strictly_as_upstream_does() {
        for (text, wrong) in [
            ("10.0.0.1", None),
            ("fd00::1", None),
            ("010.0.0.1", Some("must not have leading 0s")),
            ("::ffff:1.2.3.4", Some("must not be an IPv4-mapped IPv6 address")),
            ("10.0.0", Some(NO_ADDRESS)),
            ("", Some(NO_ADDRESS)),
        ] {
            assert_eq!(address_findings(text).first().copied(), wrong, "{text}");
        }
        assert_eq!(canonical_ip("fd00:0::1"), ["must be in canonical form (\"fd00::1\")"]);
    }

    #[test]
    fn ranges_begin_where_their_prefix_says() {
        for (text, wrong) in [
            ("10.0.0.0/8", None),
            ("10.0.0.1/8", Some("must not have bits set beyond the prefix length")),
            ("010.0.0.0/8", Some("must not have leading 0s in IP or prefix length")),
            ("10.0.0.0/08", Some("must not have leading 0s in IP or prefix length")),
            ("::ffff:1.2.3.4/128", Some("must not have an IPv4-mapped IPv6 address")),
            ("10.0.0.0/33", Some(NO_RANGE)),
            ("10.0.0.0", Some(NO_RANGE)),
        ] {
            assert_eq!(range_findings(text).first().copied(), wrong, "{text}");
        }
    }

    #[test]
    fn a_smaller_range_may_lie_within_another() {
        assert_eq!(is_strictly_within("10.1.0.0/16", "10.0.0.0/8"), Some(true));
        assert_eq!(is_strictly_within("10.0.0.0/8", "10.0.0.0/8"), Some(false));
        assert_eq!(is_strictly_within("11.0.0.0/16", "10.0.0.0/8"), Some(false));
        assert_eq!(is_strictly_within("fd00::/64", "10.0.0.0/8"), Some(false));
        assert_eq!(is_strictly_within("x", "10.0.0.0/8"), None);
    }
}
