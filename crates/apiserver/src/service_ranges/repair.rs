//! Compares the addresses of services with their `IPAddress` objects, and mends these.
//!
//! Upstream: `registry/core/service/ipallocator/controller/repairip.go`.

use std::net::IpAddr;

use admission::View;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use meta::{Object, Reason};
use serde_json::{Value, json};

use super::GROUP;
use crate::bootstrap::send;
use crate::handle::Handle;
use crate::write::addresses::{ALLOCATOR, FAMILY, MANAGED_BY, cluster_ips, ip_address};

const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const CONTROLLER: &str = "ipallocator-repair-controller";
/// A service may be on its way while its address is there: upstream's time for a request.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Compares everything with everything.
pub(super) async fn all(handle: &Handle) {
    for service in handle.server.list("", "services", "") {
        if let Ok(service) = service.decode::<Value>() {
            check_service(handle, &service).await;
        }
    }
    for address in handle.server.list(GROUP, "ipaddresses", "") {
        if let Ok(address) = address.decode::<Value>()
            && address["metadata"]["labels"][MANAGED_BY] == ALLOCATOR
        {
            check_address(handle, &address).await;
        }
    }
}

/// Makes an object again that somebody has deleted while its service is there.
pub(super) async fn removed(handle: &Handle, address: &Object) {
    let address: Value = address.decode().unwrap_or_default();
    if let Some(service) = parent(handle, &address) {
        check_service(handle, &service).await;
    }
}

async fn check_service(handle: &Handle, service: &Value) {
    for text in cluster_ips(Some(service)) {
        let tell = |reason: &'static str, action: &'static str, note: String| {
            event(handle, "Service", "v1", service, reason, action, note)
        };
        let Ok(ip) = text.parse::<IpAddr>() else {
            let note = format!("Cluster IP {text} is not a valid IP; please recreate Service");
            tell("ClusterIPNotValid", "ClusterIPValidation", note).await;
            continue;
        };
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        if !handle.server.services.covers(ip) {
            let note = format!(
                "Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please \
                 recreate service"
            );
            tell("ClusterIPOutOfRange", ACTION, note).await;
            continue;
        }
        let found = handle.server.find(GROUP, "ipaddresses", "", &text);
        let Some(found) = found.and_then(|found| found.decode::<Value>().ok()) else {
            let note = format!("Cluster IP [{family}]: {ip} is not allocated; repairing");
            tell("ClusterIPNotAllocated", ACTION, note).await;
            create(handle, &text, service).await;
            continue;
        };
        match finding(handle, service, &found) {
            Finding::Fine => {}
            Finding::Labels => recreate(handle, &text, service).await,
            Finding::Reference => {
                let metadata = &service["metadata"];
                let part = |field: &str| metadata[field].as_str().unwrap_or_default();
                let note = format!(
                    "the ClusterIP [{family}]: {ip} for Service {}/{} has a wrong reference; \
                     repairing",
                    part("namespace"),
                    part("name")
                );
                tell("ClusterIPNotAllocated", ACTION, note).await;
                recreate(handle, &text, service).await;
            }
            Finding::Shared => {
                let note = format!(
                    "Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate \
                     service"
                );
                tell("ClusterIPAlreadyAllocated", ACTION, note).await;
            }
        }
    }
}

const ACTION: &str = "ClusterIPAllocation";

/// What is wrong with the object of a service's address.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Fine,
    /// It says of somebody else that he has it.
    Reference,
    /// Somebody else has it too.
    Shared,
    /// It does not say whose it is.
    Labels,
}

fn finding(handle: &Handle, service: &Value, address: &Value) -> Finding {
    let reference = &address["spec"]["parentRef"];
    let is_service = reference["resource"] == "services"
        && reference["group"].as_str().unwrap_or_default().is_empty();
    if !is_service {
        return Finding::Reference;
    }
    let same = |field: &str| reference[field] == service["metadata"][field];
    if !(same("namespace") && same("name")) {
        let ip = address["metadata"]["name"].as_str().unwrap_or_default();
        let other = parent(handle, address);
        return match other.is_some_and(|other| cluster_ips(Some(&other)).iter().any(|o| o == ip)) {
            true => Finding::Shared,
            false => Finding::Reference,
        };
    }
    let labels = &address["metadata"]["labels"];
    let is_labelled = labels[MANAGED_BY] == ALLOCATOR && labels.get(FAMILY).is_some();
    if is_labelled { Finding::Fine } else { Finding::Labels }
}

/// The service that an address says it belongs to.
fn parent(handle: &Handle, address: &Value) -> Option<Value> {
    let reference = &address["spec"]["parentRef"];
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let found = handle.server.find("", "services", text("namespace"), text("name"))?;
    found.decode().ok()
}

/// An address that the allocator has made for a service which does not have it is let go.
async fn check_address(handle: &Handle, address: &Value) {
    let name = address["metadata"]["name"].as_str().unwrap_or_default();
    let reference = &address["spec"]["parentRef"];
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let of = format!("{}/{}", text("namespace"), text("name"));
    let (reason, note) = if text("resource") != "services" || !text("group").is_empty() {
        let note = format!("IPAddress: {name} for Service {of} has a wrong reference; cleaning up");
        ("IPAddressWrongReference", note)
    } else {
        let has_it = parent(handle, address)
            .is_some_and(|service| cluster_ips(Some(&service)).iter().any(|ip| ip == name));
        let made = address["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
        let age = made.parse::<Timestamp>().map(|at| handle.server.clock.now().duration_since(at));
        if has_it || age.is_ok_and(|age| age <= GRACE) {
            return;
        }
        let note =
            format!("IPAddress: {name} for Service {of} appears to have leaked: cleaning up");
        ("IPAddressNotAllocated", note)
    };
    let version = "networking.k8s.io/v1";
    event(handle, "IPAddress", version, address, reason, "IPAddressAllocation", note).await;
    delete(handle, name).await;
    if let Ok(ip) = name.parse() {
        handle.server.services.vacate(ip);
    }
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

/// Tells of a finding, as an event of `events.k8s.io`.
async fn event(
    handle: &Handle,
    kind: &str,
    api_version: &str,
    object: &Value,
    reason: &str,
    action: &str,
    note: String,
) {
    let now = handle.server.clock.now();
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    let mut regarding = json!({"kind": kind, "apiVersion": api_version, "name": name});
    for field in ["namespace", "uid", "resourceVersion"] {
        if let Some(value) = metadata.get(field) {
            regarding[field] = value.clone();
        }
    }
    let event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        // Addresses of IPv6 are no part of a name.
        "metadata": {"namespace": namespace,
            "name": format!("{}.{:x}", name.replace(':', "-"), now.as_nanosecond())},
        "eventTime": meta::time::rfc3339_micro(now),
        "reportingController": CONTROLLER,
        "reportingInstance": format!("{CONTROLLER}-{}", handle.server.config.advertise_address),
        "action": action,
        "reason": reason,
        "regarding": regarding,
        "note": note,
        "type": "Warning",
    });
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    if let Err(status) = send(handle, Method::POST, &path, &event).await {
        tracing::warn!(%status, reason, "an event could not be written");
    }
}
