//! Evicts pods from nodes with NoExecute taints that they do not tolerate, or no longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::taints::NO_EXECUTE;
use client::Patch;
use client::{Change, Client, ClientError, DeleteOptions, EventRecorder, EventType, Outcome};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use meta::ObjectKey;
use serde_json::json;

use crate::context::Context;
use crate::metrics::EvictionMetrics;
use crate::pod_view::PodView;

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("node-controller");
    let recorder = ctx.recorder(&client, "taint-eviction-controller");
    let queue = ctx.queue("taint-eviction-controller");
    let informers = &ctx.informers;
    tokio::join!(informers.nodes.synced(), informers.pods.synced());
    let pods = queue.clone();
    informers.pods.on_change(move |key, change| match change {
        Change::Added(pod) | Change::Deleted(pod) if !pod.node.is_empty() => pods.add(key.clone()),
        Change::Updated { old, new }
            if old.node != new.node || old.tolerations != new.tolerations =>
        {
            pods.add(key.clone());
        }
        _ => {}
    });
    let (this, nodes) = (ctx.clone(), queue.clone());
    informers.nodes.on_change(move |key, change| {
        let taints_changed = match &change {
            Change::Added(node) => !no_execute(node).is_empty(),
            Change::Updated { old, new } => no_execute(old) != no_execute(new),
            Change::Deleted(_) => false,
        };
        if taints_changed {
            for pod in this.informers.pod_index.on_node(&key.name) {
                nodes.add(pod.key.clone());
            }
        }
    });
    let shutdown = ctx.shutdown.clone();
    let pending: Pending = Arc::default();
    queue
        .run(shutdown, move |key| {
            let (ctx, client, recorder) = (ctx.clone(), client.clone(), recorder.clone());
            let pending = Arc::clone(&pending);
            async move { sync(&ctx, &client, &recorder, &pending, &key).await }
        })
        .await;
}

/// Pods that wait to be evicted.
type Pending = Arc<Mutex<HashMap<ObjectKey, Waiting>>>;

/// A pod that waits.
struct Waiting {
    uid: String,
    /// When it was first seen to have to go: a taint that a user sets does not say since when it
    /// has been there.
    since: Timestamp,
}

async fn sync(
    ctx: &Context,
    client: &Client,
    recorder: &EventRecorder,
    pending: &Pending,
    key: &ObjectKey,
) -> Result<Outcome, ClientError> {
    let pod = ctx.informers.pods.get(key).filter(|pod| pod.is_active());
    let node = pod.as_ref().and_then(|pod| ctx.informers.nodes.get(&ObjectKey::cluster(&pod.node)));
    let now = ctx.clock.now();
    let (waited, due) = {
        let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = pending.remove(key);
        let due = match (&pod, &node) {
            (Some(pod), Some(node)) => {
                let waited = waited.as_ref().filter(|waited| waited.uid == pod.uid);
                let since = waited.map_or(now, |waited| waited.since);
                let due = due(&no_execute(node), &pod.tolerations, now, since);
                if due.is_some_and(|due| due > now) {
                    pending.insert(key.clone(), Waiting { uid: pod.uid.clone(), since });
                }
                due
            }
            _ => None,
        };
        (waited, due)
    };
    let Some(pod) = pod else { return Ok(Outcome::Done) };
    match due {
        None => {
            if waited.is_some_and(|waited| waited.uid == pod.uid) {
                let text = format!("Cancelling deletion of Pod {key}");
                recorder.record(&pod.regarding(), EventType::Normal, WORDS.event, text);
            }
            Ok(Outcome::Done)
        }
        Some(due) if due > now => {
            let wait = Duration::try_from(due.duration_since(now)).unwrap_or_default();
            Ok(Outcome::RequeueAfter(wait))
        }
        Some(due) => {
            let how = (&WORDS, &ctx.counts.taint_evictions, due);
            evict(ctx, client, recorder, &pod, how).await
        }
    }
}

/// How an eviction is told.
pub(crate) struct Words {
    /// Reason of the events.
    pub(crate) event: &'static str,
    /// Text of the event of an eviction.
    pub(crate) marking: fn(&PodView) -> String,
    /// Reason of the pod's condition.
    pub(crate) reason: &'static str,
    /// Message of the condition.
    pub(crate) message: &'static str,
}

const WORDS: Words = Words {
    event: "TaintManagerEviction",
    marking: |pod| format!("Marking for deletion Pod {}", pod.key),
    reason: "DeletionByTaintManager",
    message: "Taint manager: deleting due to NoExecute taint",
};

/// Announces the disruption of a pod and deletes it; it was to go at `due`.
pub(crate) async fn evict(
    ctx: &Context,
    client: &Client,
    recorder: &EventRecorder,
    pod: &PodView,
    (words, counts, due): (&Words, &EvictionMetrics, Timestamp),
) -> Result<Outcome, ClientError> {
    recorder.record(&pod.regarding(), EventType::Normal, words.event, (words.marking)(pod));
    let condition = json!({
        "type": api::pod::DISRUPTION_TARGET,
        "status": "True",
        "reason": words.reason,
        "message": words.message,
        "lastTransitionTime": meta::time::rfc3339(ctx.clock.now()),
    });
    let patch = Patch::Strategic(json!({
        "metadata": { "uid": pod.uid }, "status": { "conditions": [condition] },
    }));
    let api = client.api::<Pod>(&pod.key.namespace);
    let result = match api.patch_subresource(&pod.key.name, "status", &patch).await {
        Ok(_) => {
            let options = DeleteOptions { uid: Some(pod.uid.clone()), ..DeleteOptions::default() };
            api.delete(&pod.key.name, &options).await
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => {
            counts.deletions.inc();
            let late = ctx.clock.now().duration_since(due).as_secs_f64();
            counts.latency.observe(late.max(0.0));
            Ok(Outcome::Done)
        }
        Err(error) if error.is_not_found() => Ok(Outcome::Done),
        // The server gives up a patch too when many write at once.
        Err(error) if error.is_conflict() => Ok(Outcome::Requeue),
        Err(error) => Err(error),
    }
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten().filter(|taint| taint.effect == NO_EXECUTE).cloned().collect()
}

/// When a pod with these tolerations has to go; `None` when it may stay. `seen`: since when it has
/// been known to have to.
fn due(
    taints: &[Taint],
    tolerations: &[Toleration],
    now: Timestamp,
    seen: Timestamp,
) -> Option<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    for taint in taints {
        let mut covering = tolerations.iter().filter(|t| tolerates(t, taint)).peekable();
        if covering.peek().is_none() {
            return Some(now);
        }
        let since = taint.time_added.as_ref().map_or(seen, |time| time.0);
        for seconds in covering.filter_map(|toleration| toleration.toleration_seconds) {
            let at = since.checked_add(SignedDuration::from_secs(seconds.max(0))).ok();
            earliest = at.into_iter().chain(earliest).min();
        }
    }
    earliest
}

/// Whether the toleration covers the taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    let value_fits = match text(&toleration.operator).as_str() {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    };
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && value_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tolerations: serde_json::Value, expected_secs: Option<i64>) {
        let taint: Taint = serde_json::from_value(json!({
            "key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z" }))
        .unwrap();
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let tolerations: Vec<Toleration> = serde_json::from_value(tolerations).unwrap();
        let due = due(&[taint], &tolerations, start, start);
        assert_eq!(due.map(|due| due.duration_since(start).as_secs()), expected_secs);
    }

    /// It was counted anew at every look, and no pod with a time ever had to go.
    #[test]
    fn a_taint_that_does_not_say_since_when_counts_from_when_it_was_seen() {
        let taint: Taint =
            serde_json::from_value(json!({ "key": "k", "effect": "NoExecute" })).unwrap();
        let tolerations: Vec<Toleration> =
            serde_json::from_value(json!([{ "operator": "Exists", "tolerationSeconds": 60 }]))
                .unwrap();
        let seen: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later = seen.checked_add(SignedDuration::from_secs(61)).unwrap();
        let due = due(&[taint], &tolerations, later, seen).unwrap();
        assert_eq!(due.duration_since(seen).as_secs(), 60);
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates() {
        check(json!([]), Some(0));
        check(json!([{ "key": "other", "operator": "Exists" }]), Some(0));
        check(json!([{ "key": "k", "operator": "Exists" }]), None);
        check(json!([{ "key": "k", "operator": "Exists", "tolerationSeconds": 300 }]), Some(300));
        check(
            json!([{ "operator": "Exists", "tolerationSeconds": 30 },
                { "key": "k", "operator": "Exists", "tolerationSeconds": 300 }]),
            Some(30),
        );
    }
}
