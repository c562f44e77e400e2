//! Cron jobs.

use super::{job, schedule};
use crate::FieldError;
use crate::node::{Findings, Node};

/// The controller appends eleven characters to make the names of jobs.
const MAX_NAME: usize = 52;

pub(crate) fn create(object: &Node<'_>, out: &mut Findings) {
    validate(object, None, out);
    let name = object.get("metadata").get("name");
    if name.text().len() > MAX_NAME {
        out.push(name.invalid(format!("must be no more than {MAX_NAME} characters")));
    }
}

/// What stands in the stored object already is not refused again.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    validate(new, Some(old), out);
}

fn validate(object: &Node<'_>, old: Option<&Node<'_>>, out: &mut Findings) {
    let spec = object.get("spec");
    let before = old.map(|old| old.get("spec"));
    let (when, zone) = (spec.get("schedule"), spec.get("timeZone"));
    if when.require(out) {
        let had_zone =
            before.as_ref().is_some_and(|before| before.get("schedule").text().contains("TZ"));
        schedule_text(&when, zone.is_set(), had_zone, out);
    }
    spec.get("startingDeadlineSeconds").non_negative(out);
    let is_new = before.is_none_or(|before| before.get("timeZone").value != zone.value);
    if zone.is_set() && is_new {
        time_zone(&zone, out);
    }
    spec.get("concurrencyPolicy").require_one_of(&["Allow", "Forbid", "Replace"], out);
    let template = spec.get("jobTemplate").get("spec");
    job::validate_spec(&template, out);
    if template.get("selector").is_set() {
        out.push(template.get("selector").invalid("`selector` will be auto-generated"));
    }
    if template.get("manualSelector").is_true() {
        let path = template.path.child("manualSelector");
        out.push(FieldError::not_supported(&path, true, &["nil", "false"]));
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.get(field).non_negative(out);
    }
}

fn schedule_text(when: &Node<'_>, has_zone: bool, had_zone: bool, out: &mut Findings) {
    if let Err(why) = schedule::check(when.text()) {
        out.push(when.invalid(why));
    }
    if !when.text().contains("TZ") {
        return;
    }
    if has_zone {
        out.push(when.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule"));
    } else if !had_zone {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        out.push(when.invalid(detail));
    }
}

fn time_zone(zone: &Node<'_>, out: &mut Findings) {
    let text = zone.text();
    if text.is_empty() {
        out.push(zone.invalid("timeZone must be nil or non-empty string"));
        return;
    }
    let unknown = format!("unknown time zone {text}");
    if !schedule::may_name_a_zone(text) {
        out.push(zone.invalid(unknown));
        return;
    }
    if text.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in \
                      https://www.iana.org/time-zones";
        out.push(zone.invalid(detail));
    }
    if text != "Local" && !schedule::is_zone(text) {
        out.push(zone.invalid(unknown));
    }
}
