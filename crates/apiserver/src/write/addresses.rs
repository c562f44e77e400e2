//! An `IPAddress` for each cluster IP of a service, made and removed along with it.
//!
//! Which addresses are free is decided elsewhere, in memory; these objects tell of it. What fails
//! here is told to the log and not to the client.
//!
//! Upstream: `registry/core/service/ipallocator`.

use serde_json::{Value, json};
use store::Expect;

use super::{Storage, commit, render, set_new_metadata, stamped, text};
use crate::context::RequestContext;

const GROUP: &str = "networking.k8s.io";
pub(crate) const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
pub(crate) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub(crate) const ALLOCATOR: &str = "ipallocator.k8s.io";

/// Brings the objects in line after a service was written or removed.
pub(crate) async fn keep(
    ctx: &RequestContext,
    storage: &Storage,
    new: Option<&Value>,
    old: Option<&Value>,
) {
    if storage.resource.resource != "services" || !storage.resource.group.is_empty() {
        return;
    }
    let Some(addresses) = ctx.server.resources.storage(GROUP, "ipaddresses") else { return };
    let (now, before) = (cluster_ips(new), cluster_ips(old));
    for gone in before.iter().filter(|ip| !now.contains(ip)) {
        let key = addresses.store_key("", gone);
        let found = ctx.server.store.get(&key).await.ok().flatten();
        let Some(found) = found else { continue };
        let write = stamped(found.key.clone(), None, Expect::ModRevision(found.mod_revision));
        if let Err(status) = commit(ctx, write).await {
            tracing::warn!(message = %status.message, address = %gone, "an IPAddress is left");
        }
    }
    for ip in now.iter().filter(|ip| !before.contains(ip)) {
        let mut object = ip_address(ip, new.unwrap_or(&Value::Null));
        let made = set_new_metadata(ctx, addresses, &mut object);
        let json = render::encode(addresses.ty, &object);
        let write = stamped(addresses.store_key("", ip), Some(&json), Expect::Absent);
        let outcome = match made {
            Ok(()) => commit(ctx, write).await.map(|_| ()),
            Err(status) => Err(status),
        };
        if let Err(status) = outcome {
            tracing::warn!(message = %status.message, address = %ip, "an IPAddress is missing");
        }
    }
}

/// The object of an address of a service.
pub(crate) fn ip_address(ip: &str, service: &Value) -> Value {
    let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {"name": ip, "labels": {
            FAMILY: family,
            MANAGED_BY: ALLOCATOR,
        }},
        "spec": {"parentRef": {
            "resource": "services",
            "namespace": text(service, "/metadata/namespace"),
            "name": text(service, "/metadata/name"),
        }},
    })
}

/// Those that a service has, if any.
pub(crate) fn cluster_ips(service: Option<&Value>) -> Vec<String> {
    let ips = service.and_then(|service| service.pointer("/spec/clusterIPs"));
    let texts = ips.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    texts.filter(|ip| !matches!(*ip, "" | "None")).map(str::to_owned).collect()
}
