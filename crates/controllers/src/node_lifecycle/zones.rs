//! How fast pods may be driven off the nodes of a zone: the more nodes of it fail at once, the more
//! likely it is the network between them and us that fails.
//!
//! Upstream: `handleDisruption` and `ComputeZoneState` in
//! `pkg/controller/nodelifecycle/node_lifecycle_controller.go`.

use std::collections::{BTreeMap, HashMap};
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

/// The zones of nodes that have reported, kept as nodes change: there are many nodes, each of them
/// is looked at often, and each look asks how its zone does.
#[derive(Debug, Default)]
pub(super) struct Zones {
    zones: BTreeMap<String, Zone>,
    /// The zone that each node is counted in, and whether it is not ready.
    nodes: HashMap<String, (String, bool)>,
}

/// How fast nodes of each zone may be given up: what a change of it means for all of them.
pub(super) type Outlook = BTreeMap<String, (State, bool)>;

impl Zones {
    /// Takes over a node, `None` when it is gone; gives the zones it was and is counted in.
    pub(super) fn change(&mut self, node: &str, now: Option<&Node>) -> Vec<String> {
        let was = self.nodes.remove(node);
        let is = now.filter(|node| counts(node)).map(|node| (name(node), !taints::is_ready(node)));
        if let Some((zone, unready)) = &was
            && let Some(counted) = self.zones.get_mut(zone)
        {
            counted.nodes -= 1;
            counted.unready -= u32::from(*unready);
            if counted.nodes == 0 {
                self.zones.remove(zone);
            }
        }
        if let Some((zone, unready)) = &is {
            let counted = self.zones.entry(zone.clone()).or_default();
            counted.nodes += 1;
            counted.unready += u32::from(*unready);
            self.nodes.insert(node.to_owned(), (zone.clone(), *unready));
        }
        was.into_iter().chain(is).map(|(zone, _)| zone).collect()
    }

    /// A zone, of no nodes when there is none of this name.
    pub(super) fn get(&self, name: &str) -> Zone {
        self.zones.get(name).copied().unwrap_or_default()
    }

    /// Whether no zone has a ready node: the fault is likely ours then, and nobody is driven off.
    pub(super) fn are_all_lost(&self, limits: &NodeHealth) -> bool {
        self.zones.values().all(|zone| zone.state(limits) == State::Full)
    }

    /// What decides on the nodes of each zone.
    pub(super) fn outlook(&self, limits: &NodeHealth) -> Outlook {
        let large = limits.large_cluster_size_threshold;
        let of = |zone: &Zone| (zone.state(limits), zone.nodes > large);
        self.zones.iter().map(|(name, zone)| (name.clone(), of(zone))).collect()
    }
}

fn counts(node: &Node) -> bool {
    let is_excluded =
        node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED));
    condition(node, "Ready").is_some() && !is_excluded
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

    fn node(zone: &str, ready: Option<&str>, more: &[&str]) -> Node {
        let mut labels = json!({ ZONE: zone, REGION: "r" });
        more.iter().for_each(|label| labels[*label] = "".into());
        let conditions: Vec<_> =
            ready.iter().map(|status| json!({ "type": "Ready", "status": status })).collect();
        let node = json!({ "metadata": { "labels": labels },
            "status": { "conditions": conditions } });
        serde_json::from_value(node).unwrap()
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
        let mut zones = Zones::default();
        for (name, node) in [
            ("1", node("a", Some("True"), &[])),
            ("2", node("a", Some("Unknown"), &[])),
            ("3", node("a", None, &[])),
            ("4", node("b", Some("False"), &[])),
            ("5", node("b", Some("True"), &[EXCLUDED])),
        ] {
            zones.change(name, Some(&node));
        }
        assert_eq!((zones.get("r:\0:a"), zones.get("r:\0:b")), (zone(2, 1), zone(1, 1)));
        assert_eq!(zones.get("r:\0:c"), zone(0, 0));
        assert!(!zones.are_all_lost(&NodeHealth::default()));
        assert_eq!((zone(4, 1).health(), zone(0, 0).health()), (75.0, 100.0));
    }

    #[test]
    fn zones_follow_their_nodes() {
        let (limits, mut zones) = (NodeHealth::default(), Zones::default());
        let (ready, silent) = (node("a", Some("True"), &[]), node("a", Some("Unknown"), &[]));
        assert_eq!(zones.change("1", Some(&ready)), ["r:\0:a"]);
        let before = zones.outlook(&limits);
        zones.change("2", Some(&silent));
        assert_eq!(zones.get("r:\0:a"), zone(2, 1));
        assert_eq!(zones.outlook(&limits), before, "one of two is a node that fails, not a zone");
        zones.change("1", Some(&silent));
        assert!(zones.are_all_lost(&limits));
        assert_ne!(zones.outlook(&limits), before);
        zones.change("1", Some(&ready));
        let elsewhere = zones.change("2", Some(&node("b", Some("Unknown"), &[])));
        assert_eq!(elsewhere, ["r:\0:a", "r:\0:b"]);
        assert_eq!((zones.get("r:\0:a"), zones.get("r:\0:b")), (zone(1, 0), zone(1, 1)));
        zones.change("1", None);
        assert!(zones.are_all_lost(&limits), "a zone without nodes says nothing");
        assert_eq!(zones.change("1", None), [""; 0]);
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
