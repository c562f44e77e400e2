//! What a job does next.

use serde_json::{Value, json};

use super::*;

fn job(spec: Value, status: Value) -> Job {
    let mut full = json!({ "parallelism": 2, "completions": 3, "backoffLimit": 1,
        "template": { "spec": { "containers": [], "restartPolicy": "Never" } } });
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": { "name": "j", "namespace": "n", "uid": "j" }, "spec": full, "status": status,
    }))
    .unwrap()
}

fn pod(name: &str, phase: &str, more: Value) -> Arc<PodView> {
    let mut meta = json!({ "name": name, "namespace": "n", "uid": name,
        "finalizers": ["batch.kubernetes.io/job-tracking"] });
    for (key, value) in more.as_object().unwrap() {
        meta[key] = value.clone();
    }
    let pod = json!({ "metadata": meta, "status": { "phase": phase } });
    Arc::new(PodView::new(serde_json::from_value(pod).unwrap()))
}

fn indexed(name: &str, phase: &str, index: i32) -> Arc<PodView> {
    let key = "batch.kubernetes.io/job-completion-index";
    pod(name, phase, json!({ "annotations": { key: index.to_string() } }))
}

fn plan(job: &Job, pods: &[Arc<PodView>]) -> Plan {
    Plan::new(job, pods, "2026-01-01T00:01:00Z".parse().unwrap())
}

fn conditions(plan: &Plan) -> Vec<&str> {
    plan.status.conditions.iter().flatten().map(|c| c.type_.as_str()).collect()
}

#[test]
fn as_many_pods_run_as_may() {
    let job = job(json!({}), json!({}));
    assert_eq!(plan(&job, &[]).create.len(), 2);
    let pods = [pod("a", "Succeeded", json!({})), pod("b", "Running", json!({}))];
    let plan = plan(&job, &pods);
    assert_eq!((plan.create.len(), plan.status.active), (1, Some(1)));
    let uncounted = plan.status.uncounted_terminated_pods.unwrap();
    assert_eq!(uncounted.succeeded, Some(vec!["a".to_owned()]));
}

#[test]
fn a_pod_is_counted_once_its_finalizer_is_gone() {
    let status = json!({ "succeeded": 1, "uncountedTerminatedPods": { "succeeded": ["a"] } });
    let job = job(json!({}), status);
    let held = plan(&job, &[pod("a", "Succeeded", json!({}))]);
    assert_eq!((held.status.succeeded, held.new_succeeded), (Some(1), 0));
    let freed = plan(&job, &[pod("a", "Succeeded", json!({ "finalizers": [] }))]);
    assert_eq!(freed.status.succeeded, Some(2));
    assert_eq!(freed.status.uncounted_terminated_pods.unwrap().succeeded, None);
}

#[test]
fn completion_is_decided_first_and_declared_when_all_is_quiet() {
    let job = job(json!({}), json!({ "succeeded": 3 }));
    let busy = plan(&job, &[pod("a", "Running", json!({}))]);
    assert_eq!(conditions(&busy), ["SuccessCriteriaMet"]);
    assert_eq!(busy.delete.len(), 1);
    let quiet = plan(&job, &[]);
    assert_eq!(conditions(&quiet), ["SuccessCriteriaMet", "Complete"]);
    assert!(quiet.status.completion_time.is_some());
    assert_eq!(quiet.events[0].1, "Completed");
}

#[test]
fn too_many_failures_fail_the_job() {
    let job = job(json!({}), json!({ "failed": 2 }));
    let plan = plan(&job, &[]);
    assert_eq!(conditions(&plan), ["FailureTarget", "Failed"]);
    assert_eq!(plan.events[0].1, "BackoffLimitExceeded");
    assert!(plan.create.is_empty());
}

#[test]
fn the_deadline_is_waited_for_and_kept() {
    let spec = json!({ "activeDeadlineSeconds": 90 });
    let early = json!({ "startTime": "2026-01-01T00:00:00Z" });
    assert_eq!(plan(&job(spec.clone(), early), &[]).wait, Some(Duration::from_secs(30)));
    let late = json!({ "startTime": "2025-12-31T23:59:00Z" });
    assert_eq!(conditions(&plan(&job(spec, late), &[])), ["FailureTarget", "Failed"]);
}

#[test]
fn indexes_are_given_out_lowest_first() {
    let job = job(json!({ "completionMode": "Indexed" }), json!({}));
    let pods = [indexed("a", "Succeeded", 0), indexed("b", "Running", 2)];
    let plan = plan(&job, &pods);
    assert_eq!(plan.create, [New { index: Some(1), failures: None }]);
    assert_eq!(plan.status.completed_indexes.as_deref(), Some("0"));
    assert_eq!(plan.status.succeeded, Some(1));
}

#[test]
fn a_suspended_job_has_no_pods() {
    let job = job(json!({ "suspend": true }), json!({}));
    let plan = plan(&job, &[pod("a", "Running", json!({}))]);
    assert_eq!((plan.delete.len(), plan.create.len()), (1, 0));
    assert_eq!(conditions(&plan), ["Suspended"]);
    assert_eq!(plan.status.start_time, None);
}

#[test]
fn a_job_that_fails_while_it_is_suspended_has_a_start() {
    let conditions = json!([
        { "type": "Suspended", "status": "True" },
        { "type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded" },
    ]);
    let job = job(json!({ "suspend": true }), json!({ "conditions": conditions }));
    let plan = plan(&job, &[]);
    assert!(has(&plan.status, "Failed"), "{:?}", plan.status);
    // The server refuses the end of a Job without one.
    assert!(plan.status.start_time.is_some());
}

#[test]
fn sets_of_indexes_are_printed_and_read() {
    for text in ["", "0", "0,1", "0-2", "0,2-5,7"] {
        assert_eq!(indexes::print(&indexes::parse(text)), text);
    }
}

/// A failed pod of an index, with the failures before it, that ended with a code.
fn failed(name: &str, index: i32, failures: i32, code: i32) -> Arc<PodView> {
    let annotations = json!({ "batch.kubernetes.io/job-completion-index": index.to_string(),
        policies::FAILURES: failures.to_string() });
    let pod = json!({
        "metadata": { "name": name, "namespace": "n", "uid": name, "annotations": annotations,
            "finalizers": ["batch.kubernetes.io/job-tracking"] },
        "status": { "phase": "Failed", "containerStatuses": [{ "name": "c", "ready": false,
            "restartCount": 0, "image": "", "imageID": "", "state": { "terminated": {
                "exitCode": code, "finishedAt": "2026-01-01T00:00:45Z" } } }] } });
    Arc::new(PodView::new(serde_json::from_value(pod).unwrap()))
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.status.conditions.iter().flatten().filter_map(|c| c.reason.as_deref()).collect()
}

#[test]
fn a_rule_about_a_failure_ends_the_job_or_ignores_it() {
    let policy = json!({ "podFailurePolicy": { "rules": [
        { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } },
        { "action": "Ignore", "onExitCodes": { "operator": "In", "values": [7] } }] } });
    let job = job(policy, json!({}));
    let ended = plan(&job, &[failed("a", 0, 0, 42)]);
    assert_eq!(conditions(&ended), ["FailureTarget"]);
    assert_eq!(reasons(&ended), ["PodFailurePolicy"]);
    let ignored = plan(&job, &[failed("a", 0, 0, 7), failed("b", 0, 0, 7), failed("c", 0, 0, 7)]);
    assert!(conditions(&ignored).is_empty());
    assert_eq!((ignored.new_failed, ignored.counted.len()), (0, 3));
    let counted = plan(&job, &[failed("a", 0, 0, 1), failed("b", 0, 0, 1)]);
    assert_eq!(reasons(&counted), ["BackoffLimitExceeded"]);
}

#[test]
fn an_index_is_tried_again_after_a_while_and_then_given_up() {
    let spec = json!({ "completionMode": "Indexed", "backoffLimitPerIndex": 1, "parallelism": 3,
        "backoffLimit": 100 });
    let job = job(spec, json!({}));
    let again = plan(&job, &[failed("a", 0, 0, 1)]);
    let new = |index, counted| {
        let failures = Some(Failures { counted, ignored: 0 });
        New { index: Some(index), failures }
    };
    assert_eq!(again.create, [new(0, 1), new(1, 0), new(2, 0)]);
    assert!(again.counted.is_empty(), "the pod stays until the next one knows of it");
    assert_eq!(again.status.failed_indexes.as_deref(), Some(""));
    let replaced = plan(&job, &[failed("a", 0, 0, 1), failed("b", 0, 1, 1)]);
    assert_eq!(replaced.status.failed_indexes.as_deref(), Some("0"));
    assert_eq!((replaced.counted.len(), replaced.new_failed), (2, 2));
    assert_eq!(replaced.create, [new(1, 0), new(2, 0)]);
}

#[test]
fn failed_indexes_fail_the_job_at_its_end_or_when_they_are_too_many() {
    let spec = |most: Value| {
        json!({ "completionMode": "Indexed", "backoffLimitPerIndex": 0, "backoffLimit": 100,
            "maxFailedIndexes": most })
    };
    let status = json!({ "completedIndexes": "1,2" });
    let end = plan(&job(spec(json!(null)), status), &[failed("a", 0, 0, 1)]);
    assert_eq!(reasons(&end), ["FailedIndexes"]);
    let many = plan(&job(spec(json!(0)), json!({})), &[failed("a", 0, 0, 1)]);
    assert_eq!(reasons(&many), ["MaxFailedIndexesExceeded"]);
}

#[test]
fn enough_indexes_end_a_job_with_a_policy() {
    let spec = json!({ "completionMode": "Indexed",
        "successPolicy": { "rules": [{ "succeededIndexes": "1" }] } });
    let job = job(spec, json!({}));
    let pods = [indexed("a", "Running", 0), indexed("b", "Succeeded", 1)];
    let met = plan(&job, &pods);
    assert_eq!(conditions(&met), ["SuccessCriteriaMet"]);
    assert_eq!((reasons(&met)[0], met.delete.len()), ("SuccessPolicy", 1));
}

#[test]
fn pods_beyond_what_was_asked_for_are_told() {
    let job = job(json!({ "completions": 1 }), json!({}));
    let pods = [
        pod("a", "Succeeded", json!({})),
        pod("b", "Succeeded", json!({})),
        pod("c", "Running", json!({})),
    ];
    let reasons = |pods: &[Arc<PodView>]| {
        let events = plan(&job, pods).events.into_iter();
        events.map(|(_, reason, _)| reason).collect::<Vec<_>>()
    };
    assert_eq!(reasons(&pods), ["TooManyActivePods", "TooManySucceededPods"]);
    assert!(reasons(&pods[..1]).iter().all(|reason| !reason.starts_with("TooMany")));
}
