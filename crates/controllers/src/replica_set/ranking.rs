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

/// Less means: goes first. Not placed, not running, not ready, cheap, crowded, lately ready, often
/// restarted, young.
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
        .then_with(|| {
            if !(a.ready && b.ready) {
                return Ordering::Equal;
            }
            younger_first(a.ready_changed, b.ready_changed, now, &a.uid, &b.uid)
        })
        .then_with(|| b.restarts.cmp(&a.restarts))
        .then_with(|| younger_first(Some(a.created), Some(b.created), now, &a.uid, &b.uid))
        .then_with(|| a.key.cmp(&b.key))
}

fn phase_rank(pod: &PodView) -> u8 {
    match pod.phase.as_str() {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

/// Times count by the order of magnitude of their age, and among equals the uid decides, so that
/// not always the youngest go (upstream `LogarithmicScaleDown`).
fn younger_first(
    a: Option<Timestamp>,
    b: Option<Timestamp>,
    now: Timestamp,
    a_uid: &str,
    b_uid: &str,
) -> Ordering {
    match (a, b) {
        (a, b) if a == b => Ordering::Equal,
        // A time that is not known counts as the youngest.
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        (Some(a), Some(b)) => {
            magnitude(a, now).cmp(&magnitude(b, now)).then_with(|| a_uid.cmp(b_uid))
        }
    }
}

fn magnitude(time: Timestamp, now: Timestamp) -> i64 {
    let nanos = u128::try_from(now.duration_since(time).as_nanos()).unwrap_or(0);
    if nanos == 0 { -1 } else { i64::from(nanos.ilog2()) }
}
