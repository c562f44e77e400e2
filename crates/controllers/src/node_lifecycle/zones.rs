//! How fast pods may be driven off the nodes of a zone: the more nodes of it fail at once, the more
//! likely it is the network between them and us that fails.
//!
//! Upstream: `handleDisruption` and `ComputeZoneState` in
//! `pkg/controller/nodelifecycle/node_lifecycle_controller.go`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::labels::{REGION, ZONE};
use k8s_openapi::api::core::v1::Node;

use super::{condition, taints};
use crate::NodeHealth;

/// Nodes with this label do not count for their zone.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// How a zone does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Few of its nodes fail.
    Normal,
    /// Many do.
    Partial,
    /// No node of it is ready.
    Full,
}

/// The nodes of a zone that have reported, and how many are not ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Zone {
    pub(super) nodes: u32,
    pub(super) unready: u32,
}

impl Zone {
    pub(super) fn state(self, limits: &NodeHealth) -> State {
        match self {
            Self { nodes, unready } if unready > 0 && unready == nodes => State::Full,
            Self { nodes, unready }
                if unready > 2
                    && f64::from(unready) / f64::from(nodes) >= limits.unhealthy_zone_threshold =>
            {
                State::Partial
            }
            _ => State::Normal,
        }
    }

    /// Nodes that may be tainted in a second.
    fn rate(self, limits: &NodeHealth) -> f64 {
        match self.state(limits) {
            State::Normal | State::Full => limits.eviction_rate,
            State::Partial if self.nodes > limits.large_cluster_size_threshold => {
                limits.secondary_eviction_rate
            }
            State::Partial => 0.0,
        }
    }

    /// Ready nodes in percent.
    pub(super) fn health(self) -> f64 {
        if self.nodes == 0 {
            return 100.0;
        }
        f64::from(100 * (self.nodes - self.unready)) / f64::from(self.nodes)
    }
}

/// The name of a node's zone, as upstream makes it: region and zone, or nothing.
pub(super) fn name(node: &Node) -> String {
    let label = |key: &str| {
        let labels = node.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(key)).map_or("", String::as_str)
    };
    match (label(REGION), label(ZONE)) {
        ("", "") => String::new(),
        (region, zone) => format!("{region}:\0:{zone}"),
    }
}

/// The zones of nodes that have reported.
pub(super) fn of(nodes: &[Arc<Node>]) -> BTreeMap<String, Zone> {
    let mut zones = BTreeMap::<String, Zone>::new();
    for node in nodes.iter().filter(|node| counts(node)) {
        let zone = zones.entry(name(node)).or_default();
        zone.nodes += 1;
        zone.unready += u32::from(!taints::is_ready(node));
    }
    zones
}

fn counts(node: &Node) -> bool {
    let is_excluded =
        node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED));
    condition(node, "Ready").is_some() && !is_excluded
}

/// Whether no zone has a ready node: the fault is likely ours then, and nobody is driven off.
pub(super) fn are_all_lost(zones: &BTreeMap<String, Zone>, limits: &NodeHealth) -> bool {
    zones.values().all(|zone| zone.state(limits) == State::Full)
}

/// Lets nodes be tainted one after the other, in each zone by its rate.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the last node of a zone was tainted.
    last: HashMap<String, Instant>,
}

impl Pace {
    /// Whether a node of the zone may be tainted now; otherwise how long it has to wait, which is
    /// for ever where the rate is zero.
    pub(super) fn take(
        &mut self,
        name: &str,
        zone: Zone,
        limits: &NodeHealth,
        now: Instant,
    ) -> Result<(), Option<Duration>> {
        let rate = zone.rate(limits);
        if rate <= 0.0 {
            return Err(None);
        }
        let between = Duration::from_secs_f64(1.0 / rate);
        let wait = self
            .last
            .get(name)
            .map(|last| (*last + between).saturating_duration_since(now))
            .filter(|wait| !wait.is_zero());
        match wait {
            Some(wait) => Err(Some(wait)),
            None => {
                self.last.insert(name.to_owned(), now);
                Ok(())
            }
        }
    }

    /// The node that was let through could not be tainted.
    pub(super) fn give_back(&mut self, name: &str) {
        self.last.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn zone(nodes: u32, unready: u32) -> Zone {
        Zone { nodes, unready }
    }

    fn node(zone: &str, ready: Option<&str>, more: &[&str]) -> Arc<Node> {
        let mut labels = json!({ ZONE: zone, REGION: "r" });
        more.iter().for_each(|label| labels[*label] = "".into());
        let conditions: Vec<_> =
            ready.iter().map(|status| json!({ "type": "Ready", "status": status })).collect();
        let node = json!({ "metadata": { "labels": labels },
            "status": { "conditions": conditions } });
        Arc::new(serde_json::from_value(node).unwrap())
    }

    #[test]
    fn a_zone_is_disrupted_when_many_of_its_nodes_fail() {
        let limits = NodeHealth::default();
        for (zone, state) in [
            (zone(0, 0), State::Normal),
            (zone(3, 0), State::Normal),
            (zone(1, 1), State::Full),
            (zone(3, 2), State::Normal),
            (zone(4, 3), State::Partial),
            (zone(20, 10), State::Normal),
            (zone(20, 11), State::Partial),
            (zone(20, 20), State::Full),
        ] {
            assert_eq!(zone.state(&limits), state, "{zone:?}");
        }
    }

    #[test]
    fn zones_are_made_of_region_and_zone() {
        let zones = of(&[
            node("a", Some("True"), &[]),
            node("a", Some("Unknown"), &[]),
            node("a", None, &[]),
            node("b", Some("False"), &[]),
            node("b", Some("True"), &[EXCLUDED]),
        ]);
        let expected = [("r:\0:a".to_owned(), zone(2, 1)), ("r:\0:b".to_owned(), zone(1, 1))];
        assert_eq!(zones, BTreeMap::from(expected));
        assert!(!are_all_lost(&zones, &NodeHealth::default()));
        let lost = of(&[node("a", Some("Unknown"), &[]), node("b", Some("False"), &[])]);
        assert!(are_all_lost(&lost, &NodeHealth::default()));
        assert_eq!((zone(4, 1).health(), zone(0, 0).health()), (75.0, 100.0));
    }

    #[test]
    fn nodes_are_given_up_at_the_rate_of_their_zone() {
        let limits = NodeHealth::default();
        let start = clock::Clock::monotonic(&clock::SystemClock);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        let mut take = |name: &str, zone, seconds| pace.take(name, zone, &limits, at(seconds));
        // A tenth of a node in a second, in each zone apart.
        assert_eq!(take("a", zone(9, 2), 0), Ok(()));
        assert_eq!(take("b", zone(9, 2), 0), Ok(()));
        assert_eq!(take("a", zone(9, 2), 4), Err(Some(Duration::from_secs(6))));
        assert_eq!(take("a", zone(9, 2), 10), Ok(()));
        // Nothing of a small zone that is disrupted, a hundredth of a large one.
        assert_eq!(take("a", zone(9, 6), 30), Err(None));
        assert_eq!(take("a", zone(60, 40), 30), Err(Some(Duration::from_secs(80))));
        assert_eq!(take("a", zone(60, 40), 110), Ok(()));
        // One that is lost as a whole while others are not goes as fast as a healthy one.
        assert_eq!(take("a", zone(60, 60), 120), Ok(()));
    }
}
