//! What a job does when its pods fail in some way.

use std::collections::BTreeSet;

use meta::names;

use crate::FieldError;
use crate::node::{Findings, Node};

const MAX_RULES: usize = 20;
const MAX_PATTERNS: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

pub(super) fn validate(policy: &Node<'_>, spec: &Node<'_>, out: &mut Findings) {
    let pod = spec.get("template").get("spec");
    let containers: BTreeSet<&str> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| pod.get(list).items())
        .map(|container| container.get("name").text())
        .collect();
    let rules = policy.get("rules");
    rules.at_most(MAX_RULES, out);
    for rule in rules.items() {
        let action = rule.get("action");
        match action.text() {
            "FailIndex" if !spec.get("backoffLimitPerIndex").is_set() => {
                out.push(action.invalid("requires the backoffLimitPerIndex to be set"));
            }
            _ => require_one_of(&action, &ACTIONS, out),
        }
        validate_rule(&rule, &containers, out);
    }
}

fn validate_rule(rule: &Node<'_>, containers: &BTreeSet<&str>, out: &mut Findings) {
    let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
    let without_value = |detail: &str| rule.invalid(detail).without_value();
    if codes.is_set() {
        if conditions.len() > 0 {
            let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
            out.push(without_value(detail));
        }
        exit_codes(&codes, containers, out);
    } else if conditions.len() > 0 {
        pod_conditions(&conditions, out);
    } else {
        let detail = "specifying one of OnExitCodes and OnPodConditions is required";
        out.push(without_value(detail));
    }
}

/// Upstream prints the values as Go prints a list.
fn require_one_of(value: &Node<'_>, supported: &[&str], out: &mut Findings) {
    if value.text().is_empty() {
        let quoted: Vec<String> = supported.iter().map(|word| format!("{word:?}")).collect();
        let detail = format!("valid values: [{}]", quoted.join(" "));
        out.push(FieldError::required(&value.path, detail));
    } else {
        value.one_of(supported, out);
    }
}

fn exit_codes(codes: &Node<'_>, containers: &BTreeSet<&str>, out: &mut Findings) {
    let operator = codes.get("operator");
    require_one_of(&operator, &["In", "NotIn"], out);
    let container = codes.get("containerName");
    if container.is_set() && !containers.contains(container.text()) {
        let detail = "must be one of the container or initContainer names in the pod template";
        out.push(container.invalid(detail));
    }
    let values = codes.get("values");
    if values.len() == 0 {
        out.push(values.invalid("at least one value is required"));
    }
    values.at_most(MAX_EXIT_CODES, out);
    let (mut seen, mut last, mut is_ordered) = (BTreeSet::new(), i64::MIN, true);
    for value in values.items() {
        let code = value.int();
        if operator.text() == "In" && code == 0 {
            out.push(value.invalid("must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            out.push(FieldError::duplicate(&value.path, code));
        }
        is_ordered &= last <= code;
        last = code;
    }
    if !is_ordered {
        out.push(values.invalid("must be ordered"));
    }
}

fn pod_conditions(conditions: &Node<'_>, out: &mut Findings) {
    conditions.at_most(MAX_PATTERNS, out);
    for pattern in conditions.items() {
        let kind = pattern.get("type");
        kind.invalid_each(names::qualified_name(kind.text()), out);
        require_one_of(&pattern.get("status"), &["False", "True", "Unknown"], out);
    }
}
