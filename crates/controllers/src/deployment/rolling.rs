//! How large each ReplicaSet may be at the next step of a rolling update.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{Rollout, available, size};

/// The size that the new ReplicaSet should have, if that is not its size: as large as the surge
/// lets it be.
pub(super) fn new_size(rollout: &Rollout) -> Option<i32> {
    let new = rollout.new.as_ref()?;
    let wanted = match size(new).cmp(&rollout.replicas()) {
        std::cmp::Ordering::Equal => return None,
        std::cmp::Ordering::Greater => rollout.replicas(),
        std::cmp::Ordering::Less => first_size(rollout, size(new)),
    };
    (wanted != size(new)).then_some(wanted)
}

/// The size of a new ReplicaSet that has `current` pods.
pub(super) fn first_size(rollout: &Rollout, current: i32) -> i32 {
    if !rollout.is_rolling() {
        return rollout.replicas();
    }
    let max = rollout.replicas() + rollout.max_surge();
    let total: i32 = rollout.all().map(size).sum();
    if total >= max {
        return current;
    }
    current + (max - total).min(rollout.replicas() - current)
}

/// New sizes of old ReplicaSets, by position: first those pods go that do not serve, then as many
/// of the others as availability allows.
pub(super) fn old_sizes(rollout: &Rollout) -> Vec<(usize, i32)> {
    let old_total: i32 = rollout.old.iter().map(size).sum();
    if old_total == 0 {
        return Vec::new();
    }
    let total: i32 = rollout.all().map(size).sum();
    let available_min = rollout.replicas() - rollout.max_unavailable();
    let new_unavailable = rollout.new.as_ref().map_or(0, |new| size(new) - serving(new));
    let removable = total - available_min - new_unavailable;
    if removable <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = rollout.old.iter().map(size).collect();
    remove_unhealthy(rollout, &mut sizes, removable);
    remove_healthy(rollout, &mut sizes, available_min);
    let before = rollout.old.iter().map(size);
    let changed = sizes.into_iter().zip(before).enumerate();
    changed
        .filter(|(_, (after, before))| after != before)
        .map(|(at, (size, _))| (at, size))
        .collect()
}

/// How many available pods a ReplicaSet has that stay: its status may be older than its size, and
/// count pods that are going already.
fn serving(set: &ReplicaSet) -> i32 {
    available(set).min(size(set))
}

fn remove_unhealthy(rollout: &Rollout, sizes: &mut [i32], removable: i32) {
    let mut left = removable;
    for (set, size) in rollout.old.iter().zip(sizes) {
        let count = left.min(*size - serving(set)).max(0);
        *size -= count;
        left -= count;
    }
}

fn remove_healthy(rollout: &Rollout, sizes: &mut [i32], available_min: i32) {
    let available: i32 = rollout.all().map(serving).sum();
    let mut left = available - available_min;
    for size in sizes {
        let count = left.min(*size).max(0);
        *size -= count;
        left -= count;
    }
}
