//! What is started, followed and deleted.

use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T12:00:30Z";

fn cron(spec: &Value, status: &Value) -> CronJob {
    let mut cron = json!({
        "metadata": { "name": "c", "namespace": "n", "creationTimestamp": "2026-01-01T11:59:10Z" },
        "spec": { "schedule": "* * * * *", "jobTemplate": {} }, "status": status });
    for (name, value) in spec.as_object().unwrap() {
        cron["spec"][name] = value.clone();
    }
    serde_json::from_value(cron).unwrap()
}

fn job(name: &str, end: &str) -> Arc<Job> {
    let time = format!("2026-01-01T11:00:0{}Z", name.len());
    let job = json!({ "metadata": { "name": name, "uid": name }, "status": {
        "startTime": time, "completionTime": time,
        "conditions": [{ "type": end, "status": "True" }] } });
    Arc::new(serde_json::from_value(job).unwrap())
}

fn plan(cron: &CronJob, jobs: &[Arc<Job>]) -> Plan {
    Plan::new(cron, jobs, &BTreeSet::new(), NOW.parse().unwrap())
}

fn start(plan: &Plan) -> Option<String> {
    plan.start.map(|run| run.to_string())
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.events.iter().map(|(_, reason, _)| *reason).collect()
}

fn active(name: &str) -> Value {
    json!({ "active": [{ "name": name, "uid": name }] })
}

#[test]
fn a_run_that_is_due_is_started_once() {
    let due = plan(&cron(&json!({}), &json!({})), &[]);
    assert_eq!(start(&due).as_deref(), Some("2026-01-01T12:00:00Z"));
    assert_eq!(due.wait, Some(Duration::from_millis(30_100)));
    assert_eq!(job_name(&cron(&json!({}), &json!({})), due.start.unwrap()), "c-29454480");
    let ran = json!({ "lastScheduleTime": "2026-01-01T12:00:00Z" });
    assert_eq!(start(&plan(&cron(&json!({}), &ran), &[])), None);
    assert_eq!(start(&plan(&cron(&json!({ "suspend": true }), &json!({})), &[])), None);
}

#[test]
fn a_policy_says_what_another_run_does() {
    let running = [Arc::new(Job { metadata: job("a", "").metadata.clone(), ..Job::default() })];
    let with = |policy: &str| cron(&json!({ "concurrencyPolicy": policy }), &active("a"));
    let forbidden = plan(&with("Forbid"), &running);
    assert_eq!((start(&forbidden), reasons(&forbidden)), (None, vec!["JobAlreadyActive"]));
    for policy in ["Allow", "Replace"] {
        assert!(plan(&with(policy), &running).start.is_some(), "{policy}");
    }
}

#[test]
fn runs_that_were_missed_are_told() {
    let late = cron(
        &json!({ "schedule": "0 12 * * *", "startingDeadlineSeconds": 10 }),
        &json!({ "lastScheduleTime": "2025-12-31T12:00:00Z" }),
    );
    assert_eq!(start(&plan(&late, &[])), None);
    let many = cron(&json!({}), &json!({ "lastScheduleTime": "2026-01-01T09:00:00Z" }));
    let many = plan(&many, &[]);
    assert_eq!(reasons(&many), ["TooManyMissedTimes"]);
    assert!(many.start.is_some());
}

#[test]
fn a_run_whose_deadline_is_over_is_missed() {
    let cron = cron(&json!({ "startingDeadlineSeconds": 10 }), &json!({}));
    let mut late = plan(&cron, &[]);
    let run = "2026-01-01T12:00:00Z".parse().unwrap();
    late.judge(&cron, &cron.spec, run, NOW.parse().unwrap());
    assert_eq!(start(&late), None);
    let text = "Missed scheduled time to start a job: Thu, 01 Jan 2026 12:00:00 +0000";
    assert_eq!(late.events, [(EventType::Warning, "MissSchedule", text.to_owned())]);
}

#[test]
fn the_list_follows_the_jobs() {
    let done = plan(&cron(&json!({ "suspend": true }), &active("a")), &[job("a", "Complete")]);
    assert_eq!(reasons(&done), ["SawCompletedJob"]);
    assert_eq!(done.events[0].2, "Saw completed job: a, condition: Complete");
    assert_eq!(done.status.active, Some(Vec::new()));
    let at = done.status.last_successful_time.unwrap().0.to_string();
    assert_eq!(at, "2026-01-01T11:00:01Z");
    let cron = cron(&json!({ "suspend": true }), &active("a"));
    let gone = Plan::new(&cron, &[], &BTreeSet::from(["a".to_owned()]), NOW.parse().unwrap());
    assert_eq!(reasons(&gone), ["MissingJob"]);
    assert_eq!(gone.status.active, Some(Vec::new()));
}

#[test]
fn the_oldest_ended_jobs_go() {
    let limits = json!({ "suspend": true, "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 0 });
    let jobs = [job("ccc", "Complete"), job("a", "Complete"), job("bb", "Failed")];
    let plan = plan(&cron(&limits, &json!({})), &jobs);
    let names: Vec<_> = plan.delete.iter().map(|job| job.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["a", "bb"]);
}

#[test]
fn what_cannot_be_read_is_told() {
    let zone = cron(&json!({ "timeZone": "Mars/X" }), &json!({}));
    assert_eq!(
        plan(&zone, &[]).events[0].2,
        "invalid timeZone: \"Mars/X\": unknown time zone Mars/X"
    );
    let wrong = cron(&json!({ "schedule": "61 * * * *" }), &json!({}));
    assert_eq!(reasons(&plan(&wrong, &[])), ["UnparseableSchedule"]);
    let text = "unparseable schedule for cronjob: 61 * * * *";
    assert_eq!(unparseable(&wrong).as_deref(), Some(text));
    assert_eq!(unparseable(&cron(&json!({}), &json!({}))), None);
}

#[test]
fn what_is_wrong_with_a_schedule_is_told() {
    let told = |spec: &Value| plan(&cron(spec, &json!({})), &[]).events;
    let one =
        |reason: &'static str, text: &str| vec![(EventType::Warning, reason, text.to_owned())];
    let never = plan(&cron(&json!({ "schedule": "0 0 31 2 *" }), &json!({})), &[]);
    assert_eq!((never.start, never.wait), (None, None));
    assert_eq!(
        never.events,
        one(
            "InvalidSchedule",
            "invalid schedule: 0 0 31 2 * : time difference between two schedules is less than 1 \
             second"
        )
    );
    assert_eq!(
        told(&json!({ "timeZone": "Mars/Base" })),
        one("UnknownTimeZone", "invalid timeZone: \"Mars/Base\": unknown time zone Mars/Base")
    );
    assert_eq!(
        told(&json!({ "schedule": "TZ=UTC 0 0 1 1 *", "startingDeadlineSeconds": 10 }))[0],
        one(
            "UnsupportedSchedule",
            "CRON_TZ or TZ used in schedule \"TZ=UTC 0 0 1 1 *\" is not officially supported, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
        )[0]
    );
}

#[test]
fn a_run_that_is_too_late_is_not_started() {
    // It was due half a minute ago.
    let within =
        |seconds: i64| plan(&cron(&json!({ "startingDeadlineSeconds": seconds }), &json!({})), &[]);
    assert!(within(31).start.is_some());
    let missed = within(29);
    assert_eq!((missed.start, missed.events), (None, vec![]));
}

#[test]
fn a_job_that_nobody_knows_is_told() {
    let running = [Arc::new(Job { metadata: job("a", "").metadata.clone(), ..Job::default() })];
    let told = plan(&cron(&json!({ "suspend": true }), &json!({})), &running);
    let text = "Saw a job that the controller did not create or forgot: a";
    assert_eq!(told.events, [(EventType::Warning, "UnexpectedJob", text.to_owned())]);
}
