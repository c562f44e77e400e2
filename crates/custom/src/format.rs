//! Formats of strings.
//!
//! Formats that upstream does not know are not checked, as there.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::Date;

/// What upstream checks, by the name without dashes.
const KNOWN: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

fn normalized(format: &str) -> String {
    format.replace('-', "")
}

/// Whether strings are checked for a format.
pub fn is_known(format: &str) -> bool {
    KNOWN.contains(&normalized(format).as_str())
}

/// Whether a string has a format.
pub(crate) fn fits(format: &str, text: &str) -> bool {
    match normalized(format).as_str() {
        "bsonobjectid" => text.len() == 24 && is_hex(text),
        "byte" => STANDARD.decode(text.replace(['\r', '\n'], "")).is_ok(),
        "cidr" => is_cidr(text),
        "creditcard" => is_credit_card(text),
        "date" => is_date(text),
        "datetime" => is_date_time(text),
        "duration" => is_duration(text),
        "email" => is_email(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && is_hex(digits)
        }
        "hostname" => is_hostname(text),
        "ipv4" => ipv4(text).is_some(),
        "ipv6" => Ipv6Addr::from_str(text).is_ok(),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8slongname" => meta::names::dns1123_subdomain(text).is_empty(),
        "k8sshortname" => meta::names::dns1123_label(text).is_empty(),
        "mac" => is_mac(text),
        "rgbcolor" => is_rgb_color(text),
        "ssn" => is_social_security_number(text),
        "uri" => is_uri(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        _ => true,
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Upstream still takes zeros before the numbers.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| is_digits(part))?;
        *octet = part
            .trim_start_matches('0')
            .parse()
            .or_else(|error| if part.bytes().all(|byte| byte == b'0') { Ok(0) } else { Err(error) })
            .ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match (ipv4(address), Ipv6Addr::from_str(address)) {
        (Some(_), _) => 32,
        (None, Ok(_)) => 128,
        _ => return false,
    };
    is_digits(bits) && bits.parse::<u32>().is_ok_and(|bits| bits <= most)
}

fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|letter| letter.to_digit(10)).collect();
    let plain = text.chars().all(|letter| letter.is_ascii_digit() || matches!(letter, ' ' | '-'));
    if !plain || !(13..=19).contains(&digits.len()) {
        return false;
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => *digit,
            _ if *digit > 4 => digit * 2 - 9,
            _ => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && Date::from_str(text).is_ok()
}

fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else { return false };
    let is_zone = |zone: &str| {
        matches!(zone, "Z" | "z")
            || (zone.starts_with(['+', '-'])
                && zone[1..].split_once(':').is_some_and(|(hours, minutes)| {
                    hours.len() == 2 && minutes.len() == 2 && is_digits(hours) && is_digits(minutes)
                }))
    };
    let (Some(clock), Some(rest)) = (time.get(..8), time.get(8..)) else { return false };
    let parts: Vec<&str> = clock.split(':').collect();
    let [hours, minutes, seconds] = parts[..] else { return false };
    let below = |text: &str, limit: u32| {
        text.len() == 2 && is_digits(text) && text.parse::<u32>().is_ok_and(|n| n < limit)
    };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                return false;
            }
            &fraction[digits..]
        }
        None => rest,
    };
    is_date(date) && below(hours, 24) && below(minutes, 60) && below(seconds, 60) && is_zone(zone)
}

/// Go's durations, and those with words, such as `2 days`.
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 27] = [
        "ns",
        "nano",
        "nanos",
        "nanosecond",
        "us",
        "µs",
        "μs",
        "micro",
        "micros",
        "microsecond",
        "ms",
        "milli",
        "millis",
        "millisecond",
        "s",
        "sec",
        "second",
        "m",
        "min",
        "minute",
        "h",
        "hr",
        "hour",
        "d",
        "day",
        "w",
        "week",
    ];
    let mut rest = text.trim().trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        if digits == 0 {
            return false;
        }
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == ' ').unwrap_or(rest.len());
        let unit = &rest[..letters];
        if !UNITS.contains(&unit) && !unit.strip_suffix('s').is_some_and(|one| UNITS.contains(&one))
        {
            return false;
        }
        rest = rest[letters..].trim_start();
    }
    true
}

fn is_email(text: &str) -> bool {
    let address = match (text.rfind('<'), text.ends_with('>')) {
        (Some(start), true) => &text[start + 1..text.len() - 1],
        _ => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let is_plain = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && !text.ends_with('.')
            && !text.contains("..")
            && !text.contains(|c: char| {
                c.is_whitespace() || c.is_control() || "()<>[]:;@\\,\"".contains(c)
            })
    };
    let is_quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
    (is_quoted || is_plain(local)) && is_plain(domain)
}

fn is_hostname(text: &str) -> bool {
    text.len() <= 255
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        })
}

fn is_isbn10(text: &str) -> bool {
    let digits: Vec<char> = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    if digits.len() != 10 {
        return false;
    }
    let mut sum = 0;
    for (at, digit) in digits.iter().enumerate() {
        let value = match digit {
            'X' | 'x' if at == 9 => 10,
            digit => match digit.to_digit(10) {
                Some(value) => value as usize,
                None => return false,
            },
        };
        sum += (10 - at) * value;
    }
    sum.is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let digits: Vec<char> = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let values: Option<Vec<u32>> = digits.iter().map(|digit| digit.to_digit(10)).collect();
    let Some(values) = values.filter(|values| values.len() == 13) else { return false };
    let weighted = values.iter().enumerate().map(|(at, v)| if at % 2 == 0 { *v } else { v * 3 });
    weighted.sum::<u32>().is_multiple_of(10)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, size: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        let bytes = parts.len() * size / 2;
        matches!(bytes, 6 | 8 | 20) && parts.iter().all(|part| part.len() == size && is_hex(part))
    };
    groups(':', 2) || groups('-', 2) || groups('.', 4)
}

fn is_rgb_color(text: &str) -> bool {
    let inside = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    let Some(inside) = inside else { return false };
    let parts: Vec<&str> = inside.split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|part| is_digits(part) && part.parse::<u8>().is_ok())
}

fn is_social_security_number(text: &str) -> bool {
    let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    if digits.len() != 9 || !is_digits(&digits) {
        return false;
    }
    text.len() == 9
        || (text.len() == 11
            && matches!(text.as_bytes()[3], b' ' | b'-')
            && matches!(text.as_bytes()[6], b' ' | b'-'))
}

/// What a request may be for: a path from the root, or something with a scheme.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.contains(|c: char| c.is_control()) {
        return false;
    }
    let mut percents = text.split('%').skip(1);
    let is_escaped = percents.all(|rest| rest.get(..2).is_some_and(is_hex));
    if text.starts_with('/') {
        return is_escaped;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let authority = rest.strip_prefix("//").map(|rest| rest.split('/').next().unwrap_or(rest));
    is_scheme && is_escaped && !authority.is_some_and(|host| host.contains(' '))
}

/// The dashes may be left out.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let dashes: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    let is_shaped =
        digits.len() == 32 && is_hex(&digits) && (dashes.is_empty() || dashes == [8, 13, 18, 23]);
    let letter = |at: usize| digits.chars().nth(at).map(|c| c.to_ascii_lowercase());
    is_shaped
        && match version {
            None => true,
            Some('3') => letter(12) == Some('3'),
            Some(version) => {
                letter(12) == Some(version) && matches!(letter(16), Some('8' | '9' | 'a' | 'b'))
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_have_the_formats_upstream_says_they_have() {
        for (format, good, bad) in [
            ("date-time", "2024-01-01T00:00:00Z", "yesterday"),
            ("date-time", "2024-01-01T00:00:00.5+01:00", "2024-01-01T25:00:00Z"),
            ("date", "2024-02-29", "2023-02-29"),
            ("ipv4", "1.2.3.4", "1.2.3"),
            ("ipv6", "::1", "1.2.3.4"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("byte", "YWJj", "!!"),
            ("duration", "1h30m", "1x"),
            ("duration", "2 days", "days"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
            (
                "uuid4",
                "123e4567-e89b-42d3-a456-426614174000",
                "123e4567-e89b-12d3-a456-426614174000",
            ),
            ("mac", "01:23:45:67:89:ab", "01:23"),
            ("uri", "https://a.b/c", "a b"),
            ("email", "a@b.c", "a.b"),
            ("hostname", "a-b.c", "-a"),
            ("creditcard", "4111111111111111", "4111111111111112"),
            ("isbn10", "0-306-40615-2", "0-306-40615-3"),
            ("isbn13", "978-0-306-40615-7", "978-0-306-40615-8"),
            ("hexcolor", "#aabbcc", "#ggg"),
            ("rgbcolor", "rgb(1,2,3)", "rgb(1,2,300)"),
            ("ssn", "111-11-1111", "11-111-1111"),
            ("k8s-short-name", "abc", "a.b"),
        ] {
            assert!(fits(format, good), "{format} {good}");
            assert!(!fits(format, bad), "{format} {bad}");
        }
    }

    #[test]
    fn other_formats_are_not_checked() {
        assert!(!is_known("int32") && !is_known("anything") && is_known("date-time"));
        assert!(fits("password", "x"));
    }
}
