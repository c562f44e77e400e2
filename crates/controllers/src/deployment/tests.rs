//! Roll-outs, step by step.

use serde_json::{Value, json};

use super::*;

fn rollout(spec: Value, sets: &[(&str, i32, i32)]) -> Rollout {
    let mut full = json!({
        "replicas": 10, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
        "selector": { "matchLabels": { "app": "a" } },
        "strategy": { "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
        "template": { "metadata": { "labels": { "app": "a" } },
            "spec": { "containers": [{ "name": "c", "image": "new" }] } },
    });
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": { "name": "d", "namespace": "n", "uid": "d", "generation": 2 },
        "spec": full,
    }))
    .unwrap();
    let sets = sets.iter().enumerate().map(|(at, (image, size, available))| {
        serde_json::from_value(json!({
            "metadata": { "name": format!("d-{image}"), "namespace": "n", "uid": image,
                "creationTimestamp": format!("2026-01-01T00:00:{at:02}Z"),
                "annotations": { "deployment.kubernetes.io/revision": (at + 1).to_string(),
                    "deployment.kubernetes.io/desired-replicas": "10",
                    "deployment.kubernetes.io/max-replicas": "13" } },
            "spec": { "replicas": size, "selector": {},
                "template": { "metadata": { "labels": { "app": "a", "pod-template-hash": "x" } },
                    "spec": { "containers": [{ "name": "c", "image": image }] } } },
            "status": { "replicas": size, "availableReplicas": available, "readyReplicas": available },
        }))
        .unwrap()
    });
    revision::sort(deployment, sets.collect())
}

fn now() -> jiff::Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

#[test]
fn the_template_decides_which_set_is_new() {
    let rollout = rollout(json!({}), &[("old", 10, 10), ("new", 0, 0)]);
    assert_eq!(rollout.new.as_ref().unwrap().metadata.uid.as_deref(), Some("new"));
    assert_eq!(rollout.old.len(), 1);
    assert_eq!((rollout.max_surge(), rollout.max_unavailable()), (3, 2));
}

#[track_caller]
fn rolls(sets: &[(&str, i32, i32)], new: Option<i32>, old: &[(usize, i32)]) {
    let rollout = rollout(json!({}), sets);
    assert_eq!((rolling::new_size(&rollout), rolling::old_sizes(&rollout).as_slice()), (new, old));
}

#[test]
fn a_rolling_update_keeps_within_surge_and_availability() {
    // The first step: three new ones beside ten old ones, of which two may go.
    rolls(&[("old", 10, 10), ("new", 0, 0)], Some(3), &[(0, 8)]);
    rolls(&[("old", 8, 8), ("new", 3, 0)], Some(5), &[]);
    rolls(&[("old", 8, 8), ("new", 5, 5)], None, &[(0, 3)]);
    rolls(&[("old", 0, 0), ("new", 10, 10)], None, &[]);
    // Too many new ones, after the Deployment shrank.
    rolls(&[("new", 12, 12)], Some(10), &[]);
}

#[test]
fn pods_that_do_not_serve_go_first() {
    rolls(&[("broken", 3, 0), ("old", 8, 8), ("new", 2, 2)], None, &[(0, 0), (1, 6)]);
}

#[test]
fn pods_that_are_going_already_do_not_count_as_available() {
    rolls(&[("old", 5, 8), ("new", 5, 5)], Some(8), &[(0, 3)]);
    rolls(&[("gone", 0, 3), ("old", 5, 5), ("new", 5, 5)], Some(8), &[(1, 3)]);
}

#[test]
fn scaling_during_a_rollout_is_proportional() {
    // Upstream's conformance case: 10 pods become 30 while 8 old and 5 new exist.
    let spec = json!({ "replicas": 30, "strategy": { "type": "RollingUpdate",
        "rollingUpdate": { "maxSurge": 3, "maxUnavailable": 2 } } });
    let rollout = rollout(spec, &[("old", 8, 8), ("new", 5, 0)]);
    let sizes = scaling::sizes(&rollout);
    let size_of = |uid: &str| {
        sizes.iter().find(|(name, _)| name.as_deref() == Some(uid)).map(|(_, size)| *size)
    };
    assert_eq!((size_of("old"), size_of("new")), (Some(20), Some(13)));
    assert!(is_scaling(&rollout));
}

#[test]
fn a_single_set_takes_the_whole_size() {
    let rollout = rollout(json!({ "replicas": 4 }), &[("new", 10, 10)]);
    assert_eq!(scaling::sizes(&rollout), [(Some("new".to_owned()), 4)]);
}

#[test]
fn the_hash_is_stable_and_safe() {
    let rollout = rollout(json!({}), &[]);
    let template = &rollout.spec().template;
    let hash = template_hash(template, None);
    assert_eq!(hash, template_hash(template, None));
    assert_ne!(hash, template_hash(template, Some(1)));
    assert!(hash.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte)));
    let set = revision::make(&rollout, 1);
    assert_eq!(set.metadata.name, Some(format!("d-{hash}")));
    assert!(revision::has_template(&set, template));
    assert_eq!(size(&set), 10);
}

#[test]
fn revisions_grow_and_history_is_kept() {
    let rollout = rollout(json!({}), &[("new", 0, 0), ("old", 10, 10)]);
    let revision = revision::next_revision(&rollout.old);
    assert_eq!(revision, 3);
    let present = rollout.new.as_ref().unwrap().metadata.annotations.clone().unwrap();
    let wanted = revision::annotations(&rollout, &present, revision);
    assert_eq!(wanted["deployment.kubernetes.io/revision"], "3");
    assert_eq!(wanted["deployment.kubernetes.io/revision-history"], "1");
}

#[test]
fn conditions_follow_the_rollout() {
    let mut rollout = rollout(json!({}), &[("old", 8, 8), ("new", 5, 0)]);
    let reason = |rollout: &Rollout, kind: &str| {
        let status = rollout.deployment.status.as_ref().unwrap();
        progress::find(status, kind).and_then(|c| c.reason.clone()).unwrap_or_default()
    };
    rollout.deployment.status = Some(progress::rollout_status(&rollout, now()));
    assert_eq!(reason(&rollout, "Progressing"), "ReplicaSetUpdated");
    assert_eq!(reason(&rollout, "Available"), "MinimumReplicasAvailable");
    let late = now() + jiff::SignedDuration::from_secs(601);
    let status = rollout.deployment.status.clone().unwrap();
    let wait = progress::time_to_deadline(&rollout, &status, now());
    assert_eq!(wait, Some(Duration::from_secs(600)));
    rollout.deployment.status = Some(progress::rollout_status(&rollout, late));
    assert_eq!(reason(&rollout, "Progressing"), "ProgressDeadlineExceeded");
}

#[test]
fn a_complete_rollout_says_so() {
    let mut rollout = rollout(json!({}), &[("old", 0, 0), ("new", 10, 10)]);
    let status = progress::rollout_status(&rollout, now());
    let condition = progress::find(&status, "Progressing").unwrap();
    assert_eq!(condition.reason.as_deref(), Some("NewReplicaSetAvailable"));
    assert_eq!(
        condition.message.as_deref(),
        Some(r#"ReplicaSet "d-new" has successfully progressed."#)
    );
    rollout.deployment.status = Some(status.clone());
    assert!(progress::is_complete(&rollout, Some(&status)));
    assert_eq!(progress::time_to_deadline(&rollout, &status, now()), None);
}

#[test]
fn old_sets_beyond_the_limit_go() {
    let sets = [("a", 0, 0), ("b", 0, 0), ("c", 0, 0), ("d", 2, 2), ("new", 8, 8)];
    assert_eq!(apply::superfluous_names(&rollout(json!({}), &sets)), ["d-a", "d-b"]);
}

#[test]
fn a_recreate_that_adopted_several_sets_is_rolled_out_and_not_scaled() {
    let recreate = json!({ "replicas": 0, "strategy": { "type": "Recreate" } });
    assert!(!is_scaling(&rollout(recreate.clone(), &[("old", 2, 2), ("new", 1, 1)])));
    assert!(is_scaling(&rollout(recreate, &[("new", 1, 1)])));
}

#[test]
fn an_adopted_set_that_has_the_size_already_is_rolled_out_and_not_scaled() {
    let spec = |replicas: i32| json!({ "replicas": replicas });
    assert!(!is_scaling(&rollout(spec(4), &[("old", 4, 4)])));
    assert!(is_scaling(&rollout(spec(4), &[("old", 3, 3)])));
}
