//! Jobs and cron jobs.

use crate::FieldError;
use crate::metadata::label_selector;
use crate::node::{Findings, Node};
use crate::workload::{matches_template, pod_template};

pub(crate) fn job(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    job_spec(&spec, out);
    let selector = spec.get("selector");
    if selector.is_set() {
        label_selector(&selector, out);
        matches_template(&selector, &spec.get("template"), out);
    }
}

fn job_spec(spec: &Node<'_>, out: &mut Findings) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(field).non_negative(out);
    }
    let mode = spec.get("completionMode");
    mode.one_of(&["Indexed", "NonIndexed"], out);
    let indexed = mode.text() == "Indexed";
    if indexed {
        let completions = spec.get("completions");
        if !completions.is_set() {
            out.push(FieldError::required(&completions.path, "when completion mode is Indexed"));
        }
        let parallelism = spec.get("parallelism");
        if parallelism.int() > 100_000 {
            out.push(
                parallelism.invalid(
                    "must be less than or equal to 100000 when completion mode is Indexed",
                ),
            );
        }
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if spec.get(field).is_set() {
                out.push(spec.get(field).invalid("requires indexed completion mode"));
            }
        }
    }
    if spec.get("maxFailedIndexes").is_set() && !spec.get("backoffLimitPerIndex").is_set() {
        let path = spec.path.child("backoffLimitPerIndex");
        out.push(FieldError::required(&path, "when maxFailedIndexes is specified"));
    }
    let replacement: &[&str] = if spec.get("podFailurePolicy").is_set() {
        &["Failed"]
    } else {
        &["Failed", "TerminatingOrFailed"]
    };
    spec.get("podReplacementPolicy").one_of(replacement, out);
    let template = spec.get("template");
    pod_template(&template, out);
    let policy = template.get("spec").get("restartPolicy");
    match policy.text() {
        "Always" | "" => {
            out.push(FieldError::required(&policy.path, "valid values: \"OnFailure\", \"Never\""))
        }
        "OnFailure" if spec.get("podFailurePolicy").is_set() => out
            .push(policy.invalid("only \"Never\" is supported when podFailurePolicy is specified")),
        "OnFailure" | "Never" => {}
        other => {
            out.push(FieldError::not_supported(&policy.path, other, &["OnFailure", "Never"]));
        }
    }
}

/// What of a job may not change.
pub(crate) fn job_update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let indexed = spec.get("completionMode").text() == "Indexed";
    if indexed && spec.get("completions").value != before.get("completions").value {
        if spec.get("completions").value != spec.get("parallelism").value {
            let detail = "can only be modified in tandem with spec.parallelism";
            out.push(spec.get("completions").invalid(detail));
        }
    } else {
        spec.get("completions").immutable(&before.get("completions"), out);
    }
    spec.get("selector").immutable(&before.get("selector"), out);
    let suspended =
        before.get("suspend").is_true() && old.get("status").get("startTime").text().is_empty();
    if !suspended {
        spec.get("template").immutable(&before.get("template"), out);
    }
    for field in
        ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        spec.get(field).immutable(&before.get(field), out);
    }
}

pub(crate) fn cron_job(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let schedule = spec.get("schedule");
    if schedule.require(out) && schedule.text().contains("TZ") {
        out.push(schedule.invalid(if spec.get("timeZone").is_set() {
            "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        } else {
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        }));
    }
    if spec.get("timeZone").is_set() && spec.get("timeZone").text().is_empty() {
        out.push(spec.get("timeZone").invalid("timeZone must be nil or non-empty string"));
    }
    spec.get("startingDeadlineSeconds").non_negative(out);
    spec.get("concurrencyPolicy").require_one_of(&["Allow", "Forbid", "Replace"], out);
    let template = spec.get("jobTemplate").get("spec");
    job_spec(&template, out);
    if template.get("manualSelector").is_true() {
        let path = template.path.child("manualSelector");
        out.push(FieldError::not_supported(&path, true, &["nil", "false"]));
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.get(field).non_negative(out);
    }
    let name = object.get("metadata").get("name");
    if name.text().len() > 52 {
        out.push(name.invalid("must be no more than 52 characters"));
    }
}
