//! Which pods are made and which go.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::*;

fn pod(name: &str, more: serde_json::Value) -> Arc<PodView> {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "n", "uid": name,
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": { "app": "a" } },
        "spec": { "containers": [], "nodeName": "node" },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:10Z" }] },
    });
    merge(&mut pod, more);
    Arc::new(PodView::new(serde_json::from_value(pod).unwrap()))
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match from {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                merge(&mut into[key], value);
            }
        }
        value => *into = value,
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[track_caller]
fn goes_first(first: serde_json::Value, second: serde_json::Value) {
    let pods = [pod("b", second), pod("a", first)];
    let now = at("2026-01-02T00:00:00Z");
    let victims = ranking::least_wanted(&pods, &BTreeMap::new(), 1, now);
    assert_eq!(victims[0].key.name, "a");
}

#[test]
fn the_least_useful_pod_goes_first() {
    let not_ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    let cheap = |cost: &str| json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": cost } } });
    let pending = json!({ "status": { "phase": "Pending" } });
    goes_first(json!({ "spec": { "nodeName": "" } }), pending.clone());
    goes_first(pending, not_ready.clone());
    goes_first(not_ready, cheap("-10"));
    goes_first(cheap("-10"), json!({}));
    goes_first(json!({}), cheap("10"));
    let restarted = json!({ "status": { "containerStatuses": [
        { "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3 }] } });
    goes_first(restarted, json!({}));
}

#[test]
fn crowded_nodes_lose_pods_first() {
    let pods = [pod("a", json!({ "spec": { "nodeName": "empty" } })), pod("b", json!({}))];
    let crowd = BTreeMap::from([("node".to_owned(), 5), ("empty".to_owned(), 1)]);
    let victims = ranking::least_wanted(&pods, &crowd, 1, at("2026-01-02T00:00:00Z"));
    assert_eq!(victims[0].key.name, "b");
}

/// With another order than one of all pods, sorting may panic.
#[test]
fn thousands_of_pods_of_nearly_one_age_have_one_order() {
    let pods: Vec<Arc<PodView>> = (0..3000_u64)
        .map(|number| {
            // Spread without a pattern, and several of one second.
            let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
            let ready = format!("2026-01-01T00:00:{:02}Z", spread % 40);
            pod(
                &format!("{:08x}", spread.wrapping_mul(2_654_435_761) % 0xffff_ffff),
                json!({ "status": {
                    "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": ready }],
                    "containerStatuses": [{ "name": "c", "image": "", "imageID": "", "ready": true,
                        "restartCount": spread % 3 }],
                } }),
            )
        })
        .collect();
    let now = at("2026-01-01T00:01:00Z");
    let order = |pods: &[Arc<PodView>]| -> Vec<String> {
        let all = ranking::least_wanted(pods, &BTreeMap::new(), pods.len(), now);
        all.iter().map(|pod| pod.uid.clone()).collect()
    };
    let reversed: Vec<_> = pods.iter().rev().cloned().collect();
    assert_eq!(order(&pods), order(&reversed));
}

fn set(replicas: i32) -> Replicas {
    let set: ReplicaSet = serde_json::from_value(json!({
        "metadata": { "name": "rs", "namespace": "n", "uid": "u", "generation": 3 },
        "spec": { "replicas": replicas, "minReadySeconds": 20,
            "selector": { "matchLabels": { "app": "a" } },
            "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [] } } },
    }))
    .unwrap();
    set.replicas()
}

#[test]
fn a_ready_pod_is_available_after_its_time() {
    let (set, pods) = (set(1), [pod("a", json!({}))]);
    let early = status::compute(&set, &pods, 0, None, at("2026-01-01T00:00:29Z"));
    assert_eq!((early.ready_replicas, early.available_replicas), (Some(1), None));
    let wait = next_available(&set, &pods, at("2026-01-01T00:00:29Z"));
    assert_eq!(wait, Some(Duration::from_secs(1)));
    let late = status::compute(&set, &pods, 2, None, at("2026-01-01T00:00:30Z"));
    assert_eq!((late.available_replicas, late.terminating_replicas), (Some(1), Some(2)));
    assert_eq!(late.observed_generation, Some(3));
}

#[test]
fn a_failure_is_a_condition_until_it_is_over() {
    let mut set = set(1);
    let now = at("2026-01-01T00:00:00Z");
    let failure = status::Failure { reason: "FailedCreate", message: "no".to_owned() };
    set.status = status::compute(&set, &[], 0, Some(failure), now);
    let condition = &set.status.conditions.as_ref().unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
    assert_eq!(status::compute(&set, &[], 0, None, now).conditions, None);
}

#[test]
fn pods_are_claimed_by_selector_and_owner() {
    let set = set(1);
    let check = |more, expected| {
        assert_eq!(claim(&pod("p", more), &set.owner, false, &set.selector), expected);
    };
    let owned = |uid: &str| {
        json!({ "metadata": { "ownerReferences": [{ "apiVersion": "apps/v1",
            "kind": "ReplicaSet", "name": "rs", "uid": uid, "controller": true }] } })
    };
    check(owned("u"), Claim::Keep);
    check(owned("other"), Claim::Ignore);
    check(json!({}), Claim::Adopt);
    let mut relabeled = owned("u");
    relabeled["metadata"]["labels"] = json!({ "app": "b" });
    check(relabeled, Claim::Release);
}

#[tokio::test]
async fn batches_grow_and_stop_at_the_first_failure() {
    let calls = AtomicUsize::new(0);
    let create = || async {
        // The third batch, of four, begins with the fourth call.
        if calls.fetch_add(1, Ordering::SeqCst) == 3 { Err("full") } else { Ok(()) }
    };
    assert_eq!(slow_start(20, 1, create).await, (13, Err("full")));
    assert_eq!(calls.load(Ordering::SeqCst), 7);
}
