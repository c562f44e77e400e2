//! G20: Jobs, with pods that really end as they do.

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use super::{at, condition, name};
use crate::harness::{Harness, collection, pod_path};

const JOBS: &str = "batch/v1/jobs";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// A job whose pods run this, and what else there is to it.
fn job(args: &[&str], more: &Value) -> Value {
    let mut spec = json!({ "template": { "metadata": { "labels": { "job": "j" } }, "spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "c", "image": POD_IMAGE, "args": args }] } } });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "metadata": { "name": "j", "labels": { "job": "j" } }, "spec": spec })
}

/// The same with a directory of the node, where state lasts from pod to pod.
fn with_state(harness: &Harness, mut job: Value) -> Value {
    let spec = &mut job["spec"]["template"]["spec"];
    let directory = harness.cluster.scratch().join("job-state");
    spec["volumes"] = json!([{ "name": "state",
        "hostPath": { "path": directory, "type": "DirectoryOrCreate" } }]);
    let container = &mut spec["containers"][0];
    container["volumeMounts"] = json!([{ "name": "state", "mountPath": "/state" }]);
    container["securityContext"] = json!({ "privileged": true });
    job
}

fn indexed(completions: u32, parallelism: u32) -> Value {
    json!({ "completionMode": "Indexed", "completions": completions, "parallelism": parallelism })
}

fn with(mut object: Value, more: &Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

/// Waits for the end; nothing is under way then.
fn ends(harness: &Harness, kind: &str, reason: &str) -> Value {
    let job = harness.becomes(&at(JOBS, "j"), kind, |job| condition(job, kind)["status"] == "True");
    assert_eq!(condition(&job, kind)["reason"], reason, "{}", job["status"]);
    for field in ["active", "ready", "terminating"] {
        assert_eq!(job["status"][field].as_u64().unwrap_or(0), 0, "{field}: {}", job["status"]);
    }
    job
}

/// Waits for success, by which criterion, before completion as well.
fn succeeds(harness: &Harness, reason: &str) -> Value {
    let job = ends(harness, "Complete", reason);
    let met = condition(&job, "SuccessCriteriaMet");
    assert_eq!((&met["status"], &met["reason"]), (&json!("True"), &json!(reason)));
    assert!(job["status"]["completionTime"].is_string());
    job["status"].clone()
}

/// Waits for failure; a target of failure comes before it.
fn fails(harness: &Harness, reason: &str) -> Value {
    let job = ends(harness, "Failed", reason);
    let target = condition(&job, "FailureTarget");
    assert_eq!((&target["status"], &target["reason"]), (&json!("True"), &json!(reason)));
    job["status"].clone()
}

fn count(status: &Value, field: &str) -> u64 {
    status[field].as_u64().unwrap_or(0)
}

/// \[sig-apps\] Job should run a job to completion when tasks sometimes fail and are locally
/// restarted; should create pods for an Indexed job with completion indexes and specified hostname
#[test]
fn tasks_that_fail_once_are_restarted_where_they_are() {
    let harness = Harness::start();
    let spec = indexed(4, 2);
    let args = ["once", "/state/$(JOB_COMPLETION_INDEX)", "fail", "1"];
    let mut job = with_state(&harness, job(&args, &spec));
    job["spec"]["template"]["spec"]["restartPolicy"] = json!("OnFailure");
    harness.create(JOBS, &job);
    let status = succeeds(&harness, "CompletionsReached");
    assert_eq!(count(&status, "succeeded"), 4);
    assert_eq!(count(&status, "failed"), 0, "a container that is restarted is no failed pod");
    assert_eq!(status["completedIndexes"], "0-3");
    let pods = harness.pods("job=j");
    assert_eq!(pods.len(), 4);
    for pod in pods {
        let index = pod["metadata"]["annotations"][INDEX].as_str().unwrap();
        assert_eq!(pod["metadata"]["labels"][INDEX], index);
        assert_eq!(pod["spec"]["hostname"], format!("j-{index}"));
        assert!(name(&pod).starts_with(&format!("j-{index}-")));
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 1);
    }
}

/// \[sig-apps\] Job should allow to use the pod failure policy on exit code to fail the job early
#[test]
fn an_exit_code_ends_a_job_before_its_limit() {
    let harness = Harness::start();
    let policy = json!({ "rules": [{ "action": "FailJob",
        "onExitCodes": { "operator": "In", "containerName": "c", "values": [3] } }] });
    // One of the pods fails, the other would run for ever.
    let spec = with(indexed(2, 2), &json!({ "backoffLimit": 6, "podFailurePolicy": policy }));
    let args = ["sleep", "$(JOB_COMPLETION_INDEX)00000", "fail", "3"];
    harness.create(JOBS, &job(&args, &spec));
    let status = fails(&harness, "PodFailurePolicy");
    let message = condition(&json!({ "status": status }), "Failed")["message"].clone();
    let message = message.as_str().unwrap();
    let expected = " failed with exit code 3 matching FailJob rule at index 0";
    assert!(message.starts_with("Container c for pod default/j-0-"), "{message}");
    assert!(message.ends_with(expected), "{message}");
    assert_eq!(count(&status, "succeeded"), 0);
}

/// \[sig-apps\] Job should allow to use a pod failure policy to ignore failure matching on
/// DisruptionTarget condition
#[test]
fn evictions_are_no_failures_where_they_are_ignored() {
    let harness = Harness::start();
    let policy = json!({ "rules": [{ "action": "Ignore",
        "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] }] });
    // A single failure would be the end.
    let spec = with(indexed(2, 2), &json!({ "backoffLimit": 0, "podFailurePolicy": policy }));
    let state = "/state/$(JOB_COMPLETION_INDEX)";
    harness.create(JOBS, &with_state(&harness, job(&["once", state, "serve", "8080"], &spec)));
    for pod in harness.ready_pods("job=j", 2) {
        // The marker is made before it serves; a pod that waits would begin again for ever.
        let log = format!("{}/log", pod_path(&name(&pod)));
        harness.until("it serves", || harness.text(&log).contains("serving").then_some(()));
        let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "name": name(&pod), "namespace": "default" } });
        let path = format!("{}/eviction", pod_path(&name(&pod)));
        harness.request(Method::POST, &path, Some(&eviction)).unwrap();
    }
    let status = succeeds(&harness, "CompletionsReached");
    assert_eq!(count(&status, "succeeded"), 2);
    assert_eq!(count(&status, "failed"), 0);
}

/// \[sig-apps\] Job should execute all indexes despite some failing when using backoffLimitPerIndex;
/// should mark indexes as failed when the FailIndex action is matched in podFailurePolicy
#[test]
fn every_index_has_its_own_failures() {
    let harness = Harness::start();
    let odd = ["odd", "$(JOB_COMPLETION_INDEX)"];
    let spec = with(indexed(4, 2), &json!({ "backoffLimitPerIndex": 1 }));
    harness.create(JOBS, &job(&odd, &spec));
    let status = fails(&harness, "FailedIndexes");
    assert_eq!(
        (&status["failedIndexes"], &status["completedIndexes"]),
        (&json!("1,3"), &json!("0,2"))
    );
    assert_eq!((count(&status, "failed"), count(&status, "succeeded")), (4, 2));
    let tries = |index: &str, number: &str| {
        let is = |pod: &&Value| {
            let told = &pod["metadata"]["annotations"];
            told[INDEX] == index && told["batch.kubernetes.io/job-index-failure-count"] == *number
        };
        harness.pods("job=j").iter().filter(is).count()
    };
    assert_eq!((tries("1", "0"), tries("1", "1"), tries("2", "0"), tries("2", "1")), (1, 1, 1, 0));
    harness.delete_as(&at(JOBS, "j"), "Foreground");
    harness.goes(&at(JOBS, "j"));

    let policy = json!({ "rules": [{ "action": "FailIndex",
        "onExitCodes": { "operator": "In", "values": [1] } }] });
    let more = json!({ "backoffLimitPerIndex": 1, "podFailurePolicy": policy });
    harness.create(JOBS, &job(&odd, &with(indexed(4, 2), &more)));
    let status = fails(&harness, "FailedIndexes");
    assert_eq!(
        (&status["failedIndexes"], &status["completedIndexes"]),
        (&json!("1,3"), &json!("0,2"))
    );
    assert_eq!((count(&status, "failed"), count(&status, "succeeded")), (2, 2), "no second try");
}

/// What is ignored is counted apart, and costs the index nothing.
#[test]
fn an_index_says_how_many_of_its_failures_were_ignored() {
    let harness = Harness::start();
    let policy = json!({ "rules": [{ "action": "Ignore",
        "onExitCodes": { "operator": "In", "values": [1] } }] });
    let more = json!({ "backoffLimitPerIndex": 0, "podFailurePolicy": policy });
    let args = ["once", "/state/$(JOB_COMPLETION_INDEX)", "fail", "1"];
    harness.create(JOBS, &with_state(&harness, job(&args, &with(indexed(1, 1), &more))));
    let status = succeeds(&harness, "CompletionsReached");
    assert_eq!(count(&status, "failed"), 0);
    let pods = harness.pods("job=j");
    let done = pods.iter().find(|pod| pod["status"]["phase"] == "Succeeded").unwrap();
    let told = &done["metadata"]["annotations"];
    assert_eq!(told["batch.kubernetes.io/job-index-failure-count"], "0");
    assert_eq!(told["batch.kubernetes.io/job-index-ignored-failure-count"], "1");
}

/// \[sig-apps\] Job should terminate job execution when the number of failed indexes exceeds
/// maxFailedIndexes
#[test]
fn too_many_failed_indexes_end_a_job() {
    let harness = Harness::start();
    let more = json!({ "backoffLimitPerIndex": 0, "maxFailedIndexes": 4 });
    harness.create(JOBS, &job(&["fail", "1"], &with(indexed(10, 10), &more)));
    let status = fails(&harness, "MaxFailedIndexesExceeded");
    assert!(count(&status, "failed") >= 5, "{status}");
    assert_eq!(count(&status, "succeeded"), 0);
}

/// \[sig-apps\] Job with successPolicy should succeeded when all indexes succeeded; succeededIndexes
/// rule …; succeededCount rule should succeeded even when some indexes remain pending
#[test]
fn a_job_succeeds_as_its_policy_says() {
    let harness = Harness::start();
    let rules = |rule: Value| json!({ "successPolicy": { "rules": [rule] } });
    // The pods of all indexes but the first run for ever.
    let first = ["sleep", "$(JOB_COMPLETION_INDEX)00000", "print"];
    for (args, rule, completed) in [
        (&["print", "done"][..], json!({ "succeededCount": 2 }), Some("0,1")),
        (&first[..], json!({ "succeededIndexes": "0" }), Some("0")),
        (&first[..], json!({ "succeededCount": 1 }), Some("0")),
        (&first[..], json!({ "succeededIndexes": "0,1", "succeededCount": 1 }), Some("0")),
    ] {
        harness.create(JOBS, &job(args, &with(indexed(2, 2), &rules(rule))));
        let status = succeeds(&harness, "SuccessPolicy");
        assert_eq!(status["completedIndexes"], json!(completed));
        harness.delete_as(&at(JOBS, "j"), "Foreground");
        harness.goes(&at(JOBS, "j"));
    }
}

/// \[sig-apps\] Job should adopt matching orphans and release non-matching pods; should delete a job
#[test]
fn pods_of_a_job_are_adopted_released_and_go_with_it() {
    let harness = Harness::start();
    let made =
        harness.create(JOBS, &job(&["wait"], &json!({ "parallelism": 2, "completions": 2 })));
    let pods = harness.ready_pods("job=j", 2);
    let uid = &made["metadata"]["uid"];
    let owner = |pod: &Value| pod["metadata"]["ownerReferences"][0]["uid"].clone();
    let path = pod_path(&name(&pods[0]));
    harness.patch(&path, &json!({ "metadata": { "ownerReferences": null } }));
    harness.becomes(&path, "is adopted again", |pod| owner(pod) == *uid);
    assert_eq!(harness.pods("job=j").len(), 2);
    let labels = json!({ "metadata": { "labels": null } });
    harness.patch(&path, &labels);
    let released = harness.becomes(&path, "is released", |pod| owner(pod).is_null());
    assert_eq!(released["metadata"]["finalizers"], Value::Null, "nobody waits for its end");
    harness.ready_pods("job=j", 2);
    assert_eq!(harness.get(&at(JOBS, "j"))["status"]["active"], 2);
    harness.delete_as(&at(JOBS, "j"), "Background");
    harness.goes(&at(JOBS, "j"));
    harness.ready_pods("job=j", 0);
    assert!(harness.exists(&path), "it is nobody's");
    harness.delete(&path);
}

/// \[sig-apps\] Job should manage the lifecycle of a job; should apply changes to a job status
#[test]
fn a_watch_sees_every_step_of_a_job() {
    let harness = Harness::start();
    let (all, path) = (collection(JOBS), at(JOBS, "j"));
    let since = harness.now(&all);
    harness.create(JOBS, &job(&["wait"], &json!({ "suspend": true, "parallelism": 1 })));
    let suspended = |status: &'static str| {
        harness.becomes(&path, "says whether it is suspended", |job| {
            condition(job, "Suspended")["status"] == status
        });
    };
    suspended("True");
    assert!(harness.pods("job=j").is_empty());
    harness.merge(
        &path,
        &json!({ "metadata": { "labels": { "e2e": "patched" } },
        "spec": { "suspend": false } }),
    );
    suspended("False");
    harness.ready_pods("job=j", 1);
    harness.becomes(&path, "counts the pod", |job| {
        job["status"]["ready"] == 1 && job["status"]["active"] == 1
    });
    let status = format!("{path}/status");
    let patch = json!({ "metadata": { "annotations": { "patchedstatus": "true" } },
        "status": { "startTime": "2026-01-01T00:00:00Z" } });
    let refused = harness.request(Method::PATCH, &status, Some(&patch)).unwrap_err();
    assert_eq!(refused.status().unwrap().code, 422, "a job that runs began when it did: {refused}");
    harness.patch(&status, &json!({ "metadata": patch["metadata"] }));
    assert_eq!(harness.get(&path)["metadata"]["annotations"]["patchedstatus"], "true");
    let own = json!({ "type": "StatusUpdate", "status": "True", "reason": "E2E",
        "message": "Set from e2e test" });
    harness.update(&status, |job| {
        let conditions = &mut job["status"]["conditions"];
        conditions.as_array_mut().unwrap().push(own.clone());
    });
    assert_eq!(condition(&harness.get(&status), "StatusUpdate")["reason"], "E2E");
    harness.update(&path, |job| {
        job["metadata"]["annotations"]["updated"] = json!("true");
        job["spec"]["suspend"] = json!(true);
    });
    suspended("True");
    harness.ready_pods("job=j", 0);
    let everywhere = "/apis/batch/v1/jobs?labelSelector=e2e=patched";
    assert_eq!(harness.items(everywhere).len(), 1);
    let how = "labelSelector=e2e=patched&propagationPolicy=Background";
    harness.delete(&format!("{all}?{how}"));
    harness.goes(&path);

    let seen = harness.seen(&all, "job=j", &since);
    assert_eq!(seen[0].0, "ADDED");
    assert_eq!(seen.last().unwrap().0, "DELETED");
    let mut steps = seen.iter();
    for (kind, status) in [
        ("Suspended", "True"),
        ("Suspended", "False"),
        ("StatusUpdate", "True"),
        ("Suspended", "True"),
    ] {
        let is = |(_, job): &&(String, Value)| condition(job, kind)["status"] == status;
        assert!(steps.by_ref().find(is).is_some(), "nobody saw {kind} {status}");
    }
}
