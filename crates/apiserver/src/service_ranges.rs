//! Follows the objects that say which addresses services may have, and repairs those that say which
//! they have.
//!
//! `ServiceCIDR`s give the ranges; `IPAddress`es that are not of services take addresses out of
//! them. At start and every few minutes each service's addresses are compared with their objects,
//! and its node ports with those that are taken; an `IPAddress` also when it is written or deleted.

pub(crate) mod default_range;
mod node_ports;
mod repair;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use admission::View;
use authn::UserInfo;
use futures::StreamExt;
use futures::stream::BoxStream;
use meta::{Object, Status, WatchEvent};
use serde_json::Value;

use self::node_ports::NodePorts;
use self::repair::Repair;
use crate::handle::Handle;
use crate::server::Server;
use crate::service_addresses::Range;
use crate::write::addresses::{ALLOCATOR, MANAGED_BY};

const GROUP: &str = "networking.k8s.io";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs?watch=true";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses?watch=true";
/// Upstream's interval.
const EVERY: Duration = Duration::from_secs(3 * 60);
/// Pause before a watch that ended is begun again.
const PAUSE: Duration = Duration::from_secs(1);

type Events = BoxStream<'static, Result<WatchEvent, Status>>;

/// Runs until the server shuts down.
pub(crate) async fn run(handle: Handle) {
    let server = handle.server.clone();
    let user = UserInfo::new("system:apiserver", &[UserInfo::MASTERS, UserInfo::AUTHENTICATED]);
    let mut loops = Loops {
        repair: Repair::default(),
        node_ports: NodePorts::default(),
        next: server.clock.monotonic(),
    };
    while !server.shutdown.is_begun() {
        let watches = async {
            Ok::<_, Status>((
                handle.watch(&user, RANGES).await?,
                handle.watch(&user, ADDRESSES).await?,
            ))
        };
        match watches.await {
            Ok((ranges, addresses)) => loops.until_one_ends(&handle, ranges, addresses).await,
            Err(status) => tracing::warn!(%status, "service ranges cannot be watched"),
        }
        tokio::select! {
            () = server.clock.sleep(PAUSE) => {}
            () = server.shutdown.begun() => return,
        }
    }
}

struct Loops {
    repair: Repair,
    node_ports: NodePorts,
    /// When everything is compared next.
    next: Instant,
}

impl Loops {
    async fn until_one_ends(&mut self, handle: &Handle, mut ranges: Events, mut addresses: Events) {
        let server = &handle.server;
        follow(server);
        loop {
            let now = server.clock.monotonic();
            if self.next <= now {
                self.repair.all(handle).await;
                self.node_ports.check(handle).await;
                self.next = now + EVERY;
            }
            let due = self.repair.due().map_or(self.next, |due| due.min(self.next));
            let wait = due.saturating_duration_since(server.clock.monotonic());
            tokio::select! {
                event = ranges.next() => match event {
                    Some(Ok(_)) => follow(server),
                    _ => return,
                },
                event = addresses.next() => match event {
                    Some(Ok(event)) => self.address(handle, event).await,
                    _ => return,
                },
                () = server.clock.sleep(wait) => self.repair.look_again(handle).await,
                () = server.shutdown.begun() => return,
            }
        }
    }

    async fn address(&mut self, handle: &Handle, event: WatchEvent) {
        let services = &handle.server.services;
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                if is_of_services(&object) {
                    self.repair.look(handle, &object.header().name).await;
                } else if let Ok(address) = object.header().name.parse() {
                    services.occupy(address);
                }
            }
            WatchEvent::Deleted(object) => {
                if is_of_services(&object) {
                    self.repair.removed(handle, &object).await;
                } else if let Ok(address) = object.header().name.parse() {
                    services.vacate(address);
                }
            }
            WatchEvent::Bookmark { .. } => {}
        }
    }
}

/// Takes over the ranges that are ready, and the addresses that others have.
pub(crate) fn follow(server: &Server) {
    server.services.set_ranges(ranges(server, is_ready));
    for address in server.list(GROUP, "ipaddresses", "") {
        if !is_of_services(&address)
            && let Ok(address) = address.header().name.parse()
        {
            server.services.occupy(address);
        }
    }
}

/// The ranges of the objects that are asked for, those of the default one first.
fn ranges(server: &Server, which: impl Fn(&Value) -> bool) -> Vec<Range> {
    let mut objects: Vec<Value> = server
        .list(GROUP, "servicecidrs", "")
        .iter()
        .filter_map(|object| object.decode::<Value>().ok())
        .filter(which)
        .collect();
    objects.sort_by_key(|object| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        (name != default_range::NAME, name)
    });
    let texts = objects.iter().flat_map(|object| object["spec"]["cidrs"].as_array());
    texts.flatten().filter_map(|text| range(text.as_str()?)).map(Range::new).collect()
}

fn is_of_services(object: &Object) -> bool {
    let object: Value = object.decode().unwrap_or_default();
    object["metadata"]["labels"][MANAGED_BY] == ALLOCATOR
}

/// Ranges of which nobody has said anything are ready: there may be no controller.
fn is_ready(object: &Value) -> bool {
    if object["metadata"].get("deletionTimestamp").is_some() {
        return false;
    }
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .find(|condition| condition["type"] == "Ready")
        .is_none_or(|ready| ready["status"] == "True")
}

fn range(text: &str) -> Option<(IpAddr, u8)> {
    let (base, prefix) = text.split_once('/')?;
    Some((base.parse().ok()?, prefix.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_range_is_used_until_it_goes() {
        let ready = |status: &str| {
            is_ready(&json!({"status": {"conditions": [{"type": "Ready", "status": status}]}}))
        };
        assert!(is_ready(&json!({})) && ready("True") && !ready("False"));
        assert!(!is_ready(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})));
        assert_eq!(range("10.0.0.0/8"), Some(([10, 0, 0, 0].into(), 8)));
        assert_eq!(range("10.0.0.0"), None);
    }
}
