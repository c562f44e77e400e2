//! The node's lease: the sign that the node lives, cheaper than its status.

use std::sync::Arc;
use std::time::Duration;

use client::{Backoff, ClientError};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};

use crate::kubelet::Kubelet;

/// Where node leases are.
const NAMESPACE: &str = "kube-node-lease";
/// Delays between attempts: upstream `maxBackoff`.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(7);

/// Renews the lease until the kubelet ends.
pub(crate) async fn keep(kubelet: Arc<Kubelet>) {
    let shutdown = kubelet.shutdown.clone();
    let every = kubelet.config.node_lease_duration / 4;
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let mut lease = None;
    loop {
        let wait = match renew(&kubelet, lease.take()).await {
            Ok(renewed) => {
                lease = Some(renewed);
                backoff.reset();
                every
            }
            Err(error) => {
                let error = telemetry::Chain(&error).to_string();
                tracing::warn!(error, "node lease not renewed, trying again");
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = kubelet.deps.clock.sleep(wait) => {}
            () = shutdown.begun() => return,
        }
    }
}

/// `present` is the lease as it was last written; another writer makes it be read again.
async fn renew(kubelet: &Kubelet, present: Option<Lease>) -> Result<Lease, ClientError> {
    let api = kubelet.deps.client.api::<Lease>(NAMESPACE);
    let name = &kubelet.config.node_name;
    let present = match present {
        Some(lease) => Some(lease),
        None => api.get_opt(name).await?,
    };
    let Some(mut lease) = present else {
        return api.create(&new_lease(kubelet)).await;
    };
    let now = MicroTime(kubelet.deps.clock.now());
    let spec = lease.spec.get_or_insert_default();
    spec.renew_time = Some(now);
    spec.holder_identity = Some(name.clone());
    spec.lease_duration_seconds = Some(seconds(kubelet));
    if lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty) {
        lease.metadata.owner_references = owner(kubelet);
    }
    api.update(&lease).await
}

fn new_lease(kubelet: &Kubelet) -> Lease {
    let name = &kubelet.config.node_name;
    let mut lease = Lease {
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(seconds(kubelet)),
            renew_time: Some(MicroTime(kubelet.deps.clock.now())),
            ..LeaseSpec::default()
        }),
        ..Lease::default()
    };
    lease.metadata.name = Some(name.clone());
    lease.metadata.namespace = Some(NAMESPACE.to_owned());
    lease.metadata.owner_references = owner(kubelet);
    lease
}

fn seconds(kubelet: &Kubelet) -> i32 {
    i32::try_from(kubelet.config.node_lease_duration.as_secs()).unwrap_or(i32::MAX)
}

/// The lease goes with the node.
fn owner(kubelet: &Kubelet) -> Option<Vec<OwnerReference>> {
    let node: Arc<Node> = kubelet.node()?;
    Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone()?,
        uid: node.metadata.uid.clone()?,
        ..OwnerReference::default()
    }])
}
