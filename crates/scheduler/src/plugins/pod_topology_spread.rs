//! Pods of one kind are spread evenly over domains.

use std::collections::{BTreeMap, HashMap};

use api::labels;
use meta::LabelSelector;

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection, SCORE_MAX};
use crate::node_info::NodeInfo;
use crate::plugins::{node_affinity, taint_toleration};
use crate::pod_info::{PodInfo, SpreadConstraint};
use crate::snapshot::Snapshot;
use crate::verdicts::{Verdicts, selects};

/// Filters by required constraints, scores by the others or, for pods without any, by upstream's
/// defaults: at most 3 apart per host and 5 per zone.
pub struct PodTopologySpread;

/// What filters read of each required constraint, in their order.
#[derive(Clone)]
struct Counted {
    constraints: Vec<Domains>,
}

#[derive(Clone, Default)]
struct Domains {
    /// Matching pods in each.
    counts: BTreeMap<String, i64>,
    /// In the emptiest, or 0 when there are too few of them.
    least: i64,
    /// 1 if the pod itself matches.
    own: i64,
    verdicts: Verdicts,
}

/// What scores are made of.
struct Scored {
    constraints: Vec<SpreadConstraint>,
    /// Matching pods per domain; a host's under the name of its node.
    domains: Vec<HashMap<String, i64>>,
    weights: Vec<f64>,
    /// Whether a node without one of the labels gets no score.
    all_labels_needed: bool,
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
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
        let constraints = required(pod);
        if constraints.is_empty() {
            return Ok(());
        }
        let domains = constraints.iter().map(|constraint| Domains {
            own: selects(&constraint.selector, &pod.labels).into(),
            ..Domains::default()
        });
        let mut counted = Counted { constraints: domains.collect() };
        for node in snapshot.nodes().iter().filter(|node| node.exists) {
            count(&mut counted, &constraints, pod, node, 1);
        }
        find_least(&mut counted, &constraints);
        state.write(counted);
        Ok(())
    }

    fn filter(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
        _: &Snapshot,
    ) -> Result<(), Rejection> {
        let Some(counted) = state.read::<Counted>() else { return Ok(()) };
        let required = pod.spread.iter().filter(|constraint| constraint.required);
        for (constraint, domains) in required.zip(&counted.constraints) {
            let Some(domain) = node.label(&constraint.topology_key) else {
                return Err(Rejection::unresolvable(
                    "node(s) didn't match pod topology spread constraints \
                     (missing required label)",
                ));
            };
            let here = domains.counts.get(domain).copied().unwrap_or(0);
            if here + domains.own - domains.least > constraint.max_skew {
                return Err(Rejection::resolvable(
                    "node(s) didn't match pod topology spread constraints",
                ));
            }
        }
        Ok(())
    }

    fn node_changed(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
        before: &NodeInfo,
        after: &NodeInfo,
    ) {
        let constraints = required(pod);
        state.update::<Counted>(|counted| {
            count(counted, &constraints, pod, before, -1);
            count(counted, &constraints, pod, after, 1);
            find_least(counted, &constraints);
        });
    }

    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        fitting: &[&NodeInfo],
    ) -> bool {
        let preferred: Vec<_> = pod.spread.iter().filter(|c| !c.required).cloned().collect();
        let defaults = pod.spread.is_empty();
        let constraints = if defaults { default_constraints(pod, snapshot) } else { preferred };
        if constraints.is_empty() {
            return false;
        }
        let mut scored = Scored {
            domains: vec![HashMap::new(); constraints.len()],
            weights: Vec::new(),
            all_labels_needed: !defaults,
            constraints,
        };
        prepare(&mut scored, pod, snapshot, fitting);
        state.write(scored);
        true
    }

    #[expect(clippy::cast_possible_truncation, reason = "a rounded score is far below 2^63")]
    #[expect(clippy::cast_precision_loss, reason = "counts of pods are far below 2^52")]
    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(scored) = state.read::<Scored>() else { return 0 };
        if scored.is_ignored(node) {
            return IGNORED;
        }
        let mut sum = 0.0;
        for (at, constraint) in scored.constraints.iter().enumerate() {
            let Some(domain) = node.label(&constraint.topology_key) else { continue };
            let is_host = constraint.topology_key == labels::HOSTNAME;
            let domain = if is_host { &node.name } else { domain };
            let count = scored.domains[at].get(domain).copied().unwrap_or(0);
            sum += count as f64 * scored.weights[at] + (constraint.max_skew - 1) as f64;
        }
        f64::round(sum) as i64
    }

    fn normalize(&self, _: &CycleState, _: &[&NodeInfo], scores: &mut [i64]) {
        let counted = scores.iter().copied().filter(|score| *score != IGNORED);
        let (min, max) = counted.fold((i64::MAX, 0), |(min, max), s| (min.min(s), max.max(s)));
        for score in scores {
            *score = match *score {
                IGNORED => 0,
                _ if max == 0 => SCORE_MAX,
                score => SCORE_MAX * (max + min - score) / max,
            };
        }
    }

    fn may_help(&self, _: ClusterEvent) -> bool {
        true
    }
}

/// The score of a node that lacks a label of a constraint.
const IGNORED: i64 = -1;

impl Scored {
    fn is_ignored(&self, node: &NodeInfo) -> bool {
        self.all_labels_needed
            && self.constraints.iter().any(|c| node.label(&c.topology_key).is_none())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of domains are far below 2^52")]
fn prepare(scored: &mut Scored, pod: &PodInfo, snapshot: &Snapshot, fitting: &[&NodeInfo]) {
    let counted_nodes = fitting.iter().filter(|node| !scored.is_ignored(node)).count();
    let (mut asked, mut verdicts) = (None, Verdicts::default());
    for (at, constraint) in scored.constraints.iter().enumerate() {
        let key = &constraint.topology_key;
        let domains = &mut scored.domains[at];
        // The default constraints share their selector.
        if asked.replace(&constraint.selector) != Some(&constraint.selector) {
            verdicts = Verdicts::default();
        }
        let size = if key == labels::HOSTNAME {
            counted_nodes
        } else {
            for domain in fitting.iter().filter_map(|node| node.label(key)) {
                domains.entry(domain.to_owned()).or_insert(0);
            }
            domains.len()
        };
        // A domain among many weighs more: upstream's topologyNormalizingWeight.
        scored.weights.push((size as f64 + 2.0).ln());
        if key == labels::HOSTNAME {
            for node in fitting {
                let count = matching(&mut verdicts, constraint, pod, node);
                domains.insert(node.name.clone(), count);
            }
            continue;
        }
        if domains.is_empty() {
            continue;
        }
        for node in snapshot.nodes().iter().filter(|node| node.exists) {
            if let Some(count) = node.label(key).and_then(|domain| domains.get_mut(domain))
                && is_counted(constraint, pod, node)
            {
                *count += matching(&mut verdicts, constraint, pod, node);
            }
        }
    }
}

fn required(pod: &PodInfo) -> Vec<&SpreadConstraint> {
    pod.spread.iter().filter(|constraint| constraint.required).collect()
}

fn count(
    counted: &mut Counted,
    constraints: &[&SpreadConstraint],
    pod: &PodInfo,
    node: &NodeInfo,
    sign: i64,
) {
    // A node that lacks the label of one constraint counts for none.
    if constraints.iter().any(|constraint| node.label(&constraint.topology_key).is_none()) {
        return;
    }
    for (constraint, domains) in constraints.iter().zip(&mut counted.constraints) {
        let Some(domain) = node.label(&constraint.topology_key) else { continue };
        if is_counted(constraint, pod, node) {
            let matching = matching(&mut domains.verdicts, constraint, pod, node);
            *domains.counts.entry(domain.to_owned()).or_insert(0) += sign * matching;
        }
    }
}

fn find_least(counted: &mut Counted, constraints: &[&SpreadConstraint]) {
    for (constraint, domains) in constraints.iter().zip(&mut counted.constraints) {
        let found = i64::try_from(domains.counts.len()).unwrap_or(i64::MAX);
        let least = domains.counts.values().copied().min().unwrap_or(0);
        domains.least = if found < constraint.min_domains { 0 } else { least };
    }
}

fn is_counted(constraint: &SpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    (!constraint.honor_affinity || node_affinity::admits(pod, node))
        && (!constraint.honor_taints || taint_toleration::tolerates_hard_taints(pod, node))
}

fn matching(
    verdicts: &mut Verdicts,
    constraint: &SpreadConstraint,
    pod: &PodInfo,
    node: &NodeInfo,
) -> i64 {
    verdicts.count(&constraint.selector, &pod.key.namespace, &node.groups)
}

/// Upstream's `systemDefaultConstraints`, for pods that a service or a workload selects.
fn default_constraints(pod: &PodInfo, snapshot: &Snapshot) -> Vec<SpreadConstraint> {
    let Some(selector) = default_selector(pod, snapshot) else { return Vec::new() };
    [(labels::HOSTNAME, 3), (labels::ZONE, 5)]
        .into_iter()
        .map(|(topology_key, max_skew)| SpreadConstraint {
            max_skew,
            topology_key: topology_key.to_owned(),
            required: false,
            selector: selector.clone(),
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
        })
        .collect()
}

/// What all services that select the pod, and its workload, select together.
fn default_selector(pod: &PodInfo, snapshot: &Snapshot) -> Option<LabelSelector> {
    let namespace = &pod.key.namespace;
    let services = snapshot
        .services
        .range((namespace.clone(), String::new())..)
        .take_while(|((other, _), _)| other == namespace)
        .map(|(_, selector)| selector)
        .filter(|selector| selects(selector, &pod.labels));
    let workload = pod.controller.as_ref().and_then(|uid| snapshot.workloads.get(uid));
    let texts: Vec<String> =
        services.chain(workload).filter(|s| !s.is_empty()).map(ToString::to_string).collect();
    if texts.is_empty() { None } else { LabelSelector::parse(&texts.join(",")).ok() }
}
