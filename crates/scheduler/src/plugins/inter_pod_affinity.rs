//! Pods that want to be near, or not near, other pods.

use std::collections::HashMap;

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection, SCORE_MAX};
use crate::node_info::NodeInfo;
use crate::pod_info::{AffinityTerm, PodInfo};
use crate::snapshot::Snapshot;

/// Filters by required terms, of the pod and of those that are placed, and scores by preferences.
pub struct InterPodAffinity;

/// Weight of a placed pod's required affinity in scores: upstream's default.
const HARD_WEIGHT: i64 = 1;

/// A domain: topology key and value.
type Domain = (String, String);

/// How many pods match in each domain.
#[derive(Clone, Default)]
struct Matches {
    /// Placed pods that must not be near this one.
    existing_anti: HashMap<Domain, i64>,
    /// Placed pods that match all terms this one requires.
    affinity: HashMap<Domain, i64>,
    /// Placed pods that this one must not be near.
    anti: HashMap<Domain, i64>,
}

/// Sum of weights in each domain.
#[derive(Default)]
struct Preferences(HashMap<Domain, i64>);

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<(), Rejection> {
        let mut matches = Matches::default();
        for node in snapshot.nodes().iter().filter(|node| node.exists) {
            matches.count(pod, node, snapshot, 1);
        }
        let wants = !pod.affinity.required.is_empty() || !pod.affinity.anti_required.is_empty();
        if wants || !matches.existing_anti.is_empty() {
            state.write(matches);
        }
        Ok(())
    }

    fn filter(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
        _: &Snapshot,
    ) -> Result<(), Rejection> {
        let Some(matches) = state.read::<Matches>() else { return Ok(()) };
        if !matches.affinity_holds(pod, node) {
            return Err(Rejection::unresolvable("node(s) didn't match pod affinity rules"));
        }
        let anti = |term: &AffinityTerm| at(&matches.anti, &term.topology_key, node) > 0;
        if pod.affinity.anti_required.iter().any(anti) {
            return Err(Rejection::resolvable("node(s) didn't match pod anti-affinity rules"));
        }
        let existing = &matches.existing_anti;
        let refused = existing
            .iter()
            .any(|((key, value), count)| *count > 0 && node.label(key) == Some(value.as_str()));
        if refused {
            return Err(Rejection::resolvable(
                "node(s) didn't satisfy existing pods anti-affinity rules",
            ));
        }
        Ok(())
    }

    fn node_changed(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        before: &NodeInfo,
        after: &NodeInfo,
    ) {
        state.update::<Matches>(|matches| {
            matches.count(pod, before, snapshot, -1);
            matches.count(pod, after, snapshot, 1);
        });
    }

    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        _: &[&NodeInfo],
    ) -> bool {
        let prefers = !pod.affinity.preferred.is_empty() || !pod.affinity.anti_preferred.is_empty();
        let mut preferences = Preferences::default();
        for node in snapshot.nodes().iter().filter(|node| node.exists) {
            if prefers || node.pods_with_affinity > 0 {
                preferences.sum(pod, node, snapshot);
            }
        }
        let useful = !preferences.0.is_empty();
        state.write(preferences);
        useful
    }

    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(Preferences(sums)) = state.read() else { return 0 };
        sums.iter()
            .filter(|((key, value), _)| node.label(key) == Some(value.as_str()))
            .map(|(_, weight)| weight)
            .sum()
    }

    fn normalize(&self, _: &CycleState, _: &[&NodeInfo], scores: &mut [i64]) {
        let min = scores.iter().copied().min().unwrap_or(0);
        let max = scores.iter().copied().max().unwrap_or(0);
        for score in scores {
            *score = if max > min { SCORE_MAX * (*score - min) / (max - min) } else { 0 };
        }
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        !matches!(event, ClusterEvent::NodeAllocatable | ClusterEvent::NodeTaints)
    }
}

fn at(counts: &HashMap<Domain, i64>, key: &str, node: &NodeInfo) -> i64 {
    let Some(value) = node.label(key) else { return 0 };
    counts.get(&(key.to_owned(), value.to_owned())).copied().unwrap_or(0)
}

fn bump(counts: &mut HashMap<Domain, i64>, key: &str, node: &NodeInfo, by: i64) {
    if let Some(value) = node.label(key) {
        let domain = (key.to_owned(), value.to_owned());
        let count = counts.entry(domain.clone()).or_insert(0);
        *count += by;
        if *count == 0 {
            counts.remove(&domain);
        }
    }
}

impl Matches {
    fn count(&mut self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot, sign: i64) {
        let namespaces = &snapshot.namespaces;
        if node.pods_with_affinity > 0 {
            for other in node.pods.values() {
                for term in &other.affinity.anti_required {
                    if term.matches(pod, namespaces) {
                        bump(&mut self.existing_anti, &term.topology_key, node, sign);
                    }
                }
            }
        }
        let (near, far) = (&pod.affinity.required, &pod.affinity.anti_required);
        if near.is_empty() && far.is_empty() {
            return;
        }
        for other in node.pods.values().filter(|other| !other.deleting) {
            if !near.is_empty() && near.iter().all(|term| term.matches(other, namespaces)) {
                for term in near {
                    bump(&mut self.affinity, &term.topology_key, node, sign);
                }
            }
        }
        for other in node.pods.values() {
            for term in far.iter().filter(|term| term.matches(other, namespaces)) {
                bump(&mut self.anti, &term.topology_key, node, sign);
            }
        }
    }

    /// The first pod of a group that wants to be near itself may go anywhere.
    fn affinity_holds(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let terms = &pod.affinity.required;
        if terms.iter().any(|term| node.label(&term.topology_key).is_none()) {
            return false;
        }
        if terms.iter().all(|term| at(&self.affinity, &term.topology_key, node) > 0) {
            return true;
        }
        let own = |term: &AffinityTerm| {
            let namespaces = std::collections::BTreeMap::new();
            let everywhere = term.namespace_selector.is_empty();
            term.matches(pod, &namespaces)
                || (everywhere && term.selector.matches(|k| pod.labels.get(k).map(String::as_str)))
        };
        self.affinity.is_empty() && terms.iter().all(own)
    }
}

impl Preferences {
    fn sum(&mut self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) {
        let namespaces = &snapshot.namespaces;
        for other in node.pods.values() {
            let wishes = [(&pod.affinity.preferred, 1), (&pod.affinity.anti_preferred, -1)];
            for (terms, sign) in wishes {
                for term in terms.iter().filter(|term| term.matches(other, namespaces)) {
                    let weight = i64::from(term.weight) * sign;
                    bump(&mut self.0, &term.topology_key, node, weight);
                }
            }
            if other.affinity.is_empty() {
                continue;
            }
            for term in other.affinity.required.iter().filter(|t| t.matches(pod, namespaces)) {
                bump(&mut self.0, &term.topology_key, node, HARD_WEIGHT);
            }
            let wishes = [(&other.affinity.preferred, 1), (&other.affinity.anti_preferred, -1)];
            for (terms, sign) in wishes {
                for term in terms.iter().filter(|term| term.matches(pod, namespaces)) {
                    let weight = i64::from(term.weight) * sign;
                    bump(&mut self.0, &term.topology_key, node, weight);
                }
            }
        }
    }
}
