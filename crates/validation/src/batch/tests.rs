//! Jobs and cron jobs: what is refused, and in which words.

use serde_json::{Value, json};

use crate::tests::{check, check_update};

fn job(spec: Value) -> Value {
    let mut spec = spec;
    let labels = json!({"batch.kubernetes.io/controller-uid": "u",
        "batch.kubernetes.io/job-name": "j", "controller-uid": "u", "job-name": "j"});
    spec["template"]["metadata"] = json!({"labels": labels});
    if spec["template"]["spec"].is_null() {
        spec["template"]["spec"] =
            json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    }
    spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}});
    json!({"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": spec})
}

fn cron(spec: Value) -> Value {
    let mut spec = spec;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    spec["jobTemplate"]["spec"]["template"]["spec"] = pod;
    json!({"metadata": {"name": "c", "namespace": "n"}, "spec": spec})
}

#[test]
fn an_indexed_job_has_limits_that_fit() {
    check(
        "batch",
        "Job",
        job(json!({"completionMode": "Indexed", "completions": 3, "parallelism": 100_001,
            "backoffLimitPerIndex": 1, "maxFailedIndexes": 4})),
        &[
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when \
             completion mode is Indexed",
            "spec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions",
        ],
    );
    check(
        "batch",
        "Job",
        job(json!({"maxFailedIndexes": 1, "successPolicy": {"rules": [{"succeededCount": 1}]}})),
        &[
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
            "spec.successPolicy: Invalid value: {\"Rules\":[{\"SucceededIndexes\":null,\
             \"SucceededCount\":1}]}: requires indexed completion mode",
        ],
    );
}

#[test]
fn rules_of_failure_are_about_codes_or_conditions() {
    let rules = json!([
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [0, 2, 1, 1],
            "containerName": "x"}},
        {"action": "X", "onPodConditions": [{"type": "", "status": "Maybe"}]},
        {"onExitCodes": {"values": [1]}, "onPodConditions": [{"type": "A", "status": "True"}]},
    ]);
    let at = "spec.podFailurePolicy.rules";
    check(
        "batch",
        "Job",
        job(json!({"podFailurePolicy": {"rules": rules}})),
        &[
            &format!(
                "{at}[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex \
                 to be set"
            ),
            &format!(
                "{at}[0].onExitCodes.containerName: Invalid value: \"x\": must be one of the \
                 container or initContainer names in the pod template"
            ),
            &format!(
                "{at}[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator"
            ),
            &format!("{at}[0].onExitCodes.values[3]: Duplicate value: 1"),
            &format!("{at}[0].onExitCodes.values: Invalid value: [0,2,1,1]: must be ordered"),
            &format!(
                "{at}[1].action: Unsupported value: \"X\": supported values: \"Count\", \
                 \"FailIndex\", \"FailJob\", \"Ignore\""
            ),
            &format!(
                "{at}[1].onPodConditions[0].type: Invalid value: \"\": name part must be non-empty"
            ),
            &format!(
                "{at}[1].onPodConditions[0].type: Invalid value: \"\": name part must consist of \
                 alphanumeric characters, '-', '_' or '.', and must start and end with an \
                 alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used \
                 for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ),
            &format!(
                "{at}[1].onPodConditions[0].status: Unsupported value: \"Maybe\": supported \
                 values: \"False\", \"True\", \"Unknown\""
            ),
            &format!(
                "{at}[2].action: Required value: valid values: [\"Count\" \"FailIndex\" \
                 \"FailJob\" \"Ignore\"]"
            ),
            &format!(
                "{at}[2]: Invalid value: specifying both OnExitCodes and OnPodConditions is not \
                 supported"
            ),
            &format!(
                "{at}[2].onExitCodes.operator: Required value: valid values: [\"In\" \"NotIn\"]"
            ),
        ],
    );
}

#[test]
fn rules_of_success_count_indexes() {
    let rules = json!([{}, {"succeededIndexes": "0-1", "succeededCount": 3},
        {"succeededIndexes": "7"}, {"succeededCount": 9}]);
    let at = "spec.successPolicy.rules";
    check(
        "batch",
        "Job",
        job(json!({"completionMode": "Indexed", "completions": 5,
            "successPolicy": {"rules": rules}})),
        &[
            &format!(
                "{at}[0]: Required value: at least one of succeededCount or succeededIndexes must \
                 be specified"
            ),
            &format!(
                "{at}[1].succeededCount: Invalid value: 3: must be less than or equal to 2 (the \
                 number of indexes in the specified succeededIndexes field)"
            ),
            &format!(
                "{at}[2].succeededIndexes: Invalid value: \"7\": error parsing succeededIndexes: \
                 too large index: \"7\""
            ),
            &format!(
                "{at}[3].succeededCount: Invalid value: 9: must be less than or equal to 5 (the \
                 number of specified completions)"
            ),
        ],
    );
}

#[test]
fn a_suspended_job_may_be_placed_elsewhere_but_does_not_run_something_else() {
    let mut old = job(json!({"suspend": true}));
    let gvk = meta::GroupVersionKind::new("batch", "v1", "Job");
    schema::apply_defaults(&gvk, &mut old);
    let mut new = old.clone();
    new["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
    new["spec"]["template"]["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "1"}});
    check_update("batch", "Job", "", (&new, &old), &[]);
    old["spec"]["suspend"] = json!(false);
    let findings = crate::validate_update(&gvk, "", &new, &old);
    assert_eq!(findings.len(), 1);
    let text = findings[0].to_string();
    assert!(text.starts_with("spec.template.spec: Invalid value: {\"Volumes\":null,"), "{text}");
    assert!(text.ends_with(": field is immutable"), "{text}");
}

#[test]
fn indexed_completions_change_with_parallelism() {
    let with = |completions: i64, parallelism: i64| {
        job(json!({"completionMode": "Indexed", "completions": completions,
            "parallelism": parallelism}))
    };
    check_update("batch", "Job", "", (&with(3, 3), &with(2, 2)), &[]);
    check_update(
        "batch",
        "Job",
        "",
        (&with(3, 2), &with(2, 2)),
        &["spec.completions: Invalid value: 3: can only be modified in tandem with \
           spec.parallelism"],
    );
}

#[test]
fn the_status_of_a_job_is_consistent_and_final() {
    let with = |status: Value| {
        let mut job = job(json!({}));
        job["status"] = status;
        job
    };
    let done = json!([{"type": "Complete", "status": "True"},
        {"type": "SuccessCriteriaMet", "status": "True"}]);
    check_update(
        "batch",
        "Job",
        "status",
        (&with(json!({"conditions": done, "active": 1})), &with(json!({}))),
        &[
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.startTime: Required value: startTime is required for finished job",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
        ],
    );
    let failed = json!({"failed": 2, "conditions": [{"type": "FailureTarget", "status": "True"}]});
    check_update(
        "batch",
        "Job",
        "status",
        (&with(json!({"failed": 1})), &with(failed)),
        &[
            "status.conditions: Invalid value: cannot disable the terminal FailureTarget=True \
             condition",
            "status.failed: Invalid value: 1: cannot decrease the failed counter",
        ],
    );
}

#[test]
fn a_cron_job_has_a_schedule_in_a_known_zone() {
    check(
        "batch",
        "CronJob",
        cron(json!({"schedule": "61 * * * *", "timeZone": "Mars/X",
            "successfulJobsHistoryLimit": -1})),
        &[
            "spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): \
             61",
            "spec.timeZone: Invalid value: \"Mars/X\": unknown time zone Mars/X",
            "spec.successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to \
             0",
        ],
    );
    check(
        "batch",
        "CronJob",
        cron(json!({"schedule": "TZ=UTC 0 0 * * *", "timeZone": "Local"})),
        &[
            "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use both timeZone field \
             and TZ or CRON_TZ in schedule",
            "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as \
             defined in https://www.iana.org/time-zones",
        ],
    );
}
