//! Which pods of a set go first: upstream `ActivePodsWithRanks`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::pod_view::PodView;

/// The `count` pods that are missed least.
pub(super) fn least_wanted(
    active: &[Arc<PodView>],
    on_node: &BTreeMap<String, usize>,
    count: usize,
    now: Timestamp,
) -> Vec<Arc<PodView>> {
    let mut pods = active.to_vec();
    pods.sort_by(|a, b| compare(a, b, on_node, now));
    pods.truncate(count);
    pods
}

/// How many times as old as the youngest ready pod the ready ones of the victims are, in whole
/// numbers as upstream has it.
pub(super) fn age_ratios(
    active: &[Arc<PodView>],
    victims: &[Arc<PodView>],
    now: Timestamp,
) -> Vec<f64> {
    let age = |pod: &PodView| now.duration_since(pod.created).as_millis();
    let youngest = active.iter().filter(|pod| pod.ready).map(|pod| age(pod)).min();
    let ratio = |pod: &Arc<PodView>| {
        let ratio = age(pod).checked_div(youngest?)?;
        Some(f64::from(u32::try_from(ratio).unwrap_or(u32::MAX)))
    };
    victims.iter().filter(|pod| pod.ready).filter_map(ratio).collect()
}

/// Less means: goes first. Not placed, not running, not ready, cheap, crowded, lately ready, often
/// restarted, young.
///
/// Times count by the order of magnitude of their age, and at the end the uid decides, so that not
/// always the youngest go (upstream `LogarithmicScaleDown`). Upstream asks the uid as soon as two
/// times of one magnitude differ, and goes on to the restarts when they are the same; that is no
/// order of three pods.
fn compare(
    a: &PodView,
    b: &PodView,
    on_node: &BTreeMap<String, usize>,
    now: Timestamp,
) -> Ordering {
    let crowd = |pod: &PodView| on_node.get(&pod.node).copied().unwrap_or(0);
    let placed = |pod: &PodView| !pod.node.is_empty();
    placed(a)
        .cmp(&placed(b))
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| a.ready.cmp(&b.ready))
        .then_with(|| a.deletion_cost().cmp(&b.deletion_cost()))
        .then_with(|| crowd(b).cmp(&crowd(a)))
        .then_with(|| ready_magnitude(a, now).cmp(&ready_magnitude(b, now)))
        .then_with(|| b.restarts.cmp(&a.restarts))
        .then_with(|| magnitude(a.created, now).cmp(&magnitude(b.created, now)))
        .then_with(|| a.uid.cmp(&b.uid))
        .then_with(|| a.key.cmp(&b.key))
}

fn phase_rank(pod: &PodView) -> u8 {
    match pod.phase {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

/// How long a pod has been ready. One whose time is not known counts as the youngest, and those
/// that are not ready are all the same.
fn ready_magnitude(pod: &PodView, now: Timestamp) -> Option<i64> {
    pod.ready_changed.filter(|_| pod.ready).map(|since| magnitude(since, now))
}

fn magnitude(time: Timestamp, now: Timestamp) -> i64 {
    let nanos = u128::try_from(now.duration_since(time).as_nanos()).unwrap_or(0);
    if nanos == 0 { -1 } else { i64::from(nanos.ilog2()) }
}
