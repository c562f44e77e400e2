//! Compares the addresses of services with their `IPAddress` objects, and mends these.
//!
//! Upstream: `registry/core/service/ipallocator/controller/repairip.go`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use admission::View;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use meta::{Object, Reason};
use serde_json::Value;

use super::{GROUP, ranges};
use crate::bootstrap::send;
use crate::events::{EventRecorder, Finding, Regarding};
use crate::handle::Handle;
use crate::service_addresses::Range;
use crate::write;
use crate::write::addresses::{ALLOCATOR, FAMILY, MANAGED_BY, cluster_ips, ip_address};

const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const CONTROLLER: &str = "ipallocator-repair-controller";
/// A service may be on its way while its address is there: upstream's time for a request.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// A write that fails may leave an address for a moment that is younger than the service: upstream's
/// time.
const SETTLING: SignedDuration = SignedDuration::from_secs(5);
/// Addresses that are looked at again when their time has come. The next pass looks at all others.
const WAITING: usize = 1000;

/// What is known from one pass to the next.
pub(super) struct Repair {
    recorder: EventRecorder,
    /// Addresses that are looked at again, and when.
    later: BTreeMap<String, Instant>,
}

impl Default for Repair {
    fn default() -> Self {
        Self { recorder: EventRecorder::new(CONTROLLER), later: BTreeMap::new() }
    }
}

impl Repair {
    /// Compares everything with everything.
    pub(super) async fn all(&mut self, handle: &Handle) {
        let ranges = ranges(&handle.server, |_| true);
        for service in handle.server.list("", "services", "") {
            if let Ok(service) = service.decode::<Value>() {
                self.check_service(handle, &ranges, &service).await;
            }
        }
        for address in handle.server.list(GROUP, "ipaddresses", "") {
            if let Ok(address) = address.decode::<Value>() {
                self.check_address(handle, &address).await;
            }
        }
    }

    /// Makes an object again that somebody has deleted while its service is there.
    pub(super) async fn removed(&mut self, handle: &Handle, address: &Object) {
        self.later.remove(&address.header().name);
        let address: Value = address.decode().unwrap_or_default();
        if let Some(service) = parent(handle, &address) {
            let ranges = ranges(&handle.server, |_| true);
            self.check_service(handle, &ranges, &service).await;
        }
    }

    /// Looks at an address.
    pub(super) async fn look(&mut self, handle: &Handle, name: &str) {
        self.later.remove(name);
        let found = handle.server.find(GROUP, "ipaddresses", "", name);
        if let Some(address) = found.and_then(|found| found.decode::<Value>().ok()) {
            self.check_address(handle, &address).await;
        }
    }

    /// When an address is to be looked at again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.later.values().min().copied()
    }

    /// Looks at those whose time has come.
    pub(super) async fn look_again(&mut self, handle: &Handle) {
        let now = handle.server.clock.monotonic();
        let due = self.later.iter().filter(|(_, at)| **at <= now);
        for name in due.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.look(handle, &name).await;
        }
    }

    async fn check_service(&mut self, handle: &Handle, ranges: &[Range], service: &Value) {
        for text in cluster_ips(Some(service)) {
            self.check_cluster_ip(handle, ranges, service, &text).await;
        }
    }

    async fn check_cluster_ip(
        &mut self,
        handle: &Handle,
        ranges: &[Range],
        service: &Value,
        text: &str,
    ) {
        let Some(ip) = parse(text) else {
            // It is printed as upstream prints an address that it has not got.
            let note = "Cluster IP <nil> is not a valid IP; please recreate Service".to_owned();
            let action = "ClusterIPValidation";
            return self.warn(handle, service, "ClusterIPNotValid", action, note).await;
        };
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        if !ranges.iter().any(|range| range.has(ip)) {
            let note = format!(
                "Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please \
                 recreate service"
            );
            return self.warn(handle, service, "ClusterIPOutOfRange", ACTION, note).await;
        }
        let name = ip.to_string();
        let found = handle.server.find(GROUP, "ipaddresses", "", &name);
        let Some(found) = found.and_then(|found| found.decode::<Value>().ok()) else {
            let note = format!("Cluster IP [{family}]: {ip} is not allocated; repairing");
            self.warn(handle, service, "ClusterIPNotAllocated", ACTION, note).await;
            return create(handle, &name, service).await;
        };
        let reference = &found["spec"]["parentRef"];
        let same = |field: &str| reference[field] == service["metadata"][field];
        let is_own = is_of_a_service(reference) && same("namespace") && same("name");
        if !is_own {
            let other = if is_of_a_service(reference) { parent(handle, &found) } else { None };
            let Some(other) = other else {
                let metadata = &service["metadata"];
                let part = |field: &str| metadata[field].as_str().unwrap_or_default();
                let note = format!(
                    "the ClusterIP [{family}]: {ip} for Service {}/{} has a wrong reference; \
                     repairing",
                    part("namespace"),
                    part("name")
                );
                self.warn(handle, service, "ClusterIPNotAllocated", ACTION, note).await;
                return recreate(handle, &name, service).await;
            };
            // Otherwise the object is about to go: it says of another service what is not so.
            if cluster_ips(Some(&other)).contains(&name) {
                let note = format!(
                    "Cluster IP [{family}]:{ip} was assigned to multiple services; please \
                     recreate service"
                );
                self.warn(handle, service, "ClusterIPAlreadyAllocated", ACTION, note).await;
            }
        }
        let labels = &found["metadata"]["labels"];
        if labels[MANAGED_BY] != ALLOCATOR || labels[FAMILY] != family {
            recreate(handle, &name, service).await;
        }
        // Of two services with one address, the other one has given it back.
        if !handle.server.services.is_taken(ip)
            && let Some(stored) = write::read_stored(&handle.server, "", "services", service).await
            && cluster_ips(Some(&stored)).iter().any(|other| other == text)
        {
            handle.server.services.occupy(ip);
        }
    }

    /// An address that the allocator has made for a service which does not have it is let go.
    async fn check_address(&mut self, handle: &Handle, address: &Value) {
        if address["metadata"]["labels"][MANAGED_BY] != ALLOCATOR {
            return;
        }
        let name = address["metadata"]["name"].as_str().unwrap_or_default();
        let reference = &address["spec"]["parentRef"];
        let service = parent(handle, address);
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        if is_of_a_service(reference)
            && let Some(wait) = wait(handle, address, service.as_ref())
        {
            if wait.is_positive() && self.later.len() < WAITING {
                let wait = Duration::try_from(wait).unwrap_or_default();
                self.later.insert(name.to_owned(), handle.server.clock.monotonic() + wait);
            }
            return;
        }
        let of = format!("{}/{}", text("namespace"), text("name"));
        let (reason, note) = match (is_of_a_service(reference), service) {
            (false, _) => (
                "IPAddressNotAllocated",
                format!(
                    "IPAddress {name} appears to have been modified, not referencing a Service \
                     &ParentReference{{Group:{},Resource:{},Namespace:{},Name:{},}}: cleaning up",
                    text("group"),
                    text("resource"),
                    text("namespace"),
                    text("name")
                ),
            ),
            (true, None) => (
                "IPAddressNotAllocated",
                format!("IPAddress: {name} for Service {of} appears to have leaked: cleaning up"),
            ),
            (true, Some(_)) => (
                "IPAddressWrongReference",
                format!("IPAddress: {name} for Service {of} has a wrong reference; cleaning up"),
            ),
        };
        let about =
            Regarding { api_version: "networking.k8s.io/v1", kind: "IPAddress", object: address };
        let found = Finding { reason: reason.to_owned(), action: "IPAddressAllocation", note };
        self.recorder.warn(handle, &about, found).await;
        delete(handle, name).await;
        if let Ok(ip) = name.parse()
            && !is_had(handle, name)
        {
            handle.server.services.vacate(ip);
        }
    }

    async fn warn(
        &mut self,
        handle: &Handle,
        service: &Value,
        reason: &str,
        action: &'static str,
        note: String,
    ) {
        let about = Regarding { api_version: "v1", kind: "Service", object: service };
        let found = Finding { reason: reason.to_owned(), action, note };
        self.recorder.warn(handle, &about, found).await;
    }
}

const ACTION: &str = "ClusterIPAllocation";

/// An address of a service; old ones may have zeros in front.
fn parse(text: &str) -> Option<IpAddr> {
    let octet = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => Some(0),
        digits => {
            digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
        }
    };
    text.parse().ok().or_else(|| {
        let octets: Option<Vec<u8>> = text.split('.').map(octet).collect();
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets?).ok()?).into())
    })
}

fn is_of_a_service(reference: &Value) -> bool {
    reference["resource"] == "services"
        && reference["group"].as_str().unwrap_or_default().is_empty()
}

/// The service that an address says it belongs to.
fn parent(handle: &Handle, address: &Value) -> Option<Value> {
    let reference = &address["spec"]["parentRef"];
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let found = handle.server.find("", "services", text("namespace"), text("name"))?;
    found.decode().ok()
}

/// How long an address of a service stays in any case; nothing for one whose service has it, `None`
/// for one that is to go.
fn wait(handle: &Handle, address: &Value, service: Option<&Value>) -> Option<SignedDuration> {
    let made = |object: &Value| {
        let time = object["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
        time.parse::<Timestamp>().unwrap_or_default()
    };
    let age = handle.server.clock.now().duration_since(made(address));
    let until = |end: SignedDuration| Some(end - age).filter(|left| left.is_positive());
    let Some(service) = service else { return until(GRACE) };
    let name = address["metadata"]["name"].as_str().unwrap_or_default();
    if cluster_ips(Some(service)).iter().any(|ip| ip == name) {
        return Some(SignedDuration::ZERO);
    }
    // It is given its addresses when it becomes one of another type.
    if service["spec"]["type"] == "ExternalName"
        && let Some(left) = until(GRACE)
    {
        return Some(left);
    }
    if made(address) > made(service) { until(SETTLING) } else { None }
}

/// Whether any service has an address.
fn is_had(handle: &Handle, ip: &str) -> bool {
    handle.server.list("", "services", "").iter().any(|service| {
        let service = service.decode::<Value>().ok();
        cluster_ips(service.as_ref()).iter().any(|other| other == ip)
    })
}

async fn create(handle: &Handle, name: &str, service: &Value) {
    match send(handle, Method::POST, ADDRESSES, &ip_address(name, service)).await {
        Err(status) if !status.is(Reason::AlreadyExists) => {
            tracing::warn!(%status, address = name, "an IPAddress is missing");
        }
        _ => {}
    }
}

async fn recreate(handle: &Handle, name: &str, service: &Value) {
    delete(handle, name).await;
    create(handle, name, service).await;
}

async fn delete(handle: &Handle, name: &str) {
    let path = format!("{ADDRESSES}/{}", crate::query::escape(name));
    match send(handle, Method::DELETE, &path, &Value::Null).await {
        Err(status) if !status.is(Reason::NotFound) => {
            tracing::warn!(%status, address = name, "an IPAddress is left");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_zeros_in_front_are_read() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse(text).map(|ip| ip.to_string()).as_deref(), expected, "{text}");
        };
        check("10.96.0.1", Some("10.96.0.1"));
        check("010.096.000.001", Some("10.96.0.1"));
        check("fd00::0:1", Some("fd00::1"));
        for bad in ["", "10.96.0", "10.96.0.1.2", "10.96.0.256", "10.96..1", "a.b.c.d", "+1.0.0.0"]
        {
            check(bad, None);
        }
    }
}
