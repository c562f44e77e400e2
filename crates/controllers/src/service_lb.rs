//! Gives services of type LoadBalancer the addresses of the ready nodes, on which the service
//! proxy answers: no cloud is needed.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::{
    Change, Client, ClientError, EventRecorder, EventType, Outcome, Patch, Regarding, ResourcePath,
    WorkQueue,
};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service};
use meta::ObjectKey;
use serde_json::{Value, json};

use crate::context::Context;
use crate::selection::key_of;

/// Names of nodes that an event names: upstream `maxNodeNamesToLog`.
const NAMES_MAX: usize = 20;
/// Nodes with this label do not serve load balancers: upstream's well-known label.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("service-controller");
    let recorder = ctx.recorder(&client, "service-controller");
    let queue = ctx.queue("service-lb-controller");
    let informers = &ctx.informers;
    tokio::join!(informers.services.synced(), informers.nodes.synced());
    let changed = queue.clone();
    let teller = recorder.clone();
    informers.services.on_change(move |key, change| match change {
        // With the service its status is gone, and that is all that there was of its balancer.
        Change::Deleted(service) if wants(service) && !present(service).is_empty() => {
            let (before, after) = events(false, true, false);
            for (kind, reason, text) in before.into_iter().chain(after) {
                teller.record(&Regarding::object(&**service), kind, reason, text);
            }
        }
        Change::Deleted(_) => {}
        _ => changed.add(key.clone()),
    });
    let (this, nodes) = (ctx.clone(), queue.clone());
    informers.nodes.on_change(move |_, change| {
        let alike = matches!(&change, Change::Updated { old, new }
            if addresses(old) == addresses(new) && serves(old) == serves(new));
        if !alike {
            enqueue_all(&this, &nodes);
        }
    });
    let shutdown = ctx.shutdown.clone();
    queue
        .run(shutdown, move |key| {
            let (ctx, client, recorder) = (ctx.clone(), client.clone(), recorder.clone());
            async move { sync(&ctx, &client, &recorder, &key).await }
        })
        .await;
}

fn enqueue_all(ctx: &Context, queue: &WorkQueue<ObjectKey>) {
    for service in ctx.informers.services.list().iter().filter(|service| is_ours(service)) {
        queue.add(key_of(&service.metadata));
    }
}

async fn sync(
    ctx: &Context,
    client: &Client,
    recorder: &EventRecorder,
    key: &ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(service) = ctx.informers.services.get(key) else { return Ok(Outcome::Done) };
    let present = present(&service);
    let wanted = if is_ours(&service) {
        ingress(&service, &ctx.informers.nodes.list())
    } else if is_load_balancer(&service) && !wants(&service) {
        // Another class: another controller's.
        return Ok(Outcome::Done);
    } else {
        Vec::new()
    };
    if present == wanted {
        return Ok(Outcome::Done);
    }
    let tell = |(kind, reason, text): Told| {
        recorder.record(&Regarding::object(&*service), kind, reason, text);
    };
    let (before, after) = events(is_ours(&service), !present.is_empty(), !wanted.is_empty());
    before.into_iter().for_each(tell);
    let ingress = (!wanted.is_empty()).then_some(wanted);
    let patch = Patch::Merge(json!({
        "metadata": { "uid": service.metadata.uid },
        "status": { "loadBalancer": { "ingress": ingress } },
    }));
    let api = client.dynamic::<Value>(ResourcePath::of::<Service>(), &key.namespace);
    match api.patch_subresource(&key.name, "status", &patch).await {
        Ok(_) => {
            after.into_iter().for_each(tell);
            Ok(Outcome::Done)
        }
        Err(error) if error.is_not_found() => Ok(Outcome::Done),
        // The server gives up a patch too when many write at once.
        Err(error) if error.is_conflict() => Ok(Outcome::Requeue),
        Err(error) => {
            let is_update = is_ours(&service) && !present.is_empty();
            let nodes = ctx.informers.nodes.list();
            let (reason, text) = failed(is_update.then_some(&nodes), &error);
            let regarding = Regarding::object(&*service);
            recorder.record(&regarding, EventType::Warning, reason, text);
            Err(error)
        }
    }
}

/// Type, reason and text of an event.
type Told = (EventType, &'static str, &'static str);

/// What is told before a status is written, and after: whether a service is to have addresses, and
/// whether it had some and has some now.
fn events(is_ours: bool, had: bool, has: bool) -> (Vec<Told>, Option<Told>) {
    let normal = |reason, text| (EventType::Normal, reason, text);
    if !is_ours {
        let before = normal("DeletingLoadBalancer", "Deleting load balancer");
        return (vec![before], Some(normal("DeletedLoadBalancer", "Deleted load balancer")));
    }
    if had && !has {
        let none = "There are no available nodes for LoadBalancer";
        return (Vec::new(), Some((EventType::Warning, "UnAvailableLoadBalancer", none)));
    }
    if had {
        let after = normal("UpdatedLoadBalancer", "Updated load balancer with new hosts");
        return (Vec::new(), Some(after));
    }
    let before = normal("EnsuringLoadBalancer", "Ensuring load balancer");
    (vec![before], Some(normal("EnsuredLoadBalancer", "Ensured load balancer")))
}

/// Reason and text of a failure; with the nodes where these had changed.
fn failed(nodes: Option<&Vec<Arc<Node>>>, error: &ClientError) -> (&'static str, String) {
    let Some(nodes) = nodes else {
        let text =
            format!("Error syncing load balancer: failed to update load balancer status: {error}");
        return ("SyncLoadBalancerFailed", text);
    };
    let serving = nodes.iter().filter(|node| serves(node));
    let names: BTreeSet<&str> = serving.filter_map(|node| node.metadata.name.as_deref()).collect();
    let count = names.len();
    let mut named: Vec<String> = names.into_iter().take(NAMES_MAX).map(str::to_owned).collect();
    if count > NAMES_MAX {
        named.push(format!("<{} more>", count - NAMES_MAX));
    }
    let text = format!(
        "Error updating load balancer with new hosts [{}] [node names limited, total number of \
         nodes: {count}], error: {error}",
        named.join(" ")
    );
    ("UpdateLoadBalancerFailed", text)
}

fn is_load_balancer(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
}

/// Whether it is a balancer of the default class, even if the service is about to go.
fn wants(service: &Service) -> bool {
    let class = service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_ref());
    is_load_balancer(service) && class.is_none()
}

fn is_ours(service: &Service) -> bool {
    wants(service) && service.metadata.deletion_timestamp.is_none()
}

/// What the status says.
fn present(service: &Service) -> Vec<LoadBalancerIngress> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|balancer| balancer.ingress.clone()).unwrap_or_default()
}

/// One entry per ready node and family of the service, in the order of node names.
fn ingress(service: &Service, nodes: &[Arc<Node>]) -> Vec<LoadBalancerIngress> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone());
    let families = families.unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let serving = nodes.iter().filter(|node| serves(node));
    let entries = serving.flat_map(|node| {
        let addresses = addresses(node);
        families.iter().filter_map(move |family| {
            let ipv6 = family == "IPv6";
            let ip = addresses.iter().find(|ip| ip.contains(':') == ipv6)?;
            Some(LoadBalancerIngress {
                ip: Some(ip.clone()),
                ip_mode: Some("VIP".to_owned()),
                ..LoadBalancerIngress::default()
            })
        })
    });
    entries.collect()
}

/// Addresses of a node, those first by which it is known outside.
fn addresses(node: &Node) -> Vec<String> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let of = |kind: &'static str| {
        all.clone().filter(move |address| address.type_ == kind).map(|a| a.address.clone())
    };
    of("ExternalIP").chain(of("InternalIP")).collect()
}

fn serves(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    let excluded =
        node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED));
    ready.any(|condition| condition.status == "True") && !excluded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ready: &str, ips: &[&str]) -> Arc<Node> {
        let addresses: Vec<_> =
            ips.iter().map(|ip| json!({ "type": "InternalIP", "address": ip })).collect();
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name },
                "status": { "addresses": addresses,
                    "conditions": [{ "type": "Ready", "status": ready }] },
            }))
            .unwrap(),
        )
    }

    #[test]
    fn what_becomes_of_a_service_is_told() {
        let reasons = |is_ours, had, has| {
            let (before, after) = events(is_ours, had, has);
            before.into_iter().chain(after).map(|(_, reason, _)| reason).collect::<Vec<_>>()
        };
        assert_eq!(reasons(true, false, true), ["EnsuringLoadBalancer", "EnsuredLoadBalancer"]);
        assert_eq!(reasons(true, true, true), ["UpdatedLoadBalancer"]);
        assert_eq!(reasons(true, true, false), ["UnAvailableLoadBalancer"]);
        assert_eq!(reasons(false, true, false), ["DeletingLoadBalancer", "DeletedLoadBalancer"]);
    }

    #[test]
    fn a_failure_names_the_first_of_many_nodes() {
        let nodes: Vec<_> =
            (0..22).map(|at| node(&format!("n{at:02}"), "True", &["192.0.2.1"])).collect();
        let (reason, text) = failed(Some(&nodes), &ClientError::transport("gone"));
        assert_eq!(reason, "UpdateLoadBalancerFailed");
        assert!(
            text.starts_with("Error updating load balancer with new hosts [n00 n01 "),
            "{text}"
        );
        let rest = " n19 <2 more>] [node names limited, total number of nodes: 22], error: ";
        assert!(text.contains(rest), "{text}");
    }

    #[test]
    fn ready_nodes_are_the_way_in() {
        let service: Service = serde_json::from_value(json!({
            "spec": { "type": "LoadBalancer", "ipFamilies": ["IPv4", "IPv6"] },
        }))
        .unwrap();
        let nodes = [
            node("a", "True", &["192.0.2.1", "2001:db8::1"]),
            node("b", "False", &["192.0.2.2"]),
            node("c", "True", &["192.0.2.3"]),
        ];
        let ips: Vec<_> = ingress(&service, &nodes).into_iter().filter_map(|i| i.ip).collect();
        assert_eq!(ips, ["192.0.2.1", "2001:db8::1", "192.0.2.3"]);
    }
}
