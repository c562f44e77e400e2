//! Events, in both groups that serve them.
//!
//! Upstream: `pkg/apis/core/validation/events.go`. Paths are those of the core version for both.

use meta::names;
use serde_json::Value;

use crate::node::{Findings, Node};
use crate::{FieldError, Path};

const MAX_WORD: usize = 128;
const MAX_NOTE: usize = 1024;

/// Name in `events.k8s.io/v1`, name in the core group, and the path in findings.
struct Names {
    regarding: &'static str,
    controller: &'static str,
    controller_path: &'static str,
    note: &'static str,
}

const CORE: Names = Names {
    regarding: "involvedObject",
    controller: "reportingComponent",
    controller_path: "reportingComponent",
    note: "message",
};
const OWN_GROUP: Names = Names {
    regarding: "regarding",
    controller: "reportingController",
    controller_path: "reportingController",
    note: "note",
};

pub(crate) fn core(object: &Node<'_>, out: &mut Findings) {
    basics(object, &CORE, out);
}

pub(crate) fn own_group_create(object: &Node<'_>, out: &mut Findings) {
    basics(object, &OWN_GROUP, out);
    series(object, out);
    if !object.get("eventTime").is_set() {
        out.push(FieldError::required(&Path::new("eventTime"), ""));
    }
    let kind = object.get("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        out.push(FieldError::invalid(
            &kind.path,
            "",
            format!("has invalid value: {}", kind.text()),
        ));
    }
    for (field, path) in [
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        ("deprecatedSource", "source"),
    ] {
        let value = object.get(field);
        if value.is_set() && value.int() != 0 || value.len() > 0 || !value.text().is_empty() {
            out.push(FieldError::invalid(&Path::new(path), "", "needs to be unset"));
        }
    }
}

pub(crate) fn own_group_update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    basics(new, &OWN_GROUP, out);
    if new.get("series").value != old.get("series").value {
        series(new, out);
    }
    for (field, path, ty) in [
        ("regarding", "involvedObject", "core/v1.ObjectReference"),
        ("reason", "reason", ""),
        ("note", "message", ""),
        ("deprecatedSource", "source", "core/v1.EventSource"),
        ("deprecatedFirstTimestamp", "firstTimestamp", ""),
        ("deprecatedLastTimestamp", "lastTimestamp", ""),
        ("deprecatedCount", "count", ""),
        ("type", "type", ""),
        ("eventTime", "eventTime", ""),
        ("action", "action", ""),
        ("related", "related", "core/v1.ObjectReference"),
        ("reportingController", "reportingController", ""),
        ("reportingInstance", "reportingInstance", ""),
    ] {
        let (value, before) = (new.get(field), old.get(field));
        if value.value == before.value {
            continue;
        }
        let is_text = matches!(before.value, Value::String(_)) && field != "eventTime";
        let shown = if is_text { Value::from(value.text()) } else { value.value.clone() };
        let finding = FieldError::invalid(&Path::new(path), shown, "field is immutable");
        out.push(finding.shown_as(ty));
    }
}

/// What every event must have; those that name a time must name more.
fn basics(event: &Node<'_>, names: &Names, out: &mut Findings) {
    let namespace = event.get("metadata").get("namespace");
    let about = event.get(names.regarding).get("namespace");
    let matches = if about.text().is_empty() {
        matches!(namespace.text(), "" | "default")
    } else {
        about.text() == namespace.text()
    };
    if !matches {
        let path = Path::new("involvedObject.namespace");
        out.push(FieldError::invalid(&path, about.text(), "does not match event.namespace"));
    }
    namespace.under(Path::new("namespace")).subdomain(out);
    if event.get("eventTime").is_set() {
        reported(event, names, out);
    }
}

fn reported(event: &Node<'_>, names: &Names, out: &mut Findings) {
    let controller = event.get(names.controller).under(Path::new(names.controller_path));
    controller.require(out);
    controller.invalid_each(names::qualified_name(controller.text()), out);
    for field in ["reportingInstance", "action", "reason"] {
        let word = event.get(field);
        word.require(out);
        if word.text().len() > MAX_WORD {
            let detail = format!("can have at most {MAX_WORD} characters");
            out.push(FieldError::invalid(&word.path, "", detail));
        }
    }
    if event.get(names.note).text().len() > MAX_NOTE {
        let detail = format!("can have at most {MAX_NOTE} characters");
        out.push(FieldError::invalid(&Path::new("message"), "", detail));
    }
}

fn series(event: &Node<'_>, out: &mut Findings) {
    let series = event.get("series");
    if !series.is_set() {
        return;
    }
    if series.get("count").int() < 2 {
        let path = series.get("count").path;
        out.push(FieldError::invalid(&path, "", "should be at least 2"));
    }
    if !series.get("lastObservedTime").is_set() {
        out.push(FieldError::required(&series.get("lastObservedTime").path, ""));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::{check, check_update};

    fn event(more: Value) -> Value {
        let mut event = json!({"metadata": {"name": "e", "namespace": "n"},
            "regarding": {"namespace": "n"}, "eventTime": "2024-01-02T03:04:05.000000Z",
            "reportingController": "c", "reportingInstance": "i", "action": "a", "reason": "r",
            "type": "Normal"});
        for (key, value) in more.as_object().unwrap() {
            event[key] = value.clone();
        }
        event
    }

    #[test]
    fn an_event_says_who_reports_what() {
        check("events.k8s.io", "Event", event(json!({})), &[]);
        check(
            "events.k8s.io",
            "Event",
            event(json!({"action": "", "reason": "r".repeat(129), "type": "Odd",
                "deprecatedCount": 1, "series": {"count": 1}})),
            &[
                "action: Required value",
                "reason: Invalid value: \"\": can have at most 128 characters",
                "series.count: Invalid value: \"\": should be at least 2",
                "series.lastObservedTime: Required value",
                "type: Invalid value: \"\": has invalid value: Odd",
                "count: Invalid value: \"\": needs to be unset",
            ],
        );
    }

    #[test]
    fn an_event_is_in_the_namespace_of_what_it_is_about() {
        let event = json!({"metadata": {"name": "e", "namespace": "n"}, "involvedObject": {}});
        check(
            "",
            "Event",
            event,
            &["involvedObject.namespace: Invalid value: \"\": does not match event.namespace"],
        );
    }

    #[test]
    fn only_the_series_of_an_event_changes() {
        let series = json!({"count": 3, "lastObservedTime": "2024-01-02T03:04:05.000000Z"});
        let old = event(json!({}));
        check_update("events.k8s.io", "Event", "", (&event(json!({"series": series})), &old), &[]);
        check_update(
            "events.k8s.io",
            "Event",
            "",
            (&event(json!({"action": "b"})), &old),
            &["action: Invalid value: \"b\": field is immutable"],
        );
    }
}
