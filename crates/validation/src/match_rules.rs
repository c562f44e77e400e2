//! What webhooks and policies apply to: rules, selectors and conditions.
//!
//! Upstream: `pkg/apis/admissionregistration/validation`.

use std::collections::BTreeSet;

use cel::{Environment, Type};
use meta::names;

use crate::FieldError;
use crate::metadata::label_selector;
use crate::node::{Findings, Node};

/// Most conditions of one webhook or policy.
const MAX_CONDITIONS: usize = 64;

/// Operations of rules, sorted.
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// Operations of policies that mutate: nothing of what is deleted can be changed.
const MUTABLE_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

/// Operations, groups, versions and resources.
pub(crate) fn rule(rule: &Node<'_>, out: &mut Findings) {
    operations(&rule.get("operations"), out);
    one_or_all(&rule.get("apiGroups"), "API groups", out);
    let versions = rule.get("apiVersions");
    one_or_all(&versions, "API versions", out);
    non_empty(&versions, out);
    resources(&rule.get("resources"), out);
    rule.get("scope").one_of(&["*", "Cluster", "Namespaced"], out);
}

fn operations(operations: &Node<'_>, out: &mut Findings) {
    if operations.len() == 0 {
        out.push(FieldError::required(&operations.path, ""));
    }
    if operations.len() > 1 && operations.items().any(|operation| operation.text() == "*") {
        let detail = "if '*' is present, must not specify other operations";
        out.push(operations.invalid(detail));
    }
    for operation in operations.items() {
        operation.one_of(&OPERATIONS, out);
    }
}

fn one_or_all(list: &Node<'_>, what: &str, out: &mut Findings) {
    if list.len() == 0 {
        out.push(FieldError::required(&list.path, ""));
    }
    if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        out.push(list.invalid(format!("if '*' is present, must not specify other {what}")));
    }
}

fn non_empty(list: &Node<'_>, out: &mut Findings) {
    for item in list.items().filter(|item| item.text().is_empty()) {
        out.push(FieldError::required(&item.path, ""));
    }
}

/// Resources, with or without subresources; wildcards must not cover what else is named.
fn resources(resources: &Node<'_>, out: &mut Findings) {
    if resources.len() == 0 {
        out.push(FieldError::required(&resources.path, ""));
    }
    let (mut whole, mut subs): (BTreeSet<&str>, BTreeSet<&str>) = Default::default();
    let (mut has_double, mut has_single, mut has_plain) = (false, false, false);
    for item in resources.items() {
        let text = item.text();
        if text.is_empty() {
            out.push(FieldError::required(&item.path, ""));
            continue;
        }
        match text {
            "*/*" => has_double = true,
            "*" => has_single = true,
            _ if !text.contains('/') => has_plain = true,
            _ => {}
        }
        let Some((resource, sub)) = text.split_once('/') else { continue };
        if whole.contains(resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {text}");
            out.push(item.invalid(detail));
        }
        if subs.contains(sub) {
            out.push(item.invalid(format!("if '*/{sub}' is present, must not specify {text}")));
        }
        if sub == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            subs.insert(sub);
        }
    }
    if resources.len() > 1 && has_double {
        let detail = "if '*/*' is present, must not specify other resources";
        out.push(resources.invalid(detail));
    }
    if has_single && has_plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        out.push(resources.invalid(detail));
    }
}

/// What a policy or its binding applies to.
pub(crate) fn match_resources(matching: &Node<'_>, out: &mut Findings) {
    let policy = matching.get("matchPolicy");
    if policy.is_set() {
        policy.one_of(&["Equivalent", "Exact"], out);
    } else {
        out.push(FieldError::required(&policy.path, ""));
    }
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = matching.get(field);
        if selector.is_set() {
            label_selector(&selector, out);
        } else {
            out.push(FieldError::required(&selector.path, ""));
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for item in matching.get(list).items() {
            rule(&item, out);
            resource_names(&item.get("resourceNames"), out);
        }
    }
}

/// What mutates cannot apply to what is deleted. Upstream names no rule here.
pub(crate) fn mutable_operations(matching: &Node<'_>, out: &mut Findings) {
    let rules = matching.get("resourceRules");
    let path = rules.path.child("operations");
    for rule in rules.items() {
        for operation in rule.get("operations").items() {
            operation.under(path.clone()).one_of(&MUTABLE_OPERATIONS, out);
        }
    }
}

fn resource_names(list: &Node<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for name in list.items() {
        name.invalid_each(names::path_segment(name.text()), out);
        if !seen.insert(name.text()) {
            out.push(FieldError::duplicate(&name.path, name.text()));
        }
    }
}

/// Conditions, whose expressions see this environment.
pub(crate) fn match_conditions(
    conditions: &Node<'_>,
    environment: &Environment,
    out: &mut Findings,
) {
    conditions.at_most(MAX_CONDITIONS, out);
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let expression = condition.get("expression");
        if expression.text().trim().is_empty() {
            out.push(FieldError::required(&expression.path, ""));
        } else {
            compiled(&expression, environment, &[Type::Bool], out);
        }
        let name = condition.get("name");
        if name.require(out) {
            name.invalid_each(names::qualified_name(name.text()), out);
            if !seen.insert(name.text()) {
                out.push(FieldError::duplicate(&name.path, name.text()));
            }
        }
    }
}

/// Compiles an expression whose value must be of one of these types; of any when there are none.
/// The type that it has.
pub(crate) fn compiled(
    expression: &Node<'_>,
    environment: &Environment,
    wanted: &[Type],
    out: &mut Findings,
) -> Type {
    let program = match environment.compile(expression.text()) {
        Ok(program) => program,
        Err(why) => {
            out.push(expression.invalid(format!("compilation failed: {why}")));
            return Type::Dyn;
        }
    };
    let found = program.result();
    if !wanted.is_empty() && !wanted.iter().any(|wanted| found.is_exactly(wanted)) {
        let detail = match wanted {
            [one] => format!("must evaluate to {one} but got {found}"),
            several => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                format!("must evaluate to one of [{}] but got {found}", names.join(" "))
            }
        };
        out.push(expression.invalid(detail));
    }
    found.clone()
}
