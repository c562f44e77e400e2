//! What the kinds of `resource.k8s.io` share: device requests, their configuration, names.
//!
//! Upstream: `pkg/apis/resource/validation`. CEL selectors are checked by [`selector`].

pub(crate) mod claim;
pub(crate) mod class;
pub(crate) mod policy;
pub(crate) mod slice;
pub(crate) mod status;
pub(crate) mod taint_rule;

use std::collections::BTreeSet;

use cel::{Environment, Type};
use meta::names;

use crate::FieldError;
use crate::node::{Findings, Node};

/// Most requests, constraints, configurations and selectors of a claim or class.
const MAX_ENTRIES: usize = 32;
/// Longest expression of a selector.
const MAX_EXPRESSION: usize = 10 * 1024;
/// Most that a selector may be estimated to cost.
const MAX_SELECTOR_COST: u64 = 1_000_000;
/// Longest parameters for a driver.
const MAX_PARAMETERS: usize = 10 * 1024;
/// Longest name of an attribute without its domain.
const MAX_IDENTIFIER: usize = 32;
/// Longest domain before the name of an attribute.
const MAX_DOMAIN: usize = 63;

/// Items that differ in a key, and are checked one by one.
fn set<'a>(
    list: &Node<'a>,
    max: usize,
    key: impl Fn(&Node<'a>) -> &'a str,
    out: &mut Findings,
    mut check: impl FnMut(&Node<'a>, &mut Findings),
) {
    list.at_most(max, out);
    list.items().for_each(|item| check(&item, out));
    let mut seen = BTreeSet::new();
    for item in list.items() {
        if !seen.insert(key(&item)) {
            out.push(FieldError::duplicate(&item.path, key(&item)));
        }
    }
}

/// The name of a driver.
pub(crate) fn driver(name: &Node<'_>, out: &mut Findings) {
    if name.require(out) {
        name.no_longer_than(63, out);
        name.invalid_each(names::dns1123_subdomain(&name.text().to_lowercase()), out);
    }
}

/// The name of a pool: subdomains separated by slashes.
fn pool_name(name: &Node<'_>, out: &mut Findings) {
    if !name.require(out) {
        return;
    }
    name.no_longer_than(253, out);
    for part in name.text().split('/') {
        let wrong = names::dns1123_subdomain(part);
        out.extend(wrong.into_iter().map(|text| FieldError::invalid(&name.path, part, text)));
    }
}

/// A name that may have a domain before it.
fn qualified_name(name: &Node<'_>, out: &mut Findings) {
    let text = name.text();
    if !name.require(out) {
        return;
    }
    let Some((domain, rest)) = text.split_once('/') else {
        return identifier(name, text, out);
    };
    if domain.is_empty() {
        out.push(FieldError::invalid(&name.path, "", "the domain must not be empty"));
    } else {
        if domain.len() > MAX_DOMAIN {
            out.push(FieldError::too_long(&name.path, MAX_DOMAIN));
        }
        let wrong = names::dns1123_subdomain(&domain.to_lowercase());
        out.extend(wrong.into_iter().map(|text| FieldError::invalid(&name.path, domain, text)));
    }
    if rest.is_empty() {
        out.push(FieldError::invalid(&name.path, "", "the name must not be empty"));
    } else {
        identifier(name, rest, out);
    }
}

/// A name that must have a domain before it.
fn fully_qualified_name(name: &Node<'_>, out: &mut Findings) {
    qualified_name(name, out);
    if !name.text().is_empty() && !name.text().contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        out.push(name.invalid_text(detail));
    }
}

fn identifier(at: &Node<'_>, text: &str, out: &mut Findings) {
    if text.len() > MAX_IDENTIFIER {
        out.push(FieldError::too_long(&at.path, MAX_IDENTIFIER));
    }
    let wrong = names::c_identifier(text);
    out.extend(wrong.into_iter().map(|detail| FieldError::invalid(&at.path, text, detail)));
}

fn selectors(selectors: &Node<'_>, out: &mut Findings) {
    selectors.at_most(MAX_ENTRIES, out);
    selectors.items().for_each(|item| selector(&item, out));
}

/// One way to choose devices.
fn selector(selector: &Node<'_>, out: &mut Findings) {
    let cel = selector.get("cel");
    if !cel.is_set() {
        out.push(FieldError::required(&cel.path, ""));
        return;
    }
    let expression = cel.get("expression");
    expression.no_longer_than(MAX_EXPRESSION, out);
    if expression.text().len() > MAX_EXPRESSION {
        return;
    }
    let program = match Environment::device().compile(expression.text()) {
        Ok(program) => program,
        Err(why) => {
            out.push(expression.invalid_text(format!("compilation failed: {why}")));
            return;
        }
    };
    let result = program.result();
    if !matches!(result, Type::Bool | Type::Dyn) {
        let detail = format!("must evaluate to bool or the unknown type, not {result}");
        out.push(expression.invalid(detail));
    } else if program.estimate().max > MAX_SELECTOR_COST {
        out.push(expression.forbidden("too complex, exceeds cost limit"));
    }
}

/// Configuration for a driver.
fn configuration(config: &Node<'_>, out: &mut Findings) {
    let opaque = config.get("opaque");
    if !opaque.is_set() {
        out.push(FieldError::required(&opaque.path, ""));
        return;
    }
    driver(&opaque.get("driver"), out);
    json_object(&opaque.get("parameters"), MAX_PARAMETERS, out);
}

/// An embedded object.
fn json_object(value: &Node<'_>, max: usize, out: &mut Findings) {
    if !value.is_set() {
        out.push(FieldError::required(&value.path, ""));
    } else if value.value.to_string().len() > max {
        out.push(FieldError::too_long(&value.path, max));
    } else if !value.value.is_object() {
        let detail = "must be a valid JSON object";
        out.push(FieldError::invalid(&value.path, "<value omitted>", detail));
    }
}

/// What a request tolerates of a device.
fn toleration(toleration: &Node<'_>, out: &mut Findings) {
    let (key, value) = (toleration.get("key"), toleration.get("value"));
    if !key.text().is_empty() {
        key.invalid_each(names::qualified_name(key.text()), out);
    }
    let operator = toleration.get("operator");
    match operator.text() {
        "Exists" if !value.text().is_empty() => {
            out.push(value.invalid_text("must be empty for operator `Exists`"));
        }
        "Exists" => {}
        "Equal" => value.invalid_each(names::label_value(value.text()), out),
        "" => out.push(FieldError::required(&operator.path, "")),
        other => {
            out.push(FieldError::not_supported(&operator.path, other, &["Equal", "Exists"]));
        }
    }
    effect(&toleration.get("effect"), out);
}

/// The effect of a taint; empty is for the caller to refuse.
fn effect(effect: &Node<'_>, out: &mut Findings) {
    const KNOWN: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
    if !effect.text().is_empty() {
        effect.one_of(&KNOWN, out);
    }
}

/// Whether a name is one of an extended resource.
pub(crate) fn is_extended_resource_name(name: &str) -> bool {
    name.contains('/')
        && !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

#[cfg(test)]
mod tests;
