//! `batch`: jobs.

use serde_json::{Map, Value};

use super::{Logic, Rule, fill, labels_from_template};

pub(super) const RULES: &[Rule] = &[
    ("batch/v1.PodFailurePolicyOnPodConditionsPattern", "status", "\"True\""),
    ("batch/v1.CronJobSpec", "concurrencyPolicy", "\"Allow\""),
    ("batch/v1.CronJobSpec", "suspend", "false"),
    ("batch/v1.CronJobSpec", "successfulJobsHistoryLimit", "3"),
    ("batch/v1.CronJobSpec", "failedJobsHistoryLimit", "1"),
];

pub(super) const LOGIC: &[Logic] = &[("batch/v1.Job", job)];

/// The defaults of a job, which a cron job's template does not get.
fn job(job: &mut Map<String, Value>) {
    labels_from_template(job);
    let spec = super::object(job, "spec");
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        spec.insert("completions".to_owned(), 1.into());
    }
    fill(spec, "parallelism", 1);
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    fill(spec, "manualSelector", false);
    let per_index = spec.contains_key("backoffLimitPerIndex");
    fill(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    let fails = spec.contains_key("podFailurePolicy");
    fill(spec, "podReplacementPolicy", if fails { "Failed" } else { "TerminatingOrFailed" });
}
