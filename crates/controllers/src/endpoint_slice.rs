//! Keeps the EndpointSlices of every service that has a selector.

mod hints;
pub(crate) mod slices;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use api::labels::{HEADLESS, MANAGED_BY, SERVICE_NAME, ZONE};
use client::{
    Change, Client, ClientError, EventRecorder, EventType, Outcome, Regarding, WorkQueue,
};
use k8s_openapi::api::core::v1::{Node, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meta::ObjectKey;
use tokio::sync::Notify;

use self::slices::{AddressType, Group, Parent};
use self::topology::{Topology, is_auto};
use crate::context::Context;
use crate::pod_view::PodView;
use crate::service_pods::{self, TriggerTimes, is_headless, target_port};

/// Who manages these slices.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Between two looks at all nodes, which cost time in proportion to their number.
const PACE: Duration = Duration::from_millis(100);

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("endpointslice-controller");
    let recorder = ctx.recorder(&client, "endpoint-slice-controller");
    let queue = ctx.queue("endpoint_slice");
    let informers = &ctx.informers;
    tokio::join!(
        informers.services.synced(),
        informers.endpoint_slices.synced(),
        informers.pods.synced(),
        informers.nodes.synced()
    );
    service_pods::follow(&ctx, &queue);
    let changed = queue.clone();
    informers.endpoint_slices.on_change(move |_, change| {
        let (Change::Added(slice) | Change::Updated { new: slice, .. } | Change::Deleted(slice)) =
            change;
        slices::service_of(slice, MANAGER).into_iter().for_each(|key| changed.add(key));
    });
    let (this, zones) = (ctx.clone(), queue.clone());
    let nodes_changed = Arc::new(Notify::new());
    let parts_changed = Arc::clone(&nodes_changed);
    informers.nodes.on_change(move |_, change| {
        let Change::Updated { old, new } = change else { return parts_changed.notify_one() };
        if topology::part(old) != topology::part(new) {
            parts_changed.notify_one();
        }
        let zone = |node: &Node| {
            node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).cloned()
        };
        if zone(old) != zone(new) {
            for service in this.informers.services.list() {
                zones.add(crate::selection::key_of(&service.metadata));
            }
        }
    });
    let topology = Arc::new(Topology::default());
    drop(topology.learn(&informers.nodes.list()));
    let follow = follow_nodes(ctx.clone(), queue.clone(), Arc::clone(&topology), nodes_changed);
    let times = Arc::new(TriggerTimes::default());
    let shutdown = ctx.shutdown.clone();
    let work = queue.run(shutdown, move |key| {
        let (ctx, client, times) = (ctx.clone(), client.clone(), Arc::clone(&times));
        let (recorder, topology) = (recorder.clone(), Arc::clone(&topology));
        async move {
            let synced = sync(&ctx, &client, &recorder, (&times, &topology), &key).await;
            let (result, outcome) = match synced {
                Ok(Synced::Done) => ("success", Ok(Outcome::Done)),
                Ok(Synced::Stale) => ("stale", Ok(Outcome::Requeue)),
                Ok(Synced::Partly) => ("error", Ok(Outcome::Requeue)),
                Err(error) => ("error", Err(error)),
            };
            ctx.counts.service_slices.syncs.with_label_values(&[result]).inc();
            outcome
        }
    });
    tokio::select! {
        () = work => {}
        () = follow => {}
    }
}

/// Has services looked at again for which a change of nodes matters. May be dropped at any time.
async fn follow_nodes(
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
    topology: Arc<Topology>,
    changed: Arc<Notify>,
) {
    loop {
        changed.notified().await;
        topology.learn(&ctx.informers.nodes.list()).into_iter().for_each(|key| queue.add(key));
        // Many nodes that come at once are one change.
        ctx.clock.sleep(PACE).await;
    }
}

/// What came of a look at a service.
enum Synced {
    /// Its slices are as they should be.
    Done,
    /// The cache has not seen slices that were written before.
    Stale,
    /// The nodes of some pods are unknown: their addresses are left out until they are not.
    Partly,
}

async fn sync(
    ctx: &Context,
    client: &Client,
    recorder: &EventRecorder,
    (times, topology): (&TriggerTimes, &Topology),
    key: &ObjectKey,
) -> Result<Synced, ClientError> {
    let counts = &ctx.counts.service_slices;
    let Some(service) = ctx.informers.services.get(key) else {
        times.forget(key);
        counts.slices.forget(key);
        counts.note_distribution(key, None);
        topology.forget(key);
        // The garbage collector removes its slices.
        return Ok(Synced::Done);
    };
    let (Some(spec), Some(_)) = (&service.spec, service_pods::selector_of(&service)) else {
        return Ok(Synced::Done);
    };
    if service.metadata.deletion_timestamp.is_some() {
        return Ok(Synced::Done);
    }
    let pods = service_pods::pods_of(ctx, &service);
    let trigger = times.next(&service, &pods);
    let (placed, without_node) = placed(ctx, key, spec, pods);
    let parent = parent(&service, spec, trigger);
    let mut groups = Vec::new();
    let families = families(spec);
    for family in &families {
        groups.extend(groups_of(&service, spec, &placed, *family));
    }
    let present = slices_of(ctx, key);
    let is_auto = is_auto(&service);
    // The annotation comes before the field.
    let distribution = spec.traffic_distribution.as_deref().filter(|_| !is_auto);
    counts.note_distribution(key, distribution);
    if is_auto {
        slices::keep_hints(&mut groups, &present);
    }
    let mut plan = slices::plan(&parent, &families, groups, &present);
    let told = if is_auto {
        topology.hint(key, &parent, &families, &present, &mut plan)
    } else {
        topology.drop_hints(key, &families)
    };
    counts.slices.note(key, plan.tally);
    counts.changed(is_auto, distribution, plan.changes());
    let written = slices::write(client, &counts.slices.changes, &parent.namespace, &plan).await;
    let regarding = Regarding::object(&*service);
    for (kind, reason, text) in told {
        recorder.record(&regarding, kind, reason, text);
    }
    let mut wrong = without_node;
    let is_partial = !wrong.is_empty();
    wrong.extend(written.as_ref().err().map(ToString::to_string));
    let wrong = match wrong.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    };
    if let Some(wrong) = wrong {
        let text = format!(
            "Error updating Endpoint Slices for Service {}/{}: {wrong}",
            key.namespace, key.name
        );
        recorder.record(&regarding, EventType::Warning, "FailedToUpdateEndpointSlices", text);
    }
    Ok(match written? {
        Outcome::Requeue => Synced::Stale,
        _ if is_partial => Synced::Partly,
        _ => Synced::Done,
    })
}

/// A pod and the zone of its node.
struct Placed {
    pod: Arc<PodView>,
    zone: Option<String>,
}

/// The pods with their zones. Unless the service publishes all there are, those whose nodes are
/// unknown are left out, and it is said of each: a node may be on its way, or gone before its pods.
fn placed(
    ctx: &Context,
    service: &ObjectKey,
    spec: &ServiceSpec,
    pods: Vec<Arc<PodView>>,
) -> (Vec<Placed>, Vec<String>) {
    let (mut placed, mut left_out) = (Vec::with_capacity(pods.len()), Vec::new());
    for pod in pods {
        let node = ctx.informers.nodes.get(&ObjectKey::cluster(&pod.node));
        if node.is_none() && !publishes(spec) {
            left_out.push(format!(
                "skipping Pod {} for Service {}/{}: Node {} Not Found",
                pod.key.name, service.namespace, service.name, pod.node
            ));
            continue;
        }
        let labels = node.as_ref().and_then(|node| node.metadata.labels.as_ref());
        let zone = labels.and_then(|labels| labels.get(ZONE)).filter(|zone| !zone.is_empty());
        placed.push(Placed { pod, zone: zone.cloned() });
    }
    (placed, left_out)
}

fn slices_of(ctx: &Context, service: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
    let mut slices = ctx.informers.endpoint_slices.list_namespace(&service.namespace);
    slices.retain(|slice| slices::service_of(slice, MANAGER).as_ref() == Some(service));
    slices
}

fn parent(service: &Service, spec: &ServiceSpec, trigger: Option<jiff::Timestamp>) -> Parent {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    let name = service.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if is_headless(spec) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    Parent {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        labels,
        annotations: std::collections::BTreeMap::new(),
        trigger: trigger.map(crate::endpoints::nano),
        owner: OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            uid: service.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
            name: name.clone(),
        },
        name,
    }
}

/// The address families of a service; old objects have none and mean the family of their address.
fn families(spec: &ServiceSpec) -> Vec<AddressType> {
    let named: Vec<_> = spec.ip_families.iter().flatten().collect();
    if !named.is_empty() {
        let of = |name: &&String| {
            if name.as_str() == "IPv6" { AddressType::Ipv6 } else { AddressType::Ipv4 }
        };
        return named.iter().map(of).collect();
    }
    let ipv6 = spec.cluster_ip.as_ref().is_some_and(|ip| ip.contains(':'));
    vec![if ipv6 { AddressType::Ipv6 } else { AddressType::Ipv4 }]
}

/// The endpoints that should be, together with those that have the same ports.
fn groups_of(
    service: &Service,
    spec: &ServiceSpec,
    placed: &[Placed],
    family: AddressType,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for Placed { pod, zone } in placed {
        let mut ips = pod.ips.iter().filter(|ip| AddressType::of(ip) == family);
        let Some(ip) = ips.next() else { continue };
        let ports = ports_of(spec, pod);
        let endpoint = endpoint(service, spec, pod, ip, zone.clone());
        match groups.iter_mut().find(|group| group.ports == ports) {
            Some(group) => group.endpoints.push(endpoint),
            None => groups.push(Group { family, ports, endpoints: vec![endpoint] }),
        }
    }
    groups
}

fn ports_of(spec: &ServiceSpec, pod: &PodView) -> Vec<EndpointPort> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                // Upstream prints the empty name of a single port.
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(port, pod)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn endpoint(
    service: &Service,
    spec: &ServiceSpec,
    pod: &PodView,
    ip: &str,
    zone: Option<String>,
) -> Endpoint {
    let terminating = pod.deleted.is_some();
    let ready = publishes(spec) || (pod.ready && !terminating);
    Endpoint {
        addresses: vec![ip.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(pod.ready),
            terminating: Some(terminating),
        }),
        hints: hints(spec, pod, zone.as_deref()).filter(|_| ready && !is_auto(service)),
        hostname: service_pods::hostname(service, pod),
        node_name: (!pod.node.is_empty()).then(|| pod.node.clone()),
        target_ref: Some(service_pods::target_ref(pod)),
        zone,
        ..Endpoint::default()
    }
}

/// Whether the service is there for all of its pods, whatever state they are in.
fn publishes(spec: &ServiceSpec) -> bool {
    spec.publish_not_ready_addresses == Some(true)
}

/// Whom the endpoint should serve, by `spec.trafficDistribution`, when it is ready.
fn hints(spec: &ServiceSpec, pod: &PodView, zone: Option<&str>) -> Option<EndpointHints> {
    let zones = || zone.map(|name| vec![ForZone { name: name.to_owned() }]);
    match spec.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => {
            Some(EndpointHints { for_zones: Some(zones()?), for_nodes: None })
        }
        "PreferSameNode" if !pod.node.is_empty() => Some(EndpointHints {
            for_zones: zones(),
            for_nodes: Some(vec![ForNode { name: pod.node.clone() }]),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
