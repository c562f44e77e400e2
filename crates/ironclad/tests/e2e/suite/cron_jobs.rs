//! G20: CronJobs, by the real clock: a run that was missed comes at once, the next one with the
//! minute.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use super::{at, name};
use crate::harness::{Harness, collection, pause_for};

const CRON_JOBS: &str = "batch/v1/cronjobs";

fn cron(name: &str, policy: &str, args: &[&str]) -> Value {
    let template = json!({ "spec": { "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": 0,
        "containers": [{ "name": "c", "image": POD_IMAGE, "args": args }] } });
    json!({ "metadata": { "name": name, "labels": { "e2e": "cron" } }, "spec": {
        "schedule": "*/1 * * * ?", "concurrencyPolicy": policy,
        "jobTemplate": { "spec": { "parallelism": 1, "completions": 1, "template": template } } } })
}

/// The jobs that a CronJob has made.
fn runs(harness: &Harness, cron: &str) -> Vec<Value> {
    let all = harness.items(&collection("batch/v1/jobs"));
    let owner = |job: &Value| job["metadata"]["ownerReferences"][0]["name"] == cron;
    all.into_iter().filter(owner).collect()
}

/// The jobs that are listed as active.
fn active(harness: &Harness, cron: &str) -> Vec<String> {
    let status = harness.get(&at(CRON_JOBS, cron))["status"]["active"].clone();
    let list = status.as_array().cloned().unwrap_or_default();
    list.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// \[sig-apps\] CronJob should schedule multiple jobs concurrently; should not schedule jobs when
/// suspended; should not schedule new jobs when ForbidConcurrent; should replace jobs when
/// ReplaceConcurrent
#[test]
fn runs_follow_the_minutes_as_their_policy_says() {
    let harness = Harness::start();
    for (name, policy) in [("allow", "Allow"), ("forbid", "Forbid"), ("replace", "Replace")] {
        harness.create(CRON_JOBS, &cron(name, policy, &["wait"]));
    }
    let mut suspended = cron("suspended", "Allow", &["wait"]);
    suspended["spec"]["suspend"] = json!(true);
    harness.create(CRON_JOBS, &suspended);
    // All of them have missed runs, of which one is caught up on.
    for name in ["allow", "forbid", "replace", "suspended"] {
        let path = at(CRON_JOBS, name);
        let made = harness.get(&path)["metadata"]["creationTimestamp"].clone();
        let missed = json!({ "status": { "lastScheduleTime": earlier(made.as_str().unwrap()) } });
        harness.patch(&format!("{path}/status"), &missed);
    }
    let first = |name: &str| {
        harness.until(&format!("the first run of {name}"), || {
            let active = active(&harness, name);
            (active.len() == 1).then(|| active[0].clone())
        })
    };
    let (allow, forbid, replace) = (first("allow"), first("forbid"), first("replace"));
    // The next minute may be further away than other tests ever wait.
    let second = || active(&harness, "allow").len() > 1;
    (0..300).take_while(|_| !second()).for_each(|_| pause_for(Duration::from_millis(250)));
    let both = active(&harness, "allow");
    assert!(both.len() >= 2 && both.contains(&allow), "{both:?}");
    let replaced = harness.until("another run", || {
        let active = active(&harness, "replace");
        (active.len() == 1 && active[0] != replace).then(|| active[0].clone())
    });
    harness.goes(&at("batch/v1/jobs", &replace));
    assert!(harness.exists(&at("batch/v1/jobs", &replaced)));
    harness.tells(
        "JobAlreadyActive",
        "Not starting job because prior execution is running and \
        concurrency policy is Forbid",
    );
    assert_eq!(active(&harness, "forbid"), [&*forbid]);
    let of_forbid: Vec<_> = runs(&harness, "forbid").iter().map(name).collect();
    assert_eq!(of_forbid, [forbid]);
    assert!(runs(&harness, "suspended").is_empty());
    assert!(active(&harness, "suspended").is_empty());
}

/// Two minutes before a time.
fn earlier(time: &str) -> String {
    let time: jiff::Timestamp = time.parse().unwrap();
    (time - jiff::SignedDuration::from_mins(2)).to_string()
}

/// \[sig-apps\] CronJob should support CronJob API operations
#[test]
fn a_cron_job_is_watched_changed_and_deleted_by_collection() {
    let harness = Harness::start();
    let mut wrong = cron("wrong", "Allow", &["print"]);
    wrong["spec"]["timeZone"] = json!("bad/timezone");
    let refused = harness.request(Method::POST, &collection(CRON_JOBS), Some(&wrong)).unwrap_err();
    assert_eq!(refused.status().unwrap().reason, "Invalid", "{refused}");
    assert!(refused.to_string().contains("unknown time zone bad/timezone"), "{refused}");

    let all = collection(CRON_JOBS);
    let since = harness.now(&all);
    let mut object = cron("c", "Allow", &["print"]);
    // Far from now.
    object["spec"]["schedule"] = json!("0 0 29 2 *");
    harness.create(CRON_JOBS, &object);
    let path = at(CRON_JOBS, "c");
    assert_eq!(harness.items("/apis/batch/v1/cronjobs?labelSelector=e2e=cron").len(), 1);
    harness.merge(&path, &json!({ "metadata": { "annotations": { "patched": "true" } } }));
    harness.update(&path, |cron| cron["metadata"]["annotations"]["updated"] = json!("true"));
    let status = format!("{path}/status");
    let patch = json!({ "metadata": { "annotations": { "patchedstatus": "true" } },
        "status": { "lastScheduleTime": "2026-11-21T00:00:00Z" } });
    let patched = harness.merge(&status, &patch);
    assert_eq!(patched["status"]["lastScheduleTime"], "2026-11-21T00:00:00Z");
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    let later = "2026-11-21T01:00:00Z";
    let updated = harness.update(&status, |cron| {
        cron["status"]["lastScheduleTime"] = json!(later);
    });
    assert_eq!(updated["status"]["lastScheduleTime"], later);
    assert_eq!(harness.get(&status)["status"]["lastScheduleTime"], later);
    harness.delete(&path);
    harness.goes(&path);
    harness.create(CRON_JOBS, &object);
    harness.delete(&format!("{all}?labelSelector=e2e=cron"));
    harness.goes(&path);

    let seen = harness.seen(&all, "e2e=cron", &since);
    let sorts: Vec<_> = seen.iter().map(|event| &*event.0).collect();
    let changes = ["MODIFIED"; 4];
    let expected = [&["ADDED"][..], &changes, &["DELETED", "ADDED", "DELETED"]].concat();
    assert_eq!(sorts, expected);
    let annotations = &seen[2].1["metadata"]["annotations"];
    assert_eq!(
        (&annotations["patched"], &annotations["updated"]),
        (&json!("true"), &json!("true"))
    );
}
