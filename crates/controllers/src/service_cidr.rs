//! Says of service ranges that they are ready, and keeps them while addresses of theirs are in use.
//!
//! Upstream: `pkg/controller/servicecidrs`.

use std::net::IpAddr;
use std::time::Duration;

use client::{Change, Client, ClientError, EventRecorder, EventType, Outcome, Patch, Regarding};
use ipnet::IpNet;
use jiff::SignedDuration;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use meta::ObjectKey;
use serde_json::json;

use crate::context::Context;
use crate::reconcile::reconcile;

const NAME: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Allocators that have not heard of the deletion yet must not be left with an address of it.
const GRACE: SignedDuration = SignedDuration::from_secs(10);

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("service-cidrs-controller");
    let recorder = ctx.recorder(&client, NAME);
    let queue = ctx.queue(NAME);
    let informers = ctx.informers.clone();
    informers.service_cidrs.synced().await;
    informers.ip_addresses.synced().await;
    // A range, new or gone, may contain others that wait for it.
    informers.service_cidrs.on_change({
        let (queue, informers) = (queue.clone(), informers.clone());
        move |key, change| {
            queue.add(key.clone());
            if let Change::Added(range) | Change::Deleted(range) = change {
                let ranges = ranges_of(range);
                let overlaps = |other: &IpNet| ranges.iter().any(|range| overlap(range, other));
                enqueue(&informers.service_cidrs.list(), &queue, |other| overlaps(other));
            }
        }
    });
    informers.ip_addresses.on_change({
        let (queue, informers) = (queue.clone(), informers.clone());
        move |key, _| {
            let Ok(address) = key.name.parse::<IpAddr>() else { return };
            enqueue(&informers.service_cidrs.list(), &queue, |range| range.contains(&address));
        }
    });
    let shutdown = ctx.shutdown.clone();
    reconcile(&queue, shutdown, move |key| {
        let (ctx, client, recorder) = (ctx.clone(), client.clone(), recorder.clone());
        async move { sync(&ctx, &client, &recorder, &key).await }
    })
    .await;
}

fn enqueue(
    all: &[std::sync::Arc<ServiceCIDR>],
    queue: &client::WorkQueue<ObjectKey>,
    concerns: impl Fn(&IpNet) -> bool,
) {
    for found in all.iter().filter(|found| ranges_of(found).iter().any(&concerns)) {
        queue.add(ObjectKey::cluster(found.metadata.name.clone().unwrap_or_default()));
    }
}

async fn sync(
    ctx: &Context,
    client: &Client,
    recorder: &EventRecorder,
    key: &ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(range) = ctx.informers.service_cidrs.get(key) else { return Ok(Outcome::Done) };
    let api = client.api::<ServiceCIDR>("");
    let finalizers = range.metadata.finalizers.as_deref().unwrap_or_default();
    let is_kept = finalizers.iter().any(|name| name == FINALIZER);
    let Some(deleted) = &range.metadata.deletion_timestamp else {
        if !is_kept {
            let patch = json!({ "metadata": { "finalizers": [FINALIZER] } });
            ignore_absent(api.patch(&key.name, &Patch::Strategic(patch)).await)?;
        }
        let set = set_ready(ctx, client, &range, "True", "", READY).await;
        if set.is_err() {
            let text = "The ServiceCIDR Status can not be set to Ready=True";
            let regarding = Regarding::object(&*range);
            recorder.record(&regarding, EventType::Warning, "KubernetesServiceCIDRError", text);
        }
        return set;
    };
    let others: Vec<IpNet> = ctx
        .informers
        .service_cidrs
        .list()
        .iter()
        .filter(|other| other.metadata.name != range.metadata.name)
        .flat_map(|other| ranges_of(other))
        .collect();
    let addresses = ctx.informers.ip_addresses.list();
    let addresses = addresses.iter().filter_map(|address| **address);
    if !may_go(&ranges_of(&range), &others, addresses) {
        return set_ready(ctx, client, &range, "False", "Terminating", IN_USE).await;
    }
    let left = GRACE - ctx.clock.now().duration_since(deleted.0);
    if left.is_positive() {
        return Ok(Outcome::RequeueAfter(Duration::try_from(left).unwrap_or_default()));
    }
    if is_kept {
        let patch = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": [FINALIZER] } });
        ignore_absent(api.patch(&key.name, &Patch::Strategic(patch)).await)?;
    }
    Ok(Outcome::Done)
}

const READY: &str = "Kubernetes Service CIDR is ready";
const IN_USE: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                      ServiceCIDR";

/// Writes the condition, unless it says so already.
async fn set_ready(
    ctx: &Context,
    client: &Client,
    range: &ServiceCIDR,
    status: &str,
    reason: &str,
    message: &str,
) -> Result<Outcome, ClientError> {
    let conditions = range.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let found = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    if found.is_some_and(|found| found.status == status && found.message == message) {
        return Ok(Outcome::Done);
    }
    let now = meta::time::rfc3339(ctx.clock.now());
    let patch = json!({ "status": { "conditions": [{ "type": "Ready", "status": status,
        "reason": reason, "message": message, "lastTransitionTime": now }] } });
    let name = range.metadata.name.as_deref().unwrap_or_default();
    let api = client.api::<ServiceCIDR>("");
    ignore_absent(api.patch_subresource(name, "status", &Patch::Strategic(patch)).await)?;
    Ok(Outcome::Done)
}

fn ignore_absent<T>(result: Result<T, ClientError>) -> Result<(), ClientError> {
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn ranges_of(object: &ServiceCIDR) -> Vec<IpNet> {
    let texts = object.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Whether every range lies in another one that stays, or no address would be left without one.
fn may_go(ranges: &[IpNet], others: &[IpNet], mut addresses: impl Iterator<Item = IpAddr>) -> bool {
    let is_covered = |range: &IpNet| others.iter().any(|other| other.contains(range));
    if ranges.iter().all(is_covered) {
        return true;
    }
    let within = |ranges: &[IpNet], ip: &IpAddr| ranges.iter().any(|range| range.contains(ip));
    !addresses.any(|ip| within(ranges, &ip) && !within(others, &ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(range: &str, others: &[&str], addresses: &[&str]) -> bool {
        let others: Vec<IpNet> = others.iter().map(|text| text.parse().unwrap()).collect();
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        may_go(&[range.parse().unwrap()], &others, addresses)
    }

    #[test]
    fn a_range_goes_when_no_address_is_left_alone() {
        assert!(check("10.1.0.0/24", &[], &[]));
        assert!(check("10.1.0.0/24", &[], &["10.2.0.1", "fd00::1"]));
        assert!(!check("10.1.0.0/24", &[], &["10.1.0.1"]));
        assert!(check("10.1.0.0/24", &["10.1.0.0/16"], &["10.1.0.1"]), "a larger one has it");
        assert!(check("10.1.0.0/24", &["10.1.0.0/25"], &["10.1.0.1"]), "a part has it");
        assert!(!check("10.1.0.0/24", &["10.1.0.0/25"], &["10.1.0.200"]));
    }
}
