//! The status of a set: counts, and whether pods could not be made.

use std::sync::Arc;

use client::{Client, ClientError};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::ReplicationControllerStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{Kind, Replicas};
use crate::pod_view::PodView;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Why pods could not be created or deleted.
pub(super) struct Failure {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// The status as it should be.
pub(super) fn compute(
    set: &Replicas,
    active: &[Arc<PodView>],
    terminating: usize,
    failure: Option<Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let labels = set.template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    let fully_labeled = |pod: &&Arc<PodView>| {
        labels.into_iter().flatten().all(|(key, value)| pod.labels.get(key) == Some(value))
    };
    let available = |pod: &&Arc<PodView>| pod.is_available(set.min_ready_seconds, now);
    let is_replica_set = set.owner.kind == "ReplicaSet";
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: some(active.iter().filter(fully_labeled).count()),
        ready_replicas: some(active.iter().filter(|pod| pod.ready).count()),
        available_replicas: some(active.iter().filter(available).count()),
        terminating_replicas: is_replica_set.then(|| count(terminating)),
        observed_generation: Some(set.generation),
        conditions: conditions(set, failure, now),
    }
}

fn conditions(
    set: &Replicas,
    failure: Option<Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = set.status.conditions.clone().unwrap_or_default();
    let present = conditions.iter().position(|condition| condition.type_ == REPLICA_FAILURE);
    match (failure, present) {
        (None, Some(at)) => drop(conditions.remove(at)),
        (None, None) => {}
        // The first failure stays until it is over, so that its text does not flicker.
        (Some(_), Some(_)) => {}
        (Some(failure), None) => conditions.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message),
            last_transition_time: Some(Time(now)),
        }),
    }
    (!conditions.is_empty()).then_some(conditions)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Zero is left out, as upstream's `omitempty` does.
fn some(number: usize) -> Option<i32> {
    (number > 0).then(|| count(number))
}

/// Writes the status if it changed.
pub(super) async fn write<K: Kind>(
    client: &Client,
    known_set: &K,
    set: &Replicas,
    status: ReplicaSetStatus,
) -> Result<Option<String>, ClientError> {
    let mut known = set.status.clone();
    for number in [
        &mut known.fully_labeled_replicas,
        &mut known.ready_replicas,
        &mut known.available_replicas,
    ] {
        *number = number.filter(|number| *number > 0);
    }
    known.conditions = known.conditions.filter(|conditions| !conditions.is_empty());
    if known == status {
        return Ok(None);
    }
    let key = &set.owner.key;
    let mut body = json!({
        "replicas": status.replicas,
        "fullyLabeledReplicas": status.fully_labeled_replicas,
        "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas,
        "observedGeneration": status.observed_generation,
        "conditions": status.conditions,
    });
    if let Some(terminating) = status.terminating_replicas {
        body["terminatingReplicas"] = terminating.into();
    }
    let change = json!({ "status": body });
    match client.api::<K>(&key.namespace).merge_known(known_set, "status", &change).await {
        Ok(written) => Ok(written.metadata().resource_version.clone()),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same fields under the other kind's type.
pub(super) fn of_replication_controller(status: ReplicationControllerStatus) -> ReplicaSetStatus {
    let conditions = status.conditions.map(|conditions| {
        let convert = |condition: k8s_openapi::api::core::v1::ReplicationControllerCondition| {
            ReplicaSetCondition {
                type_: condition.type_,
                status: condition.status,
                reason: condition.reason,
                message: condition.message,
                last_transition_time: condition.last_transition_time,
            }
        };
        conditions.into_iter().map(convert).collect()
    });
    ReplicaSetStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        observed_generation: status.observed_generation,
        terminating_replicas: None,
        conditions,
    }
}
