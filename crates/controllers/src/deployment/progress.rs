//! Status and conditions of a Deployment.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    DeploymentCondition, DeploymentStatus, ReplicaSetCondition, ReplicaSetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Rollout;

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Reason of a roll-out that has ended well.
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
/// Reason of one that makes no progress.
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
/// Upstream's value for "no deadline".
const NO_DEADLINE: i32 = i32::MAX;

/// Counts, and the Available condition.
pub(super) fn counts(rollout: &Rollout, now: Timestamp) -> DeploymentStatus {
    let statuses = || rollout.all().filter_map(|set| set.status.as_ref());
    let sum =
        |field: fn(&ReplicaSetStatus) -> Option<i32>| -> i32 { statuses().filter_map(field).sum() };
    let total_available = sum(|status| status.available_replicas);
    let total: i32 = rollout.all().map(super::size).sum();
    let present = rollout.deployment.status.clone().unwrap_or_default();
    let some = |number: i32| (number > 0).then_some(number);
    let updated = rollout.new.as_ref().and_then(|new| new.status.as_ref());
    let mut status = DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: some(sum(|status| Some(status.replicas))),
        updated_replicas: updated.and_then(|status| some(status.replicas)),
        ready_replicas: some(sum(|status| status.ready_replicas)),
        available_replicas: some(total_available),
        unavailable_replicas: some(total - total_available),
        terminating_replicas: Some(sum(|status| status.terminating_replicas)),
        collision_count: present.collision_count,
        conditions: present.conditions,
    };
    let enough = total_available >= rollout.replicas() - rollout.max_unavailable();
    let (word, reason, text) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, AVAILABLE, word, reason, text.to_owned(), now);
    status
}

/// Counts and all conditions, as a roll-out that goes on has them.
pub(super) fn rollout_status(rollout: &Rollout, now: Timestamp) -> DeploymentStatus {
    let mut status = counts(rollout, now);
    let before = rollout.deployment.status.clone().unwrap_or_default();
    let reason = find(&before, PROGRESSING).and_then(|condition| condition.reason.clone());
    let settled =
        status.replicas == status.updated_replicas && reason.as_deref() == Some(NEW_AVAILABLE);
    if deadline(rollout).is_some() && !settled {
        let name = match &rollout.new {
            Some(new) => format!("ReplicaSet {:?}", new.metadata.name.as_deref().unwrap_or("")),
            None => {
                let name = rollout.deployment.metadata.name.as_deref().unwrap_or_default();
                format!("Deployment {name:?}")
            }
        };
        if is_complete(rollout, Some(&status)) {
            let text = format!("{name} has successfully progressed.");
            set(&mut status, PROGRESSING, "True", NEW_AVAILABLE, text, now);
        } else if progressed(&before, &status) {
            let text = format!("{name} is progressing.");
            touch(&mut status, "ReplicaSetUpdated", text, now);
        } else if timed_out(rollout, &before, &status, now) {
            let text = format!("{name} has timed out progressing.");
            set(&mut status, PROGRESSING, "False", TIMED_OUT, text, now);
        }
    }
    match replica_failure(rollout) {
        Some(failure) => {
            let (reason, text) = (failure.reason.clone(), failure.message.clone());
            let (reason, text) = (reason.unwrap_or_default(), text.unwrap_or_default());
            set(&mut status, REPLICA_FAILURE, &failure.status, &reason, text, now);
        }
        None => remove(&mut status, REPLICA_FAILURE),
    }
    status
}

/// Whether all pods are new and available and nothing is left of the old.
pub(super) fn is_complete(rollout: &Rollout, status: Option<&DeploymentStatus>) -> bool {
    let Some(status) = status else { return false };
    let wanted = rollout.replicas();
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= rollout.deployment.metadata.generation
}

/// How long until the roll-out is late, if it can be.
pub(super) fn time_to_deadline(
    rollout: &Rollout,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let deadline = deadline(rollout)?;
    let condition = find(status, PROGRESSING)?;
    if is_complete(rollout, Some(status))
        || matches!(condition.reason.as_deref(), Some(TIMED_OUT | NEW_AVAILABLE))
    {
        return None;
    }
    let since = condition.last_update_time.as_ref()?.0;
    Some(Duration::try_from((since + deadline).duration_since(now)).unwrap_or_default())
}

/// Sets a condition unless status and reason are the same already.
pub(super) fn set(
    status: &mut DeploymentStatus,
    kind: &str,
    word: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let present = find(status, kind);
    if present.is_some_and(|c| c.status == word && c.reason.as_deref() == Some(reason)) {
        return;
    }
    let kept = present.filter(|c| c.status == word).and_then(|c| c.last_transition_time.clone());
    put(status, kind, word, reason, message, kept.unwrap_or(Time(now)), now);
}

/// A condition of the status.
pub(super) fn find<'a>(
    status: &'a DeploymentStatus,
    kind: &str,
) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Progress is news each time: the time of update moves even when the reason stays.
fn touch(status: &mut DeploymentStatus, reason: &str, message: String, now: Timestamp) {
    let present = find(status, PROGRESSING);
    let kept = present.filter(|c| c.status == "True").and_then(|c| c.last_transition_time.clone());
    put(status, PROGRESSING, "True", reason, message, kept.unwrap_or(Time(now)), now);
}

fn put(
    status: &mut DeploymentStatus,
    kind: &str,
    word: &str,
    reason: &str,
    message: String,
    transition: Time,
    now: Timestamp,
) {
    remove(status, kind);
    status.conditions.get_or_insert_default().push(DeploymentCondition {
        type_: kind.to_owned(),
        status: word.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(transition),
    });
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != kind);
    }
}

/// How long a roll-out may make no progress, if there is a limit.
pub(super) fn deadline(rollout: &Rollout) -> Option<jiff::SignedDuration> {
    let seconds = rollout.spec().progress_deadline_seconds.filter(|s| *s != NO_DEADLINE)?;
    Some(jiff::SignedDuration::from_secs(seconds.into()))
}

fn progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let number = |field: Option<i32>| field.unwrap_or(0);
    let old = |s: &DeploymentStatus| number(s.replicas) - number(s.updated_replicas);
    number(after.updated_replicas) > number(before.updated_replicas)
        || old(after) < old(before)
        || number(after.ready_replicas) > number(before.ready_replicas)
        || number(after.available_replicas) > number(before.available_replicas)
}

fn timed_out(
    rollout: &Rollout,
    before: &DeploymentStatus,
    after: &DeploymentStatus,
    now: Timestamp,
) -> bool {
    let (Some(deadline), Some(condition)) = (deadline(rollout), find(after, PROGRESSING)) else {
        return false;
    };
    match condition.reason.as_deref() {
        Some(NEW_AVAILABLE) => return false,
        Some(TIMED_OUT) => return true,
        _ => {}
    }
    let since = find(before, PROGRESSING).and_then(|c| c.last_update_time.as_ref());
    since.is_some_and(|since| since.0 + deadline < now)
}

/// The failure of the new ReplicaSet, or of an old one.
fn replica_failure(rollout: &Rollout) -> Option<&ReplicaSetCondition> {
    let sets = rollout.new.iter().chain(&rollout.old);
    let statuses = sets.filter_map(|set| set.status.as_ref());
    let mut conditions = statuses.flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == REPLICA_FAILURE)
}
