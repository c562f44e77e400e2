//! When a pod fits nowhere, pods of lower priority may have to go.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::decision::{FitError, passes, with_nominated};
use crate::framework::{CycleState, Plugin};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::{Budget, Snapshot};

/// Candidates looked at: at least this many and this share of the nodes, upstream's defaults.
const CANDIDATES_MIN: usize = 100;
const CANDIDATES_PERCENT: usize = 10;

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// Whom to evict for a pod.
#[derive(Clone, Debug)]
pub struct Preemption {
    /// The node that becomes free.
    pub node: String,
    /// Who has to go, the most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// Pods of lower priority that were nominated to the node and lose it.
    pub displaced: Vec<Arc<PodInfo>>,
    /// How many victims a disruption budget would protect.
    violations: usize,
}

/// Finds victims for a pod that fits nowhere and completes the error's message.
pub fn post_filter(
    plugins: &[Box<dyn Plugin>],
    snapshot: &Snapshot,
    state: &CycleState,
    pod: &PodInfo,
    error: &mut FitError,
) {
    // Upstream's DynamicResources plugin speaks first; no pod here holds claims it could give up.
    let prefix = "no new claims to deallocate, preemption: ";
    if let Some(why) = not_eligible(snapshot, pod) {
        error.post_filter = format!("{prefix}{why}");
        return;
    }
    let wanted = (error.nodes * CANDIDATES_PERCENT / 100).max(CANDIDATES_MIN);
    let mut failures: BTreeMap<Cow<'static, str>, usize> = BTreeMap::new();
    let hopeless = error.nodes - error.resolvable.len();
    if hopeless > 0 {
        failures.insert(NOT_HELPFUL.into(), hopeless);
    }
    let mut candidates = Vec::new();
    for at in &error.resolvable {
        match select_victims(plugins, snapshot, state, pod, &snapshot.nodes()[*at]) {
            Ok(candidate) => candidates.push(candidate),
            Err(reasons) => {
                for reason in reasons {
                    *failures.entry(reason).or_insert(0) += 1;
                }
            }
        }
        if candidates.len() == wanted {
            break;
        }
    }
    error.preemption = candidates.into_iter().min_by_key(cost);
    if error.preemption.is_none() {
        let nodes = error.nodes;
        let failures = FitError { nodes, reasons: failures, ..FitError::default() };
        error.post_filter = format!("{prefix}{failures}");
    }
}

fn not_eligible(snapshot: &Snapshot, pod: &PodInfo) -> Option<&'static str> {
    if pod.never_preempts {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let node = snapshot.node(&pod.nominated_node)?;
    let leaving = node.pods.values().any(|other| other.deleting && other.priority < pod.priority);
    leaving.then_some("not eligible due to a terminating pod on the nominated node.")
}

/// The fewest pods that must leave the node, or why their leaving does not help.
fn select_victims(
    plugins: &[Box<dyn Plugin>],
    snapshot: &Snapshot,
    state: &CycleState,
    pod: &PodInfo,
    node: &NodeInfo,
) -> Result<Preemption, Vec<Cow<'static, str>>> {
    let mut lower: Vec<_> =
        node.pods.values().filter(|other| other.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return Err(vec![NO_VICTIMS.into()]);
    }
    let mut trial = Trial { plugins, snapshot, state: state.clone(), pod, node: node.clone() };
    for victim in &lower {
        trial.change(|node| drop(node.remove_pod(&victim.uid)));
    }
    trial.fits().map_err(|rejection| rejection.reasons)?;
    // The most important pods are put back first, those that a budget protects before the others.
    lower.sort_by_key(|victim| (Reverse(victim.priority), started(victim)));
    let (protected, free) = split_by_budget(snapshot, &lower);
    let (mut victims, mut violations) = (Vec::new(), 0);
    for (group, protected) in [(protected, true), (free, false)] {
        for victim in group {
            trial.change(|node| node.add_pod(Arc::clone(&victim)));
            if trial.fits().is_err() {
                trial.change(|node| drop(node.remove_pod(&victim.uid)));
                violations += usize::from(protected);
                victims.push(victim);
            }
        }
    }
    victims.sort_by_key(|victim| (Reverse(victim.priority), started(victim)));
    let nominated = snapshot.nominated.get(&node.name).into_iter().flat_map(BTreeMap::values);
    let displaced = nominated.filter(|other| other.priority < pod.priority).cloned().collect();
    Ok(Preemption { node: node.name.clone(), victims, displaced, violations })
}

/// A node as it would be without some of its pods.
struct Trial<'a> {
    plugins: &'a [Box<dyn Plugin>],
    snapshot: &'a Snapshot,
    state: CycleState,
    pod: &'a PodInfo,
    node: NodeInfo,
}

impl Trial<'_> {
    fn change(&mut self, change: impl FnOnce(&mut NodeInfo)) {
        let before = self.node.clone();
        change(&mut self.node);
        for plugin in self.plugins {
            let (pod, snapshot) = (self.pod, self.snapshot);
            plugin.node_changed(&mut self.state, pod, snapshot, &before, &self.node);
        }
    }

    fn fits(&self) -> Result<(), crate::framework::Rejection> {
        let fits = |node: &NodeInfo| {
            passes(self.plugins, self.snapshot, &self.state, self.pod, node)
                .map_err(|(_, rejection)| rejection)
        };
        if let Some(with) = with_nominated(self.snapshot, self.pod, &self.node) {
            fits(&with)?;
        }
        fits(&self.node)
    }
}

/// A pod that no node has acknowledged counts as just started.
fn started(pod: &PodInfo) -> Timestamp {
    pod.started.unwrap_or(Timestamp::MAX)
}

type Pods = Vec<Arc<PodInfo>>;

/// Those whose eviction would break a disruption budget, and the others.
fn split_by_budget(snapshot: &Snapshot, pods: &Pods) -> (Pods, Pods) {
    let mut allowed: Vec<(&(String, String), &Budget, i32)> =
        snapshot.budgets.iter().map(|(key, budget)| (key, budget, budget.allowed)).collect();
    pods.iter().cloned().partition(|pod| {
        let mut violates = false;
        for ((namespace, _), budget, left) in &mut allowed {
            let concerned = *namespace == pod.key.namespace
                && !budget.selector.is_empty()
                && budget.selector.matches(|key| pod.labels.get(key).map(String::as_str))
                && !budget.disrupted.contains(&pod.key.name);
            if concerned {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

/// What is compared between candidates, the cheapest first: upstream `pickOneNodeForPreemption`.
fn cost(candidate: &Preemption) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    let victims = &candidate.victims;
    let highest = victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    // Shifted so that two victims always weigh more than one, whatever the sign.
    let sum = victims.iter().map(|v| i64::from(v.priority) + i64::from(i32::MAX) + 1).sum();
    let important = victims.iter().filter(|victim| victim.priority == highest);
    let earliest = important.map(|victim| started(victim)).min().unwrap_or(Timestamp::MAX);
    (candidate.violations, highest, sum, victims.len(), Reverse(earliest))
}
