//! Follows the objects that say which addresses services may have, and repairs those that say which
//! they have.
//!
//! `ServiceCIDR`s give further ranges; `IPAddress`es that are not of services take addresses out of
//! them. At start and every few minutes, and whenever an `IPAddress` is deleted, each service's
//! addresses are compared with their objects.

mod repair;

use std::net::IpAddr;
use std::time::Duration;

use admission::View;
use authn::UserInfo;
use futures::StreamExt;
use futures::stream::BoxStream;
use meta::{Object, Status, WatchEvent};
use serde_json::Value;

use crate::handle::Handle;
use crate::server::Server;
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
    while !server.shutdown.is_begun() {
        let watches = async {
            Ok::<_, Status>((
                handle.watch(&user, RANGES).await?,
                handle.watch(&user, ADDRESSES).await?,
            ))
        };
        match watches.await {
            Ok((ranges, addresses)) => until_one_ends(&handle, ranges, addresses).await,
            Err(status) => tracing::warn!(%status, "service ranges cannot be watched"),
        }
        tokio::select! {
            () = server.clock.sleep(PAUSE) => {}
            () = server.shutdown.begun() => return,
        }
    }
}

async fn until_one_ends(handle: &Handle, mut ranges: Events, mut addresses: Events) {
    let server = &handle.server;
    follow(server);
    repair::all(handle).await;
    loop {
        tokio::select! {
            event = ranges.next() => match event {
                Some(Ok(_)) => follow(server),
                _ => return,
            },
            event = addresses.next() => match event {
                Some(Ok(WatchEvent::Deleted(object))) => {
                    if is_of_services(&object) {
                        repair::removed(handle, &object).await;
                    } else if let Ok(address) = object.header().name.parse() {
                        server.services.vacate(address);
                    }
                }
                Some(Ok(event)) => occupy(server, &event),
                _ => return,
            },
            () = server.clock.sleep(EVERY) => repair::all(handle).await,
            () = server.shutdown.begun() => return,
        }
    }
}

/// Takes over the ranges that are ready, and the addresses that others have.
pub(crate) fn follow(server: &Server) {
    let mut objects: Vec<Value> = server
        .list(GROUP, "servicecidrs", "")
        .iter()
        .filter_map(|object| object.decode::<Value>().ok())
        .filter(is_ready)
        .collect();
    objects.sort_by(|a, b| a["metadata"]["name"].as_str().cmp(&b["metadata"]["name"].as_str()));
    let texts = objects.iter().flat_map(|object| object["spec"]["cidrs"].as_array());
    server.services.set_more(texts.flatten().filter_map(|text| range(text.as_str()?)));
    for address in server.list(GROUP, "ipaddresses", "") {
        if !is_of_services(&address)
            && let Ok(address) = address.header().name.parse()
        {
            server.services.occupy(address);
        }
    }
}

fn occupy(server: &Server, event: &WatchEvent) {
    if let WatchEvent::Added(object) = event
        && !is_of_services(object)
        && let Ok(address) = object.header().name.parse()
    {
        server.services.occupy(address);
    }
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
