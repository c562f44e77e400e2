//! Keeps the Endpoints of every service that has a selector.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::annotations::{ENDPOINTS_LAST_CHANGE, ENDPOINTS_OVER_CAPACITY};
use api::labels::HEADLESS;
use client::{Client, ClientError, DeleteOptions, EventRecorder, EventType, Outcome, Regarding};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::ObjectKey;

use crate::context::Context;
use crate::pod_view::PodView;
use crate::service_pods::{self, TriggerTimes, is_headless, target_port};

/// Addresses that one object may have: upstream `maxCapacity`.
const ADDRESSES_MAX: usize = 1000;
const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("endpoint-controller");
    let recorder = ctx.recorder(&client, "endpoint-controller");
    let queue = ctx.queue("endpoint");
    let informers = &ctx.informers;
    tokio::join!(
        informers.services.synced(),
        informers.endpoints.synced(),
        informers.pods.synced()
    );
    service_pods::follow(&ctx, &queue);
    let changed = queue.clone();
    // What someone else changed or deleted is put right, and what was left over is removed.
    informers.endpoints.on_change(move |key, _| changed.add(key.clone()));
    let times = Arc::new(TriggerTimes::default());
    let shutdown = ctx.shutdown.clone();
    queue
        .run(shutdown, move |key| {
            let (ctx, client, times) = (ctx.clone(), client.clone(), Arc::clone(&times));
            let recorder = recorder.clone();
            async move { sync(&ctx, &client, &recorder, &times, &key).await }
        })
        .await;
}

async fn sync(
    ctx: &Context,
    client: &Client,
    recorder: &EventRecorder,
    times: &TriggerTimes,
    key: &ObjectKey,
) -> Result<Outcome, ClientError> {
    let api = client.api::<Endpoints>(&key.namespace);
    let present = ctx.informers.endpoints.get(key);
    let Some(service) = ctx.informers.services.get(key) else {
        times.forget(key);
        // Endpoints that nobody of us made are left alone.
        if present.is_some_and(|endpoints| is_managed(&endpoints)) {
            match api.delete(&key.name, &DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        return Ok(Outcome::Done);
    };
    if service_pods::selector_of(&service).is_none() {
        return Ok(Outcome::Done);
    }
    let pods = service_pods::pods_of(ctx, &service);
    let trigger = times.next(&service, &pods);
    let Some(mut wanted) = wanted(&service, &pods, present.as_deref()) else {
        return Ok(Outcome::Done);
    };
    if let Some(time) = trigger {
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(ENDPOINTS_LAST_CHANGE.to_owned(), nano(time));
    }
    let is_new = present.is_none();
    let result = match present {
        Some(_) => api.update(&wanted).await,
        None => api.create(&wanted).await,
    };
    if let Err(error) = &result
        && !error.is_namespace_terminating()
    {
        tell(recorder, &wanted, is_new, error);
    }
    match result {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if error.is_namespace_terminating() => Ok(Outcome::Done),
        // The cache is behind.
        Err(error) if error.is_conflict() || error.is_already_exists() || error.is_not_found() => {
            Ok(Outcome::Requeue)
        }
        Err(error) => Err(error),
    }
}

fn tell(recorder: &EventRecorder, wanted: &Endpoints, is_new: bool, error: &ClientError) {
    let key = crate::selection::key_of(&wanted.metadata);
    let (reason, text) = if is_new {
        let text = format!("Failed to create endpoint for service {key}: {error}");
        ("FailedToCreateEndpoint", text)
    } else {
        ("FailedToUpdateEndpoint", format!("Failed to update endpoint {key}: {error}"))
    };
    recorder.record(&Regarding::object(wanted), EventType::Warning, reason, text);
}

/// RFC 3339 with as many decimals as there are, as Go's `RFC3339Nano`.
pub(crate) fn nano(time: jiff::Timestamp) -> String {
    time.to_string()
}

fn is_managed(endpoints: &Endpoints) -> bool {
    let (key, value) = MANAGED_BY;
    let labels = endpoints.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.get(key).is_some_and(|found| found == value))
}

/// The Endpoints to write, `None` when the present ones are as they should be.
fn wanted(
    service: &Service,
    pods: &[Arc<PodView>],
    present: Option<&Endpoints>,
) -> Option<Endpoints> {
    let mut subsets = subsets(service, pods);
    let over = truncate(&mut subsets);
    let subsets = (!subsets.is_empty()).then_some(subsets);
    let labels = labels(service);
    let over_before = present.and_then(|e| e.metadata.annotations.as_ref());
    let over_before = over_before.and_then(|all| all.get(ENDPOINTS_OVER_CAPACITY));
    let over = over.then(|| "truncated".to_owned());
    if let Some(present) = present {
        let known = present.subsets.clone().filter(|subsets| !subsets.is_empty());
        if known == subsets
            && present.metadata.labels.as_ref() == Some(&labels)
            && over_before == over.as_ref()
        {
            return None;
        }
    }
    let mut metadata = present.map(|endpoints| endpoints.metadata.clone()).unwrap_or(ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    });
    metadata.labels = Some(labels);
    let annotations = metadata.annotations.get_or_insert_default();
    match over {
        Some(over) => drop(annotations.insert(ENDPOINTS_OVER_CAPACITY.to_owned(), over)),
        None => drop(annotations.remove(ENDPOINTS_OVER_CAPACITY)),
    }
    annotations.remove(ENDPOINTS_LAST_CHANGE);
    Some(Endpoints { metadata, subsets })
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    if service.spec.as_ref().is_some_and(is_headless) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

/// One address of the subsets, ordered so that equal sets compare equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Address {
    ip: String,
    pod: String,
    ready: bool,
    at: usize,
}

/// Ports with the same addresses share a subset.
fn subsets(service: &Service, pods: &[Arc<PodView>]) -> Vec<EndpointSubset> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let tolerates = spec.publish_not_ready_addresses == Some(true);
    let ipv6 = spec.ip_families.iter().flatten().next().is_some_and(|family| family == "IPv6");
    let mut by_port: BTreeMap<(Option<String>, Option<i32>, String), BTreeSet<Address>> =
        BTreeMap::new();
    let mut ports: BTreeMap<(Option<String>, Option<i32>, String), EndpointPort> = BTreeMap::new();
    let none = [ServicePort::default()];
    let no_ports = spec.ports.as_ref().is_none_or(Vec::is_empty);
    let wanted = if no_ports { &none[..] } else { spec.ports.as_deref().unwrap_or_default() };
    for (at, pod) in pods.iter().enumerate() {
        if pod.deleted.is_some() && !tolerates {
            continue;
        }
        let Some(ip) = pod.ips.iter().find(|ip| ip.contains(':') == ipv6) else { continue };
        for port in wanted {
            let number = if no_ports {
                // Without ports only a headless service has endpoints.
                if !is_headless(spec) {
                    continue;
                }
                None
            } else {
                let Some(number) = target_port(port, pod) else { continue };
                Some(number)
            };
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let key = (port.name.clone(), number, protocol.clone());
            if let Some(number) = number {
                ports.entry(key.clone()).or_insert(EndpointPort {
                    name: port.name.clone().filter(|name| !name.is_empty()),
                    port: number,
                    protocol: Some(protocol),
                    app_protocol: port.app_protocol.clone(),
                });
            }
            let ready = tolerates || pod.ready;
            let (ip, pod) = (ip.clone(), pod.uid.clone());
            by_port.entry(key).or_default().insert(Address { ip, pod, ready, at });
        }
    }
    let mut grouped: BTreeMap<BTreeSet<Address>, Vec<EndpointPort>> = BTreeMap::new();
    for (key, addresses) in by_port {
        grouped.entry(addresses).or_default().extend(ports.remove(&key));
    }
    let subset = |(addresses, ports): (BTreeSet<Address>, Vec<EndpointPort>)| {
        let (ready, not_ready): (Vec<_>, Vec<_>) = addresses.iter().partition(|a| a.ready);
        let list = |addresses: Vec<&Address>| {
            let all: Vec<_> =
                addresses.into_iter().map(|a| address(service, &pods[a.at], &a.ip)).collect();
            (!all.is_empty()).then_some(all)
        };
        EndpointSubset {
            addresses: list(ready),
            not_ready_addresses: list(not_ready),
            ports: (!ports.is_empty()).then_some(ports),
        }
    };
    grouped.into_iter().map(subset).collect()
}

fn address(service: &Service, pod: &PodView, ip: &str) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: service_pods::hostname(service, pod),
        node_name: (!pod.node.is_empty()).then(|| pod.node.clone()),
        target_ref: Some(service_pods::target_ref(pod)),
    }
}

/// Keeps what one object may hold, ready addresses first. `true` when something was dropped.
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let total: usize =
        subsets.iter().map(|s| count(&s.addresses) + count(&s.not_ready_addresses)).sum();
    if total <= ADDRESSES_MAX {
        return false;
    }
    let mut left = ADDRESSES_MAX;
    let mut cut = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            addresses.truncate(left);
            left -= addresses.len();
        }
        *list = list.take().filter(|addresses| !addresses.is_empty());
    };
    subsets.iter_mut().for_each(|subset| cut(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| cut(&mut subset.not_ready_addresses));
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    true
}

#[cfg(test)]
mod tests;
