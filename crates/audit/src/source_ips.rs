//! Where a request came from, as far as it can be told.
//!
//! Upstream: `apimachinery/pkg/util/net`.

use std::net::IpAddr;

use http::HeaderMap;

/// Addresses named by proxies; more would be made up.
const FORWARDED: usize = 64;

/// The addresses in `X-Forwarded-For`, that in `X-Real-Ip` unless it is among them, and the peer
/// unless it is the last of them. All but the last are what the client says.
pub fn source_ips(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<IpAddr> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let forwarded = text("x-forwarded-for").unwrap_or_default();
    let mut all: Vec<IpAddr> =
        forwarded.split(',').filter_map(|part| part.trim().parse().ok()).take(FORWARDED).collect();
    if let Some(real) = text("x-real-ip").and_then(|real| real.parse().ok())
        && !all.contains(&real)
    {
        all.push(real);
    }
    if let Some(peer) = peer
        && all.last() != Some(&peer)
    {
        all.push(peer);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], peer: &str, expected: &[&str]) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let found = source_ips(&map, peer.parse().ok());
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn proxies_come_before_the_peer() {
        check(&[], "10.0.0.1", &["10.0.0.1"]);
        check(
            &[("x-forwarded-for", "1.1.1.1, 2.2.2.2")],
            "10.0.0.1",
            &["1.1.1.1", "2.2.2.2", "10.0.0.1"],
        );
        check(&[("x-forwarded-for", "1.1.1.1, nonsense")], "1.1.1.1", &["1.1.1.1"]);
        check(&[("x-real-ip", "3.3.3.3")], "10.0.0.1", &["3.3.3.3", "10.0.0.1"]);
        check(
            &[("x-forwarded-for", "1.1.1.1,3.3.3.3"), ("x-real-ip", "1.1.1.1")],
            "3.3.3.3",
            &["1.1.1.1", "3.3.3.3"],
        );
        check(&[], "", &[]);
    }
}
