//! Gives every node a range of pod addresses, `spec.podCIDR` and `spec.podCIDRs`.
//!
//! The set of taken ranges is the set of ranges of the nodes in the cache, plus those written a
//! moment ago: there is no book to fall out of step with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use client::{Change, ClientError, EventType, Outcome, Patch, Regarding};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::Node;
use meta::ObjectKey;
use serde_json::json;

use crate::Config;
use crate::context::Context;

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    if ctx.config.cluster_cidrs.is_empty() {
        return;
    }
    let queue = ctx.queue("node-ipam-controller");
    let client = ctx.client("node-controller");
    let recorder = ctx.recorder(&client, "cidrAllocator");
    let nodes = &ctx.informers.nodes;
    nodes.synced().await;
    nodes.on_change({
        let queue = queue.clone();
        move |key, change| {
            if !matches!(change, Change::Deleted(_)) {
                queue.add(key.clone());
            }
        }
    });
    let given: Arc<Mutex<BTreeMap<String, Vec<IpNet>>>> = Arc::default();
    let shutdown = ctx.shutdown.clone();
    let sync = move |key: ObjectKey| {
        let (ctx, client, given) = (ctx.clone(), client.clone(), Arc::clone(&given));
        let recorder = recorder.clone();
        async move {
            let Some(node) = ctx.informers.nodes.get(&key) else {
                given.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
                return Ok(Outcome::Done);
            };
            if !ranges_of(&node).is_empty() {
                given.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
                return Ok(Outcome::Done);
            }
            let ranges = {
                let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
                let nodes = ctx.informers.nodes.list();
                let taken = nodes.iter().flat_map(|node| ranges_of(node));
                let others = given.iter().filter(|(name, _)| **name != key.name);
                let taken = taken.chain(others.flat_map(|(_, ranges)| ranges.clone())).collect();
                let ranges = allocate(&ctx.config, &taken);
                given.insert(key.name.clone(), ranges.clone().unwrap_or_default());
                ranges
            };
            let Some(ranges) = ranges else {
                let text = format!("Node {} status is now: CIDRNotAvailable", key.name);
                let regarding = Regarding::object(&*node);
                recorder.record(&regarding, EventType::Normal, "CIDRNotAvailable", text);
                // Another node may give its range back.
                return Ok(Outcome::Requeue);
            };
            write(&client, &key.name, &ranges).await
        }
    };
    queue.run(shutdown, sync).await;
}

async fn write(
    client: &client::Client,
    node: &str,
    ranges: &[IpNet],
) -> Result<Outcome, ClientError> {
    let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    let patch = Patch::Strategic(json!({
        "spec": { "podCIDR": texts.first(), "podCIDRs": texts },
    }));
    match client.api::<Node>("").patch(node, &patch).await {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if error.is_not_found() => Ok(Outcome::Done),
        Err(error) => Err(error),
    }
}

fn ranges_of(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let texts = spec.pod_cidrs.iter().flatten().chain(spec.pod_cidr.iter());
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// The first free range of every cluster range; `None` when one is used up.
fn allocate(config: &Config, taken: &BTreeSet<IpNet>) -> Option<Vec<IpNet>> {
    config.cluster_cidrs.iter().map(|cluster| first_free(config, cluster, taken)).collect()
}

fn first_free(config: &Config, cluster: &IpNet, taken: &BTreeSet<IpNet>) -> Option<IpNet> {
    let length = match cluster {
        IpNet::V4(_) => config.node_cidr_mask_size_v4,
        IpNet::V6(_) => config.node_cidr_mask_size_v6,
    };
    let bits = u32::from(length.checked_sub(cluster.prefix_len())?);
    // Upstream refuses more than 2^16 ranges per cluster range.
    let count = 1_u128 << bits.min(16);
    (0..count).find_map(|at| {
        let range = subnet(cluster, length, at)?;
        let overlaps = |other: &IpNet| other.contains(&range) || range.contains(other);
        (!taken.iter().any(overlaps)).then_some(range)
    })
}

fn subnet(cluster: &IpNet, length: u8, at: u128) -> Option<IpNet> {
    match cluster.network() {
        IpAddr::V4(network) => {
            let offset = u32::try_from(at << (32 - u32::from(length))).ok()?;
            let address = Ipv4Addr::from(u32::from(network).checked_add(offset)?);
            Ipv4Net::new(address, length).ok().map(IpNet::V4)
        }
        IpAddr::V6(network) => {
            let offset = at << (128 - u32::from(length));
            let address = Ipv6Addr::from(u128::from(network).checked_add(offset)?);
            Ipv6Net::new(address, length).ok().map(IpNet::V6)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cidrs: &[&str]) -> Config {
        Config {
            controllers: vec!["*".to_owned()],
            cluster_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            node_cidr_mask_size_v4: 24,
            node_cidr_mask_size_v6: 64,
            root_ca: String::new(),
            signing: None,
            unused_tokens: crate::UNUSED_TOKENS,
            force_detach_on_timeout: true,
            nodes: crate::NodeHealth::default(),
            features: features::Features::default(),
        }
    }

    fn check(cidrs: &[&str], taken: &[&str], expected: Option<&str>) {
        let taken = taken.iter().map(|cidr| cidr.parse().unwrap()).collect();
        let ranges = allocate(&config(cidrs), &taken);
        let texts = ranges.map(|r| r.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        assert_eq!(texts.as_deref(), expected, "{cidrs:?} {taken:?}");
    }

    #[test]
    fn the_first_free_range_is_given() {
        check(&["10.42.0.0/16"], &[], Some("10.42.0.0/24"));
        check(&["10.42.0.0/16"], &["10.42.0.0/24"], Some("10.42.1.0/24"));
        check(&["10.42.0.0/16"], &["10.42.0.0/23", "10.42.3.0/24"], Some("10.42.2.0/24"));
        check(&["10.42.0.0/24"], &["10.42.0.0/24"], None);
        check(&["10.42.0.0/16", "fd00::/48"], &["fd00::/64"], Some("10.42.0.0/24,fd00:0:0:1::/64"));
    }
}
