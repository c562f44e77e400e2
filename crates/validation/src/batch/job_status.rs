//! The status of a job, which only ever moves towards its end.

use std::collections::BTreeSet;

use super::indexes::{self, Intervals};
use crate::FieldError;
use crate::node::{Findings, Node};

pub(crate) fn validate(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (status, before) = (new.get("status"), old.get("status"));
    // What was wrong before may stay as it is.
    let mut found = Vec::new();
    consistent(new, &mut found);
    if status.value != before.value {
        out.append(&mut found);
    }
    progress(new, old, out);
}

fn is_true(status: &Node<'_>, kind: &str) -> bool {
    status.get("conditions").items().any(|condition| {
        condition.get("type").text() == kind && condition.get("status").text() == "True"
    })
}

fn consistent(job: &Node<'_>, out: &mut Findings) {
    let (spec, status) = (job.get("spec"), job.get("status"));
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        status.get(field).non_negative(out);
    }
    uncounted(&status.get("uncountedTerminatedPods"), out);
    let (complete, failed) = (is_true(&status, "Complete"), is_true(&status, "Failed"));
    let (target, criteria) =
        (is_true(&status, "FailureTarget"), is_true(&status, "SuccessCriteriaMet"));
    let conditions = status.get("conditions");
    let indexed = spec.get("completionMode").text() == "Indexed";
    let policy = spec.get("successPolicy").is_set();
    for (is_wrong, detail) in [
        (complete && failed, "cannot set Complete=True and Failed=true conditions"),
        (complete && target, "cannot set Complete=True and FailureTarget=true conditions"),
        (
            failed && !target,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            complete && !criteria,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (criteria && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (
            criteria && target,
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
        (
            policy && indexed && complete && !criteria,
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
    ] {
        if is_wrong {
            out.push(conditions.invalid(detail).without_value());
        }
    }
    times(&status, complete, complete || failed, out);
    counters(&status, complete || failed, out);
    finished_indexes(&spec, &status, indexed, out);
}

fn uncounted(pods: &Node<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for uid in pods.get(list).items() {
            if uid.text().is_empty() {
                out.push(uid.invalid("must not be empty"));
            } else if !seen.insert(uid.text()) {
                out.push(FieldError::duplicate(&uid.path, uid.text()));
            }
        }
    }
}

fn times(status: &Node<'_>, complete: bool, finished: bool, out: &mut Findings) {
    let (start, end) = (status.get("startTime"), status.get("completionTime"));
    if end.is_set() && !complete {
        let detail = "cannot set completionTime when there is no Complete=True condition";
        out.push(end.invalid(detail));
    }
    if complete && !end.is_set() {
        let detail = "completionTime is required for Complete jobs";
        out.push(FieldError::required(&end.path, detail));
    }
    if finished && !start.is_set() {
        let detail = "startTime is required for finished job";
        out.push(FieldError::required(&start.path, detail));
    }
    // Both are canonical, so that their texts stand in the order of the times.
    if start.is_set() && end.is_set() && end.text() < start.text() {
        out.push(end.invalid("must be equal to or after `startTime`"));
    }
}

fn counters(status: &Node<'_>, finished: bool, out: &mut Findings) {
    let (active, terminating) = (status.get("active"), status.get("terminating"));
    if finished {
        if active.int() > 0 {
            out.push(active.invalid("active>0 is invalid for finished job"));
        }
        if terminating.int() > 0 {
            out.push(terminating.invalid("terminating>0 is invalid for finished job"));
        }
        let uncounted = status.get("uncountedTerminatedPods");
        if uncounted.get("succeeded").len() + uncounted.get("failed").len() > 0 {
            let finding = uncounted.invalid("must be empty for finished job");
            out.push(finding.shown_as("batch/v1.UncountedTerminatedPods"));
        }
    }
    if status.get("ready").int() > active.int() {
        out.push(status.get("ready").invalid("cannot set more ready pods than active"));
    }
}

fn finished_indexes(spec: &Node<'_>, status: &Node<'_>, indexed: bool, out: &mut Findings) {
    let (completed, failed) = (status.get("completedIndexes"), status.get("failedIndexes"));
    if !indexed && !completed.text().is_empty() {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        out.push(completed.invalid(detail));
    }
    if failed.is_set() && !spec.get("backoffLimitPerIndex").is_set() {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        out.push(failed.invalid(detail));
    }
    if !indexed {
        return;
    }
    let total = spec.get("completions").int();
    let mut read = |list: &Node<'_>, name: &str| -> Option<Intervals> {
        match indexes::parse(list.text(), total) {
            Ok(found) => Some(found),
            Err(why) => {
                out.push(list.invalid(format!("error parsing {name}: {why}")));
                None
            }
        }
    };
    let (done, lost) = (read(&completed, "completedIndexes"), read(&failed, "failedIndexes"));
    if let (Some(done), Some(lost)) = (done, lost)
        && let Some(index) = indexes::overlap(&lost, &done)
    {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
        out.push(failed.invalid(detail));
    }
}

/// What may not be taken back.
fn progress(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (status, before) = (new.get("status"), old.get("status"));
    let conditions = status.get("conditions");
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if is_true(&before, kind) && !is_true(&status, kind) {
            let detail = format!("cannot disable the terminal {kind}=True condition");
            out.push(conditions.invalid(detail).without_value());
        }
    }
    for field in ["failed", "succeeded"] {
        if status.get(field).int() < before.get(field).int() {
            let detail = format!("cannot decrease the {field} counter");
            out.push(status.get(field).invalid_int(detail));
        }
    }
    if before.get("completionTime").is_set() {
        status.get("completionTime").immutable(&before.get("completionTime"), out);
    }
    let (start, had) = (status.get("startTime"), before.get("startTime"));
    if had.is_set() && start.value != had.value && !new.get("spec").get("suspend").is_true() {
        let detail = "field is immutable for unsuspended job once set";
        let none = serde_json::Value::Null;
        let value = if start.is_set() { start.value.clone() } else { none };
        out.push(FieldError::invalid(&start.path, value, detail));
    }
    let criteria = "SuccessCriteriaMet";
    if is_true(&before, criteria) && !is_true(&status, criteria) {
        let detail = "cannot disable the SuccessCriteriaMet=True condition";
        out.push(conditions.invalid(detail).without_value());
    }
    if is_true(&before, "Complete") && !is_true(&before, criteria) && is_true(&status, criteria) {
        let detail =
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        out.push(conditions.invalid(detail).without_value());
    }
}
