//! `allOf`, `anyOf`, `oneOf` and `not`.

use serde_json::Value;

use super::{Finding, Outcome, What, check as check_value};
use crate::structural::{Checks, Structural};

pub(super) fn check(
    checks: &Checks,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    out: &mut Outcome,
) {
    let of = |schema: &Structural| check_value(schema, value, old, path);
    if !checks.any_of.is_empty() {
        match best(checks.any_of.iter().map(of), 1) {
            Best::Fits(_) => {}
            Best::None(failed) => {
                out.add(nowhere(format!("{path:?} must validate at least one schema (anyOf)")));
                out.merge(failed);
            }
        }
    }
    if !checks.one_of.is_empty() {
        let message = |found: String| {
            nowhere(format!("{path:?} must validate one and only one schema (oneOf). {found}"))
        };
        match best(checks.one_of.iter().map(of), usize::MAX) {
            Best::Fits(1) => {}
            Best::Fits(count) => out.add(message(format!("Found {count} valid alternatives"))),
            Best::None(failed) => {
                out.add(message("Found none valid".to_owned()));
                out.merge(failed);
            }
        }
    }
    let mut fitting = 0;
    for schema in &checks.all_of {
        let outcome = of(schema);
        fitting += usize::from(outcome.is_valid());
        out.merge(outcome);
    }
    if fitting != checks.all_of.len() {
        let more = if fitting == 0 { ". None validated" } else { "" };
        out.add(nowhere(format!("{path:?} must validate all the schemas (allOf){more}")));
    }
    if checks.not.as_ref().is_some_and(|not| check_value(not, value, None, path).is_valid()) {
        out.add(nowhere(format!("{path:?} must not validate the schema (not)")));
    }
}

enum Best {
    /// So many fit.
    Fits(usize),
    /// None fits; this one got furthest.
    None(Outcome),
}

/// `enough` alternatives that fit are enough.
fn best(outcomes: impl Iterator<Item = Outcome>, enough: usize) -> Best {
    let mut fitting = 0;
    let mut failed: Option<Outcome> = None;
    for outcome in outcomes {
        if outcome.is_valid() {
            fitting += 1;
            if fitting >= enough {
                break;
            }
        } else if failed.as_ref().is_none_or(|best| outcome.matches > best.matches) {
            failed = Some(outcome);
        }
    }
    match failed {
        Some(failed) if fitting == 0 => Best::None(failed),
        _ => Best::Fits(fitting),
    }
}

/// Upstream tells these without a place.
fn nowhere(detail: String) -> Finding {
    Finding { path: None, error: What::Invalid(Value::from(""), detail) }
}
