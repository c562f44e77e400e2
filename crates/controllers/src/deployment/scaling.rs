//! How ReplicaSets are sized when `spec.replicas` changes while a roll-out is paused or under way:
//! in proportion to what they are.

use api::annotations::DEPLOYMENT_MAX_REPLICAS;
use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{Rollout, annotated, available, size};

/// The uid and the new size of every ReplicaSet whose size or annotations have to change.
pub(super) fn sizes(rollout: &Rollout) -> Vec<(Option<String>, i32)> {
    if let Some(only) = active_or_latest(rollout) {
        if size(only) == rollout.replicas() {
            return Vec::new();
        }
        return vec![(only.metadata.uid.clone(), rollout.replicas())];
    }
    if rollout.new.as_ref().is_some_and(|new| is_saturated(rollout, new)) {
        let active = rollout.old.iter().filter(|set| size(set) > 0);
        return active.map(|set| (set.metadata.uid.clone(), 0)).collect();
    }
    if rollout.is_rolling() { proportional(rollout) } else { Vec::new() }
}

/// The only ReplicaSet with pods, or when none has, the newest one.
fn active_or_latest(rollout: &Rollout) -> Option<&ReplicaSet> {
    let mut active = rollout.all().filter(|set| size(set) > 0);
    match (active.next(), active.next()) {
        (Some(only), None) => Some(only),
        (None, _) => rollout.new.as_ref().or(rollout.old.last()),
        (Some(_), Some(_)) => None,
    }
}

/// Whether the new ReplicaSet serves all by itself.
fn is_saturated(rollout: &Rollout, new: &ReplicaSet) -> bool {
    let desired = annotated(new, api::annotations::DEPLOYMENT_DESIRED_REPLICAS);
    size(new) == rollout.replicas()
        && desired == Some(rollout.replicas())
        && available(new) == rollout.replicas()
}

fn proportional(rollout: &Rollout) -> Vec<(Option<String>, i32)> {
    let mut active: Vec<&ReplicaSet> = rollout.all().filter(|set| size(set) > 0).collect();
    let total: i32 = active.iter().map(|set| size(set)).sum();
    let allowed = match rollout.replicas() {
        0 => 0,
        replicas => replicas + rollout.max_surge(),
    };
    let to_add = allowed - total;
    // Largest first; among equals the newest grows first and the oldest shrinks first.
    active.sort_by(|a, b| {
        let age = a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp);
        size(b).cmp(&size(a)).then(if to_add > 0 { age.reverse() } else { age })
    });
    let mut added = 0;
    let mut wanted: Vec<i32> = Vec::with_capacity(active.len());
    for set in &active {
        let part = if to_add == 0 { 0 } else { proportion(rollout, set, to_add, added) };
        wanted.push(size(set) + part);
        added += part;
    }
    // What rounding left over goes to the first.
    if let Some(first) = wanted.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    active.iter().zip(wanted).map(|(set, size)| (set.metadata.uid.clone(), size)).collect()
}

fn proportion(rollout: &Rollout, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    let allowed = to_add - added;
    let fraction = fraction(rollout, set);
    if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
}

/// By how much the ReplicaSet would change if it kept its share.
fn fraction(rollout: &Rollout, set: &ReplicaSet) -> i32 {
    if rollout.replicas() == 0 {
        return -size(set);
    }
    let max = i64::from(rollout.replicas() + rollout.max_surge());
    let known = annotated(set, DEPLOYMENT_MAX_REPLICAS).filter(|max| *max > 0).or_else(|| {
        // A ReplicaSet that was adopted has no annotation: the status is the best guess.
        rollout.deployment.status.as_ref().and_then(|status| status.replicas)
    });
    let before = i64::from(known.unwrap_or(0).max(1));
    let product = i64::from(size(set)) * max;
    // Rounded half away from zero, as Go rounds.
    let rounded = (2 * product + before) / (2 * before);
    i32::try_from(rounded).unwrap_or(i32::MAX) - size(set)
}
