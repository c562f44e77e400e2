//! Says in a Lease that this server is there, and removes those of servers that are gone.
//!
//! Upstream: `createLeaseReconciler` of `pkg/controlplane/apiserver`, and
//! `pkg/controlplane/controller/apiserverleasegc`.

use std::sync::LazyLock;
use std::time::Duration;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use meta::{Object, Reason, Status};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::bootstrap;
use crate::handle::Handle;

/// What tells these Leases from others.
const COMPONENT: &str = "apiserver.kubernetes.io/identity";
const SERVER: &str = "kube-apiserver";
const HOSTNAME: &str = "kubernetes.io/hostname";
const NAMESPACE: &str = "kube-system";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
/// How long a Lease counts that is not renewed, and how often it is: upstream's.
const LEASE_SECONDS: u32 = 3600;
const RENEW: Duration = Duration::from_secs(10);
/// Bytes of the host's hash in a server's name.
const HASH_BYTES: usize = 16;

/// Who this server is.
#[derive(Clone, Debug)]
struct Identity {
    name: String,
    host: String,
    /// Tells two processes apart that have one name.
    holder: String,
}

/// There is one in a process, however often it is asked.
static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Identity::of(host.trim())
});

impl Identity {
    fn of(host: &str) -> Self {
        let name = format!("apiserver-{}", base32(&Sha256::digest(host)[..HASH_BYTES]));
        let holder = format!("{name}_{}", uuid::Uuid::new_v4());
        Self { name, host: host.to_owned(), holder }
    }
}

/// What this server is called.
pub(crate) fn name() -> &'static str {
    &IDENTITY.name
}

/// What the machine is called.
pub(crate) fn host() -> &'static str {
    &IDENTITY.host
}

/// Renews the Lease until shutdown, where the gate is open.
pub(crate) async fn run(handle: Handle) {
    let server = &handle.server;
    if !server.config.features.is_enabled("APIServerIdentity") {
        return;
    }
    loop {
        tokio::select! {
            () = server.clock.sleep(RENEW) => {}
            () = server.shutdown.begun() => return,
        }
        if let Err(status) = ensure(&handle).await {
            tracing::warn!(%status, "the server's own lease cannot be renewed");
        }
        if let Err(status) = collect(&handle).await {
            tracing::warn!(%status, "leases of servers that are gone cannot be removed");
        }
    }
}

/// Makes or renews the Lease, where the gate is open.
pub(crate) async fn ensure(handle: &Handle) -> Result<(), Status> {
    let server = &handle.server;
    if !server.config.features.is_enabled("APIServerIdentity") {
        return Ok(());
    }
    let identity = &*IDENTITY;
    let lease = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": identity.name, "namespace": NAMESPACE,
            "labels": {COMPONENT: SERVER, HOSTNAME: identity.host}},
        "spec": {"holderIdentity": identity.holder, "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": micro(server.clock.now())}});
    let known = server.find("coordination.k8s.io", "leases", NAMESPACE, &identity.name);
    if known.is_none() {
        return create(handle, &lease).await;
    }
    let (path, kind) = (format!("{LEASES}/{}", identity.name), "application/merge-patch+json");
    match bootstrap::send_as(handle, Method::PATCH, &path, kind, &lease).await {
        // Somebody took it away meanwhile.
        Err(status) if status.is(Reason::NotFound) => create(handle, &lease).await,
        result => result,
    }
}

async fn create(handle: &Handle, lease: &Value) -> Result<(), Status> {
    match bootstrap::send(handle, Method::POST, LEASES, lease).await {
        // The cache is behind, and the next renewal is in time.
        Err(status) if status.is(Reason::AlreadyExists) => Ok(()),
        result => result,
    }
}

/// Removes the Leases of servers that have not renewed theirs. Upstream looks once an hour.
async fn collect(handle: &Handle) -> Result<(), Status> {
    let server = &handle.server;
    let Some(storage) = server.resources.storage("coordination.k8s.io", "leases") else {
        return Ok(());
    };
    let now = server.clock.now();
    for lease in storage.cache.snapshot(0).map.values() {
        if lease.header().namespace.as_ref() as &str != NAMESPACE || !is_over(lease, now) {
            continue;
        }
        let header = lease.header();
        // Whoever renewed it meanwhile keeps it.
        let only_if = json!({"preconditions": {"uid": header.uid.to_string(),
            "resourceVersion": header.resource_version.to_string()}});
        let path = format!("{LEASES}/{}", crate::query::escape(&header.name));
        match bootstrap::send(handle, Method::DELETE, &path, &only_if).await {
            Err(status) if status.is(Reason::NotFound) || status.is(Reason::Conflict) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Whether it is the Lease of a server that is gone.
fn is_over(lease: &Object, now: Timestamp) -> bool {
    let Ok(lease) = lease.decode::<Value>() else { return false };
    if lease["metadata"]["labels"][COMPONENT] != SERVER {
        return false;
    }
    let spec = &lease["spec"];
    let renewed = spec["renewTime"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    match (renewed, spec["leaseDurationSeconds"].as_i64()) {
        (Some(renewed), Some(seconds)) => {
            let end = renewed.checked_add(SignedDuration::from_secs(seconds));
            end.is_ok_and(|end| end < now)
        }
        // It was never renewed.
        _ => true,
    }
}

fn micro(time: Timestamp) -> Value {
    json!(time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
}

/// Lower case, and without padding.
fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::new();
    let (mut held, mut bits) = (0_u32, 0_u32);
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(DIGITS[((held >> bits) & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(DIGITS[((held << (5 - bits)) & 31) as usize]));
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_server_is_called_by_the_hash_of_its_host() {
        // RFC 4648, section 10.
        assert_eq!(base32(b"f"), "my");
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        let identity = Identity::of("node");
        assert_eq!(identity.name.len(), "apiserver-".len() + 26);
        assert!(identity.holder.starts_with(&format!("{}_", identity.name)));
        assert_eq!(identity.name, Identity::of("node").name);
        assert_ne!(identity.holder, Identity::of("node").holder);
    }

    #[test]
    fn a_lease_is_over_when_it_was_not_renewed_in_time() {
        let now = "2026-01-01T02:00:00Z".parse().unwrap();
        let lease = |component: &str, spec: Value| {
            let labels = json!({ COMPONENT: component });
            let lease = json!({"metadata": {"name": "l", "labels": labels}, "spec": spec});
            let lease = Object::from_json(Bytes::from(lease.to_string())).unwrap();
            is_over(&lease, now)
        };
        let renewed = |at: &str| json!({"renewTime": at, "leaseDurationSeconds": 3600});
        assert!(!lease(SERVER, renewed("2026-01-01T01:00:00.000000Z")));
        assert!(lease(SERVER, renewed("2026-01-01T00:59:59.000000Z")));
        assert!(lease(SERVER, json!({})));
        assert!(!lease("another", renewed("2020-01-01T00:00:00.000000Z")));
        assert_eq!(micro(now), "2026-01-01T02:00:00.000000Z");
    }
}
