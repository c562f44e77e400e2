//! When an indexed job is done before all of its indexes are.

use super::indexes;
use crate::FieldError;
use crate::node::{Findings, Node};

const MAX_RULES: usize = 20;
/// Longest text of indexes.
const MAX_INDEXES: usize = 64 * 1024;

pub(super) fn validate(policy: &Node<'_>, completions: i64, out: &mut Findings) {
    let rules = policy.get("rules");
    if rules.len() == 0 {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        out.push(FieldError::required(&rules.path, detail));
    }
    rules.at_most(MAX_RULES, out);
    rules.items().for_each(|item| rule(&item, completions, out));
}

fn rule(rule: &Node<'_>, completions: i64, out: &mut Findings) {
    let (count, list) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
    if !count.is_set() && !list.is_set() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        out.push(FieldError::required(&rule.path, detail));
    }
    let mut total = 0;
    if list.is_set() {
        list.no_longer_than(MAX_INDEXES, out);
        match indexes::parse(list.text(), completions) {
            Ok(found) => total = indexes::count(&found),
            Err(why) => {
                out.push(list.invalid(format!("error parsing succeededIndexes: {why}")));
            }
        }
    }
    if !count.is_set() {
        return;
    }
    count.non_negative(out);
    if count.int() > completions {
        out.push(count.invalid(format!(
            "must be less than or equal to {completions} (the number of specified completions)"
        )));
    }
    if list.is_set() && count.int() > total {
        out.push(count.invalid(format!(
            "must be less than or equal to {total} (the number of indexes in the specified \
             succeededIndexes field)"
        )));
    }
}
