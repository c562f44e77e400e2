//! Which proxy requests go through: as the environment says, in Go's reading of it, which
//! containerd's users know (`golang.org/x/net/http/httpproxy`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};

/// The proxies for requests over TLS and without, and who is asked directly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    direct: Vec<Direct>,
}

/// One proxy, which is spoken to over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) authority: Authority,
    /// What it is shown.
    pub(crate) authorization: Option<HeaderValue>,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{variable}: {problem}")]
pub struct ProxyError {
    variable: &'static str,
    problem: String,
}

/// Something that `NO_PROXY` names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Direct {
    Everybody,
    Address(IpAddr, Option<u16>),
    Network(IpAddr, u8),
    /// A name with a dot before it, and whether it is meant without one, too.
    Domain(String, bool, Option<u16>),
}

impl Proxies {
    /// What the variables say: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in capitals or not.
    ///
    /// # Errors
    /// When one is set that is no address of a proxy, or of a sort that is not supported.
    pub fn new(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let read = |name: &str| {
            let set = |name: &str| variable(name).filter(|value| !value.is_empty());
            set(name).or_else(|| set(&name.to_lowercase())).unwrap_or_default()
        };
        let proxy = |name: &'static str| {
            Proxy::parse(&read(name)).map_err(|problem| ProxyError { variable: name, problem })
        };
        let no_proxy = read("NO_PROXY");
        let direct = no_proxy.split(',').filter_map(|word| Direct::parse(word.trim())).collect();
        Ok(Self { https: proxy("HTTPS_PROXY")?, http: proxy("HTTP_PROXY")?, direct })
    }

    /// The proxy for an address.
    pub(crate) fn of(&self, url: &Uri) -> Option<&Proxy> {
        let is_tls = url.scheme() == Some(&Scheme::HTTPS);
        let proxy = if is_tls { &self.https } else { &self.http };
        let host = url.host()?.trim_matches(['[', ']']).to_lowercase();
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let address: Option<IpAddr> = host.parse().ok();
        let is_own = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        if is_own || self.direct.iter().any(|direct| direct.has(&host, address, port)) {
            return None;
        }
        proxy.as_ref()
    }
}

impl Proxy {
    fn parse(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let bad = || "is no address of a proxy".to_owned();
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let parts = whole.parse::<Uri>().map_err(|_| bad())?.into_parts();
        if parts.scheme.as_ref() != Some(&Scheme::HTTP) {
            let scheme = parts.scheme.map(|scheme| scheme.to_string()).unwrap_or_default();
            return Err(format!("a proxy over {scheme} is not supported, only one over http"));
        }
        let authority = parts.authority.ok_or_else(bad)?;
        let (who, place) = match authority.as_str().rsplit_once('@') {
            Some((who, place)) => (Some(who), place),
            None => (None, authority.as_str()),
        };
        let with_port: Authority = place.parse().map_err(|_| bad())?;
        let with_port = match with_port.port_u16() {
            Some(_) => with_port,
            None => format!("{place}:80").parse().map_err(|_| bad())?,
        };
        let authorization = who.map(|who| {
            let (user, password) = who.split_once(':').unwrap_or((who, ""));
            let pair = [decode(user), b":".to_vec(), decode(password)].concat();
            let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
                .map_err(|_| bad())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        Ok(Some(Self { authority: with_port, authorization: authorization.transpose()? }))
    }
}

impl Direct {
    /// What one word means; none that cannot be understood, which Go leaves out, too.
    fn parse(word: &str) -> Option<Self> {
        let word = word.to_lowercase();
        if word.is_empty() {
            return None;
        }
        if word == "*" {
            return Some(Self::Everybody);
        }
        if let Some((network, bits)) = word.split_once('/')
            && let (Ok(network), Ok(bits)) = (network.parse(), bits.parse())
        {
            return Some(Self::Network(network, bits));
        }
        if let Ok(address) = word.trim_matches(['[', ']']).parse() {
            return Some(Self::Address(address, None));
        }
        let (host, port) = match word.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (word.as_str(), None),
        };
        if host.is_empty() {
            return None;
        }
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Some(Self::Address(address, port));
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        Some(match host.strip_prefix('.') {
            Some(_) => Self::Domain(host.to_owned(), false, port),
            None => Self::Domain(format!(".{host}"), true, port),
        })
    }

    fn has(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::Everybody => true,
            Self::Address(one, at) => address == Some(*one) && at.is_none_or(|at| at == port),
            Self::Network(network, bits) => address.is_some_and(|a| is_in(a, *network, *bits)),
            Self::Domain(domain, itself, at) => {
                let is_it = *itself && domain.strip_prefix('.') == Some(host);
                (is_it || host.ends_with(domain)) && at.is_none_or(|at| at == port)
            }
        }
    }
}

fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            let masked = |address: Ipv4Addr| u32::from(address) & mask;
            masked(address) == masked(network)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            let masked = |address: Ipv6Addr| u128::from(address) & mask;
            masked(address) == masked(network)
        }
        _ => false,
    }
}

/// Undoes the encoding of a part of an address.
fn decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = (first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        decoded.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        Proxies::new(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn of(proxies: &Proxies, url: &str) -> Option<String> {
        Some(proxies.of(&url.parse().unwrap())?.authority.to_string())
    }

    #[test]
    fn each_scheme_has_its_proxy_and_small_letters_will_do() {
        let both = [("HTTPS_PROXY", "http://tls:3128"), ("http_proxy", "plain")];
        let proxies = proxies(&both).unwrap();
        assert_eq!(of(&proxies, "https://a.example/v2/").unwrap(), "tls:3128");
        assert_eq!(of(&proxies, "http://a.example/v2/").unwrap(), "plain:80");
        for own in ["https://localhost:5000/", "http://127.0.0.1/", "http://[::1]:5000/"] {
            assert_eq!(of(&proxies, own), None, "{own}");
        }
    }

    #[test]
    fn some_are_asked_directly() {
        let none =
            "10.0.0.0/8, 192.0.2.1,192.0.2.2:5000,a.example,.b.example,*.c.example,d.example:1";
        let proxies = proxies(&[("HTTP_PROXY", "p:1"), ("NO_PROXY", none)]).unwrap();
        let is_direct = |host: &str| of(&proxies, &format!("http://{host}/")).is_none();
        for host in [
            "10.1.2.3",
            "192.0.2.1:99",
            "192.0.2.2:5000",
            "a.example",
            "x.A.example",
            "x.b.example",
            "x.c.example",
            "d.example:1",
        ] {
            assert!(is_direct(host), "{host}");
        }
        for host in ["11.0.0.1", "192.0.2.2", "ba.example", "b.example", "c.example", "d.example"] {
            assert!(!is_direct(host), "{host}");
        }
        let nobody = Proxies { direct: vec![Direct::Everybody], ..proxies };
        assert_eq!(of(&nobody, "http://e.example/"), None);
    }

    #[test]
    fn a_proxy_is_shown_who_asks() {
        let proxies = proxies(&[("HTTPS_PROXY", "http://me:p%40ss@proxy:8080")]).unwrap();
        let proxy = proxies.https.unwrap();
        assert_eq!(proxy.authority, "proxy:8080");
        assert_eq!(proxy.authorization.unwrap(), "Basic bWU6cEBzcw==");
    }

    #[test]
    fn proxies_of_other_sorts_are_refused() {
        for (address, problem) in [
            (
                "socks5://p:1",
                "HTTPS_PROXY: a proxy over socks5 is not supported, only one over http",
            ),
            ("http://", "HTTPS_PROXY: is no address of a proxy"),
        ] {
            let error = proxies(&[("HTTPS_PROXY", address)]).unwrap_err();
            assert_eq!(error.to_string(), problem);
        }
    }
}
