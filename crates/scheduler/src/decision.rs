//! The pure core: on which node should this pod run?
//!
//! Order of phases: pre-filter, filter (on as many nodes as upstream would look at), score,
//! and, when no node fits, preemption.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::framework::{CycleState, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::plugins::default_preemption::{self, Preemption};
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// Below this number of nodes all are looked at: upstream `minFeasibleNodesToFind`.
const FITTING_MIN: usize = 100;
/// And at least this share of them: upstream `minFeasibleNodesPercentageToFind`.
const FITTING_PERCENT_MIN: usize = 5;

/// What to do with a pod.
#[derive(Debug)]
pub enum Decision {
    /// Bind it.
    Bind {
        /// To this node.
        node: String,
    },
    /// It fits nowhere.
    Reject(FitError),
}

/// Why a pod fits nowhere.
#[derive(Debug, Default)]
pub struct FitError {
    /// How many nodes there are.
    pub nodes: usize,
    /// A reason that concerns all nodes at once.
    pub pre_filter: String,
    /// How many nodes gave each reason.
    pub reasons: BTreeMap<Cow<'static, str>, usize>,
    /// What preemption says.
    pub post_filter: String,
    /// Names of the plugins that rejected a node.
    pub plugins: BTreeSet<&'static str>,
    /// Positions of the nodes that others' departure could make fit.
    pub resolvable: Vec<usize>,
    /// Whom to evict, where that helps.
    pub preemption: Option<Preemption>,
}

impl std::fmt::Display for FitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if !self.pre_filter.is_empty() {
            write!(f, " {}.", self.pre_filter)?;
        } else if !self.reasons.is_empty() {
            let mut counted: Vec<_> =
                self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            counted.sort();
            write!(f, " {}.", counted.join(", "))?;
        }
        if !self.post_filter.is_empty() {
            write!(f, " {}", self.post_filter)?;
        }
        Ok(())
    }
}

/// Decides, with plugins in their order. `start` is where looking at nodes begins; it moves on so
/// that all nodes get their turn.
pub fn decide(
    plugins: &[Box<dyn Plugin>],
    snapshot: &Snapshot,
    pod: &PodInfo,
    start: &mut usize,
) -> Decision {
    let mut state = CycleState::default();
    let mut error = FitError {
        nodes: snapshot.nodes().iter().filter(|node| node.exists).count(),
        ..FitError::default()
    };
    if error.nodes == 0 {
        return Decision::Reject(error);
    }
    for plugin in plugins {
        if let Err(rejection) = plugin.pre_filter(&mut state, pod, snapshot) {
            error.pre_filter = rejection.reasons.join(", ");
            error.plugins.insert(plugin.name());
            default_preemption::post_filter(plugins, snapshot, &state, pod, &mut error);
            return Decision::Reject(error);
        }
    }
    let fitting = find_fitting(plugins, snapshot, &state, pod, start, &mut error);
    match fitting.as_slice() {
        [] => {
            default_preemption::post_filter(plugins, snapshot, &state, pod, &mut error);
            Decision::Reject(error)
        }
        [only] => Decision::Bind { node: only.name.clone() },
        _ => Decision::Bind { node: best(plugins, snapshot, &mut state, pod, &fitting) },
    }
}

/// Whether the pod passes every filter on the node as it is given.
pub fn passes(
    plugins: &[Box<dyn Plugin>],
    snapshot: &Snapshot,
    state: &CycleState,
    pod: &PodInfo,
    node: &NodeInfo,
) -> Result<(), (&'static str, Rejection)> {
    for plugin in plugins {
        plugin
            .filter(state, pod, node, snapshot)
            .map_err(|rejection| (plugin.name(), rejection))?;
    }
    Ok(())
}

/// The node with the pods that were nominated to it and come before `pod`.
pub fn with_nominated(snapshot: &Snapshot, pod: &PodInfo, node: &NodeInfo) -> Option<NodeInfo> {
    let nominated = snapshot.nominated.get(&node.name)?;
    let mut first = nominated
        .values()
        .filter(|other| other.uid != pod.uid && other.priority >= pod.priority)
        .peekable();
    first.peek()?;
    let mut with = node.clone();
    for other in first {
        with.add_pod(std::sync::Arc::clone(other));
    }
    Some(with)
}

/// How many fitting nodes are enough: upstream `numFeasibleNodesToFind` with the adaptive
/// percentage.
fn enough(nodes: usize) -> usize {
    if nodes < FITTING_MIN {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(FITTING_PERCENT_MIN);
    (nodes * percent / 100).max(FITTING_MIN)
}

fn find_fitting<'a>(
    plugins: &[Box<dyn Plugin>],
    snapshot: &'a Snapshot,
    state: &CycleState,
    pod: &PodInfo,
    start: &mut usize,
    error: &mut FitError,
) -> Vec<&'a NodeInfo> {
    let nodes = snapshot.nodes();
    let fits = |at: usize, error: &mut FitError| {
        let node = &nodes[at];
        let with = with_nominated(snapshot, pod, node);
        let verdict = with
            .map_or(Ok(()), |with| passes(plugins, snapshot, state, pod, &with))
            .and_then(|()| passes(plugins, snapshot, state, pod, node));
        let Err((plugin, rejection)) = verdict else { return true };
        error.plugins.insert(plugin);
        if rejection.resolvable {
            error.resolvable.push(at);
        }
        for reason in rejection.reasons {
            *error.reasons.entry(reason).or_insert(0) += 1;
        }
        false
    };
    // The node that victims were asked to leave comes first.
    if let Some(at) = snapshot.position(&pod.nominated_node).filter(|at| nodes[*at].exists)
        && fits(at, &mut FitError::default())
    {
        return vec![&nodes[at]];
    }
    let wanted = enough(error.nodes);
    let mut fitting = Vec::with_capacity(wanted.min(nodes.len()));
    let begin = *start % nodes.len();
    for step in 0..nodes.len() {
        let at = (begin + step) % nodes.len();
        if nodes[at].exists && fits(at, error) {
            fitting.push(&nodes[at]);
            if fitting.len() == wanted {
                *start = at + 1;
                break;
            }
        }
    }
    fitting
}

fn best(
    plugins: &[Box<dyn Plugin>],
    snapshot: &Snapshot,
    state: &mut CycleState,
    pod: &PodInfo,
    fitting: &[&NodeInfo],
) -> String {
    let mut totals = vec![0_i64; fitting.len()];
    for plugin in plugins {
        if !plugin.pre_score(state, pod, snapshot, fitting) {
            continue;
        }
        let mut scores: Vec<i64> =
            fitting.iter().map(|node| plugin.score(state, pod, node)).collect();
        plugin.normalize(state, fitting, &mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * plugin.weight();
        }
    }
    // Among equals the first one wins; since looking starts elsewhere every time, that is fair.
    let mut best = 0;
    for at in 1..totals.len() {
        if totals[at] > totals[best] {
            best = at;
        }
    }
    fitting[best].name.clone()
}

#[cfg(test)]
mod tests;
