//! Mirrors the Endpoints of services without a selector into EndpointSlices, so that those who read
//! slices only see them too.

use std::sync::Arc;

use api::annotations::{ENDPOINTS_LAST_CHANGE, LAST_APPLIED};
use api::labels::{MANAGED_BY, SERVICE_NAME, SKIP_MIRROR};
use client::{Change, Client, ClientError, EventRecorder, EventType, Outcome, Regarding};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meta::ObjectKey;

use crate::context::Context;
use crate::endpoint_slice::slices::{self, AddressType, Group, Parent};

/// Who manages these slices.
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Addresses mirrored of one subset: upstream `--mirroring-max-endpoints-per-subset`.
const ADDRESSES_MAX: usize = 1000;
/// On Endpoints that old clients use as a lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("endpointslicemirroring-controller");
    let recorder = ctx.recorder(&client, "endpoint-slice-mirroring-controller");
    let queue = ctx.queue("endpoint_slice_mirroring");
    let informers = &ctx.informers;
    tokio::join!(
        informers.endpoints.synced(),
        informers.endpoint_slices.synced(),
        informers.services.synced()
    );
    let endpoints = queue.clone();
    informers.endpoints.on_change(move |key, _| endpoints.add(key.clone()));
    let services = queue.clone();
    informers.services.on_change(move |key, _| services.add(key.clone()));
    let changed = queue.clone();
    informers.endpoint_slices.on_change(move |_, change| {
        let (Change::Added(slice) | Change::Updated { new: slice, .. } | Change::Deleted(slice)) =
            change;
        slices::service_of(slice, MANAGER).into_iter().for_each(|key| changed.add(key));
    });
    let shutdown = ctx.shutdown.clone();
    queue
        .run(shutdown, move |key| {
            let (ctx, client, recorder) = (ctx.clone(), client.clone(), recorder.clone());
            async move {
                let begun = ctx.clock.monotonic();
                let synced = sync(&ctx, &client, &recorder, &key).await;
                let took = ctx.clock.monotonic().duration_since(begun);
                ctx.counts.mirrored_slices.seconds.observe(took.as_secs_f64());
                synced
            }
        })
        .await;
}

async fn sync(
    ctx: &Context,
    client: &Client,
    recorder: &EventRecorder,
    key: &ObjectKey,
) -> Result<Outcome, ClientError> {
    let informers = &ctx.informers;
    let mut present = informers.endpoint_slices.list_namespace(&key.namespace);
    present.retain(|slice| slices::service_of(slice, MANAGER).as_ref() == Some(key));
    let endpoints = informers.endpoints.get(key);
    let service = informers.services.get(key);
    let mirrored = match (&endpoints, &service) {
        (Some(endpoints), Some(service)) if is_mirrored(endpoints, service) => Some(endpoints),
        _ => None,
    };
    let counts = &ctx.counts.mirrored_slices;
    if mirrored.is_none() && present.is_empty() {
        counts.slices.forget(key);
        return Ok(Outcome::Done);
    }
    let groups = mirrored.map(|endpoints| groups(endpoints)).unwrap_or_default();
    let default = Arc::new(Endpoints::default());
    let endpoints = mirrored.unwrap_or(&default);
    let parent = parent(endpoints, key);
    let plan = slices::plan(&parent, &[], groups, &present);
    if mirrored.is_some() {
        let skipped = skipped(endpoints);
        counts.note(key, plan.tally, skipped);
        if skipped > 0 {
            let text = format!(
                "A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per \
                 Endpoints subset. {skipped} addresses were skipped"
            );
            let regarding = Regarding::object(&**endpoints);
            recorder.record(&regarding, EventType::Warning, "TooManyAddressesToMirror", text);
        }
    } else {
        counts.slices.forget(key);
    }
    slices::write(client, &counts.slices.changes, &parent.namespace, &plan).await
}

/// Addresses that are not mirrored, since their subset has too many.
fn skipped(endpoints: &Endpoints) -> usize {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let subsets = endpoints.subsets.iter().flatten();
    let of = |one: &EndpointSubset| count(&one.addresses) + count(&one.not_ready_addresses);
    subsets.map(|one| of(one).saturating_sub(ADDRESSES_MAX)).sum()
}

/// Whether someone else than the endpoints controller says what the endpoints are, and wants them
/// mirrored.
fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let meta = &endpoints.metadata;
    let skipped = meta.labels.as_ref().and_then(|labels| labels.get(SKIP_MIRROR));
    let is_lock = meta.annotations.as_ref().is_some_and(|all| all.contains_key(LEADER));
    let selects = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    skipped.is_none_or(|value| value != "true")
        && !is_lock
        && selects.is_none_or(std::collections::BTreeMap::is_empty)
        && meta.deletion_timestamp.is_none()
}

fn parent(endpoints: &Endpoints, key: &ObjectKey) -> Parent {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), key.name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    let trigger = annotations.remove(ENDPOINTS_LAST_CHANGE);
    Parent {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        labels,
        annotations,
        trigger,
        owner: OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Endpoints".to_owned(),
            name: key.name.clone(),
            uid: endpoints.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
    }
}

fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let subsets = endpoints.subsets.iter().flatten();
    let mut groups: Vec<Group> = Vec::new();
    for group in subsets.flat_map(groups_of_subset) {
        let same = |other: &&mut Group| other.family == group.family && other.ports == group.ports;
        match groups.iter_mut().find(same) {
            Some(present) => present.endpoints.extend(group.endpoints),
            None => groups.push(group),
        }
    }
    groups
}

fn groups_of_subset(subset: &EndpointSubset) -> Vec<Group> {
    let ports: Vec<EndpointPort> = subset
        .ports
        .iter()
        .flatten()
        .map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    let all: Vec<_> = ready.chain(not_ready).take(ADDRESSES_MAX).collect();
    [AddressType::Ipv4, AddressType::Ipv6]
        .into_iter()
        .map(|family| Group {
            family,
            ports: ports.clone(),
            endpoints: all
                .iter()
                .filter(|(address, _)| AddressType::of(&address.ip) == family)
                .map(|(address, ready)| endpoint(address, *ready))
                .collect(),
        })
        .filter(|group| !group.endpoints.is_empty())
        .collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endpoints(labels: serde_json::Value) -> Endpoints {
        serde_json::from_value(json!({
            "metadata": { "name": "svc", "namespace": "n", "labels": labels },
            "subsets": [{ "addresses": [{ "ip": "192.0.2.1" }, { "ip": "2001:db8::1" }],
                "notReadyAddresses": [{ "ip": "192.0.2.2" }],
                "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }] }],
        }))
        .unwrap()
    }

    #[test]
    fn addresses_are_mirrored_by_family() {
        let groups = groups(&endpoints(json!({})));
        let sizes: Vec<_> = groups.iter().map(|g| (g.family, g.endpoints.len())).collect();
        assert_eq!(sizes, [(AddressType::Ipv4, 2), (AddressType::Ipv6, 1)]);
        let ready = |at: usize| groups[0].endpoints[at].conditions.as_ref().unwrap().ready;
        assert_eq!((ready(0), ready(1)), (Some(true), Some(false)));
    }

    #[test]
    fn only_what_nobody_else_writes_is_mirrored() {
        let service =
            |spec| -> Service { serde_json::from_value(json!({ "spec": spec })).unwrap() };
        assert!(is_mirrored(&endpoints(json!({})), &service(json!({}))));
        let selecting = service(json!({ "selector": { "a": "b" } }));
        assert!(!is_mirrored(&endpoints(json!({})), &selecting));
        let skipped = json!({ "endpointslice.kubernetes.io/skip-mirror": "true" });
        assert!(!is_mirrored(&endpoints(skipped), &service(json!({}))));
    }
}
