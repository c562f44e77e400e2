//! Functions, by library.

mod addresses;
mod authorization;
mod formats;
mod json_patch;
mod lists;
mod optionals;
mod quantities;
pub(crate) mod regex;
mod semver;
mod sets;
mod standard;
mod string_format;
pub(crate) mod strings;
pub(crate) mod time;
mod urls;

use std::net::IpAddr;

use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::value::Value;

/// Every library; those of policies that mutate are hidden from others by the environment.
pub(crate) static LIBRARIES: [&Library; 15] = [
    &standard::LIBRARY,
    &time::LIBRARY,
    &strings::LIBRARY,
    &string_format::LIBRARY,
    &regex::LIBRARY,
    &lists::LIBRARY,
    &sets::LIBRARY,
    &optionals::LIBRARY,
    &urls::LIBRARY,
    &addresses::LIBRARY,
    &quantities::LIBRARY,
    &semver::LIBRARY,
    &formats::LIBRARY,
    &authorization::LIBRARY,
    &json_patch::LIBRARY,
];

/// Types of libraries: their names in declarations and in mistakes.
pub(crate) const OPAQUES: [(&str, &str); 11] = [
    ("url", "kubernetes.URL"),
    ("ip", "net.IP"),
    ("cidr", "net.CIDR"),
    ("quantity", "kubernetes.Quantity"),
    ("semver", "kubernetes.Semver"),
    ("format", "kubernetes.NamedFormat"),
    ("authorizer", "kubernetes.authorization.Authorizer"),
    ("path_check", "kubernetes.authorization.PathCheck"),
    ("group_check", "kubernetes.authorization.GroupCheck"),
    ("resource_check", "kubernetes.authorization.ResourceCheck"),
    ("decision", "kubernetes.authorization.Decision"),
];

/// The name of a type as mistakes have it.
pub(crate) fn opaque(name: &str) -> Option<&'static str> {
    OPAQUES.iter().find(|(short, _)| *short == name).map(|(_, long)| *long)
}

/// A value of a library.
#[derive(Debug)]
pub enum OpaqueValue {
    /// A URL.
    Url(urls::Url),
    /// An IP address.
    Ip(IpAddr),
    /// A network.
    Cidr(addresses::Cidr),
    /// A quantity.
    Quantity(meta::Quantity),
    /// A semantic version.
    Semver(semver::Semver),
    /// A named format.
    Format(&'static formats::Format),
}

impl OpaqueValue {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
        }
    }

    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a.compare(b).is_eq(),
            (Self::Format(a), Self::Format(b)) => a.name == b.name,
            _ => false,
        }
    }

    /// Bytes of an address.
    pub(crate) fn size(&self) -> Option<u64> {
        let bits = |ip: &IpAddr| if ip.is_ipv4() { 4 } else { 16 };
        match self {
            Self::Ip(ip) => Some(bits(ip)),
            Self::Cidr(cidr) => Some(bits(&cidr.ip)),
            _ => None,
        }
    }
}

/// A function for other types of arguments than it was given.
pub(crate) fn no_overload<T>() -> Outcome<T> {
    Err(EvaluationError::NoSuchOverload)
}

/// The text of the first and only argument.
pub(crate) fn only_text<'v>(args: &'v [Value<'_>]) -> Outcome<&'v str> {
    match args {
        [Value::String(text)] => Ok(text),
        _ => no_overload(),
    }
}
