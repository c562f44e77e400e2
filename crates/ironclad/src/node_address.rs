//! Which address of this host others reach it at.

use std::net::{IpAddr, Ipv4Addr};

use netlink::Connection;

/// The address of the device that the default route leads through; without one, the first address
/// that is not loopback's; without any, loopback.
///
/// # Errors
/// When the kernel does not answer.
pub(crate) fn choose() -> anyhow::Result<Ipv4Addr> {
    let mut connection = Connection::open()?;
    let default = connection.default_route()?;
    if let Some(IpAddr::V4(preferred)) = default.and_then(|route| route.preferred_source) {
        return Ok(preferred);
    }
    let loopback: Vec<u32> = connection
        .links()?
        .iter()
        .filter(|link| link.is_loopback || !link.is_up)
        .map(|link| link.index)
        .collect();
    let addresses: Vec<(u32, Ipv4Addr)> = connection
        .addresses()?
        .into_iter()
        .filter_map(|(index, address, _)| match address {
            IpAddr::V4(address) if !loopback.contains(&index) => Some((index, address)),
            _ => None,
        })
        .collect();
    let on_default_device = |index: u32| default.is_some_and(|route| route.index == index);
    let best = addresses.iter().find(|(index, _)| on_default_device(*index)).or(addresses.first());
    Ok(best.map_or(Ipv4Addr::LOCALHOST, |(_, address)| *address))
}

/// The host's name, in the lower case that node names need.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    if name.is_empty() || name == "(none)" { "localhost".to_owned() } else { name }
}
