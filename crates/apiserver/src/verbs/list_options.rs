//! What may be combined in the options of lists and watches.
//!
//! Upstream: `apimachinery/pkg/apis/meta/internalversion/validation/validation.go`.

use meta::{Cause, Status};

use crate::errors;
use crate::query::Query;

/// Checks the options of a list.
pub(crate) fn check_list(query: &Query) -> Result<(), Status> {
    let mut causes = Vec::new();
    let version_match = query.get("resourceVersionMatch").unwrap_or_default();
    let version = query.get("resourceVersion").unwrap_or_default();
    if !version_match.is_empty() {
        if version.is_empty() {
            causes.push(forbidden(
                MATCH,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if query.non_empty("continue").is_some() {
            causes.push(forbidden(MATCH, WITH_CONTINUE));
        }
        if !matches!(version_match, "Exact" | "NotOlderThan") {
            causes.push(unsupported(version_match, "\"Exact\", \"NotOlderThan\", \"\""));
        }
        if (version_match, version) == ("Exact", "0") {
            causes.push(forbidden(
                MATCH,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    if query.get(INITIAL).is_some() {
        causes.push(forbidden(INITIAL, "sendInitialEvents is forbidden for list"));
    }
    refuse(causes)
}

/// Checks the options of a watch. `has_initial` is the feature gate `WatchList`.
pub(crate) fn check_watch(query: &Query, has_initial: bool) -> Result<(), Status> {
    let mut causes = Vec::new();
    let version_match = query.get("resourceVersionMatch").unwrap_or_default();
    let wants_initial = query.get(INITIAL).is_some();
    if wants_initial && !has_initial {
        causes.push(forbidden(
            INITIAL,
            "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        ));
    }
    if wants_initial && version_match != "NotOlderThan" {
        causes.push(forbidden(
            MATCH,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    if !version_match.is_empty() {
        if !wants_initial {
            causes.push(forbidden(
                MATCH,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        if version_match != "NotOlderThan" {
            causes.push(unsupported(version_match, "\"NotOlderThan\""));
        }
        if query.non_empty("continue").is_some() {
            causes.push(forbidden(MATCH, WITH_CONTINUE));
        }
    }
    refuse(causes)
}

const MATCH: &str = "resourceVersionMatch";
const INITIAL: &str = "sendInitialEvents";
const WITH_CONTINUE: &str = "resourceVersionMatch is forbidden when continue is provided";

fn forbidden(field: &str, message: &str) -> Cause {
    Cause {
        reason: "FieldValueForbidden".to_owned(),
        message: format!("Forbidden: {message}"),
        field: field.to_owned(),
    }
}

fn unsupported(value: &str, supported: &str) -> Cause {
    Cause {
        reason: "FieldValueNotSupported".to_owned(),
        message: format!("Unsupported value: {value:?}: supported values: {supported}"),
        field: MATCH.to_owned(),
    }
}

fn refuse(causes: Vec<Cause>) -> Result<(), Status> {
    if causes.is_empty() {
        return Ok(());
    }
    Err(errors::invalid("meta.k8s.io", "ListOptions", "", causes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: &[&str]) {
        let query = Query::parse(query);
        let checked =
            if query.flag("watch") { check_watch(&query, true) } else { check_list(&query) };
        let causes = checked.err().and_then(|status| status.details).unwrap_or_default().causes;
        let found: Vec<_> =
            causes.iter().map(|cause| format!("{} {}", cause.field, cause.reason)).collect();
        assert_eq!(found, expected, "{query:?}");
    }

    const FORBIDDEN: &str = "resourceVersionMatch FieldValueForbidden";
    const UNSUPPORTED: &str = "resourceVersionMatch FieldValueNotSupported";

    #[test]
    fn lists_need_a_version_for_a_match() {
        check("resourceVersion=5&resourceVersionMatch=Exact", &[]);
        check("resourceVersionMatch=Exact", &[FORBIDDEN]);
        check("resourceVersion=0&resourceVersionMatch=Exact", &[FORBIDDEN]);
        check("resourceVersionMatch=Nope", &[FORBIDDEN, UNSUPPORTED]);
        check("resourceVersion=1&resourceVersionMatch=Exact&continue=x", &[FORBIDDEN]);
        check("sendInitialEvents=false", &["sendInitialEvents FieldValueForbidden"]);
    }

    #[test]
    fn initial_events_have_a_feature_gate() {
        let query =
            Query::parse("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
        assert!(check_watch(&query, true).is_ok());
        let status = check_watch(&query, false).unwrap_err();
        assert!(status.message.ends_with(
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the \
             WatchList feature gate is enabled"
        ));
    }

    #[test]
    fn watches_need_initial_events_for_a_match() {
        check("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", &[]);
        check("watch=1&sendInitialEvents=true", &[FORBIDDEN]);
        check("watch=1&resourceVersionMatch=NotOlderThan", &[FORBIDDEN]);
        check(
            "watch=1&sendInitialEvents=true&resourceVersionMatch=Nope",
            &[FORBIDDEN, UNSUPPORTED],
        );
    }
}
