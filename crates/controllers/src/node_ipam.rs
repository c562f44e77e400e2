//! Gives every node a range of pod addresses, `spec.podCIDR` and `spec.podCIDRs`.
//!
//! What is taken is what the nodes in the cache have, plus what was given a moment ago.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::{Change, ClientError, EventType, Outcome, Patch, Regarding};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::Node;
use meta::ObjectKey;
use prometheus::IntCounterVec;
use serde_json::json;

use crate::Config;
use crate::context::Context;
use crate::metrics::RangeMetrics;

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    if ctx.config.cluster_cidrs.is_empty() {
        return;
    }
    let queue = ctx.queue("node-ipam-controller");
    let client = ctx.client("node-controller");
    let recorder = ctx.recorder(&client, "cidrAllocator");
    let book = Arc::new(Mutex::new(Book::new(&ctx.config, ctx.counts.ranges.clone())));
    let nodes = &ctx.informers.nodes;
    nodes.synced().await;
    nodes.on_change({
        let (queue, book) = (queue.clone(), Arc::clone(&book));
        move |key, change| match change {
            Change::Added(node) => {
                let ranges = ranges_of(node);
                if ranges.is_empty() {
                    queue.add(key.clone());
                } else {
                    open(&book).note(&key.name, ranges);
                }
            }
            // Once given they do not change, and the heartbeats of nodes say nothing of them.
            Change::Updated { old, new } if cidrs(old) == cidrs(new) => {}
            Change::Updated { new, .. } => open(&book).note(&key.name, ranges_of(new)),
            Change::Deleted(_) => open(&book).forget(&key.name),
        }
    });
    let shutdown = ctx.shutdown.clone();
    let sync = move |key: ObjectKey| {
        let (ctx, client, book) = (ctx.clone(), client.clone(), Arc::clone(&book));
        let recorder = recorder.clone();
        async move {
            let Some(node) = ctx.informers.nodes.get(&key) else {
                open(&book).forget(&key.name);
                return Ok(Outcome::Done);
            };
            if !ranges_of(&node).is_empty() {
                return Ok(Outcome::Done);
            }
            let ranges = open(&book).give(&key.name);
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

fn open(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
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

fn cidrs(node: &Node) -> Option<(&Option<Vec<String>>, &Option<String>)> {
    node.spec.as_ref().map(|spec| (&spec.pod_cidrs, &spec.pod_cidr))
}

fn ranges_of(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let texts = spec.pod_cidrs.iter().flatten().chain(spec.pod_cidr.iter());
    let mut ranges: Vec<IpNet> = Vec::new();
    for range in texts.filter_map(|text| text.parse().ok()) {
        // The first is told twice.
        if !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    ranges
}

/// Which ranges nodes have.
struct Book {
    shares: Vec<Share>,
    by_node: HashMap<String, Vec<IpNet>>,
    counts: RangeMetrics,
}

/// A cluster range, cut into ranges of one length.
struct Share {
    cluster: IpNet,
    length: u8,
    /// The first and the last of the ranges that a node's covers, and the node.
    taken: BTreeSet<(u128, u128, String)>,
    /// The cluster range, as metrics name it.
    name: String,
}

impl Book {
    fn new(config: &Config, counts: RangeMetrics) -> Self {
        let share = |cluster: &IpNet| {
            let length = match cluster {
                IpNet::V4(_) => config.node_cidr_mask_size_v4,
                IpNet::V6(_) => config.node_cidr_mask_size_v6,
            };
            Share { cluster: *cluster, length, taken: BTreeSet::new(), name: cluster.to_string() }
        };
        let shares: Vec<Share> = config.cluster_cidrs.iter().map(share).collect();
        for share in &shares {
            let max = i64::try_from(share.count().unwrap_or(0)).unwrap_or(i64::MAX);
            counts.max.with_label_values(&[share.label()]).set(max);
        }
        Self { shares, by_node: HashMap::new(), counts }
    }

    /// A node has these.
    fn note(&mut self, node: &str, ranges: Vec<IpNet>) {
        if self.by_node.get(node) == Some(&ranges) {
            return;
        }
        self.forget(node);
        for share in &mut self.shares {
            for range in &ranges {
                if let Some((first, last)) = places(&share.cluster, share.length, range)
                    && share.taken.insert((first, last, node.to_owned()))
                {
                    share.counted(&self.counts.allocations, &self.counts);
                }
            }
        }
        self.by_node.insert(node.to_owned(), ranges);
    }

    /// A node is gone.
    fn forget(&mut self, node: &str) {
        for range in self.by_node.remove(node).unwrap_or_default() {
            for share in &mut self.shares {
                if let Some((first, last)) = places(&share.cluster, share.length, &range)
                    && share.taken.remove(&(first, last, node.to_owned()))
                {
                    share.counted(&self.counts.releases, &self.counts);
                }
            }
        }
    }

    /// What the node was given before, or the first free range of every cluster range; `None` when
    /// one is used up.
    fn give(&mut self, node: &str) -> Option<Vec<IpNet>> {
        if let Some(ranges) = self.by_node.get(node) {
            return Some(ranges.clone());
        }
        let free: Vec<(IpNet, u32)> =
            self.shares.iter().map(Share::first_free).collect::<Option<_>>()?;
        for (share, (_, tries)) in self.shares.iter().zip(&free) {
            let observed = self.counts.tries.with_label_values(&[share.label()]);
            observed.observe(f64::from(*tries));
        }
        let ranges: Vec<IpNet> = free.into_iter().map(|(range, _)| range).collect();
        self.note(node, ranges.clone());
        Some(ranges)
    }
}

impl Share {
    fn label(&self) -> &str {
        &self.name
    }

    /// The ranges that there are.
    fn count(&self) -> Option<u128> {
        let bits = u32::from(self.length.checked_sub(self.cluster.prefix_len())?);
        // Upstream refuses more than 2^16 ranges per cluster range.
        Some(1_u128 << bits.min(16))
    }

    /// The first range that is free, and how many were looked at before.
    fn first_free(&self) -> Option<(IpNet, u32)> {
        let count = self.count()?;
        let (mut free, mut tries) = (0, 0);
        for (first, last, _) in &self.taken {
            if *first > free {
                break;
            }
            free = free.max(last + 1);
            tries += 1;
        }
        let range = (free < count).then(|| subnet(&self.cluster, self.length, free)).flatten()?;
        Some((range, tries))
    }

    /// Counts a range that was taken or given back.
    fn counted(&self, what: &IntCounterVec, counts: &RangeMetrics) {
        let label = [self.label()];
        what.with_label_values(&label).inc();
        let whole = |count: u128| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let taken: u128 = self.taken.iter().map(|(first, last, _)| last - first + 1).sum();
        let usage = whole(taken) / whole(self.count().unwrap_or(1));
        counts.usage.with_label_values(&label).set(usage);
    }
}

/// Which of the ranges of `length` in `cluster` another range covers, in whole or in part: the
/// first and the last one.
fn places(cluster: &IpNet, length: u8, other: &IpNet) -> Option<(u128, u128)> {
    let is_of_its_family = matches!(cluster, IpNet::V4(_)) == matches!(other, IpNet::V4(_));
    let (first, last) = (other.network(), other.broadcast());
    let begin = bits(cluster.network());
    if !is_of_its_family || bits(last) < begin || bits(first) > bits(cluster.broadcast()) {
        return None;
    }
    let unit = u32::from(cluster.max_prefix_len().checked_sub(length)?);
    let at = |address| bits(address).saturating_sub(begin) >> unit;
    Some((at(first), at(last)))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
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
    use crate::metrics::Metrics;

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
            volumes: crate::VolumeSettings::default(),
            nodes: crate::NodeHealth::default(),
            features: features::Features::default(),
        }
    }

    fn book(cidrs: &[&str]) -> Book {
        let counts = Metrics::new(&telemetry::Registry::new()).unwrap().ranges;
        Book::new(&config(cidrs), counts)
    }

    fn check(cidrs: &[&str], taken: &[&str], expected: Option<&str>) {
        let mut book = book(cidrs);
        for (number, cidr) in taken.iter().enumerate() {
            book.note(&format!("node-{number}"), vec![cidr.parse().unwrap()]);
        }
        let ranges = book.give("new");
        // A write that failed is tried again with the same.
        assert_eq!(book.give("new"), ranges);
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

    #[test]
    fn a_range_is_free_again_when_its_node_is_gone() {
        let mut book = book(&["10.42.0.0/23"]);
        let first = book.give("a").unwrap();
        book.give("b").unwrap();
        assert_eq!(book.give("c"), None);
        book.forget("a");
        assert_eq!(book.give("c").unwrap(), first);
        let label = ["10.42.0.0/23"];
        let counts = &book.counts;
        assert_eq!(counts.max.with_label_values(&label).get(), 2);
        assert_eq!(counts.allocations.with_label_values(&label).get(), 3);
        assert_eq!(counts.releases.with_label_values(&label).get(), 1);
        assert_eq!(counts.usage.with_label_values(&label).get(), 1.0);
        // The first was given at once, the second after one look, the third at once again.
        let tries = counts.tries.with_label_values(&label);
        assert_eq!((tries.get_sample_count(), tries.get_sample_sum()), (3, 1.0));
        book.forget("b");
        assert_eq!(book.counts.usage.with_label_values(&label).get(), 0.5);
    }

    #[test]
    fn ranges_elsewhere_take_nothing() {
        let taken = ["10.41.255.0/24", "10.43.0.0/24", "fd00::/64", "0.0.0.0/0"];
        check(&["10.42.0.0/16"], &taken[..3], Some("10.42.0.0/24"));
        check(&["10.42.0.0/16"], &taken, None);
    }
}
