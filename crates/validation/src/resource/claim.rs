//! ResourceClaims and their templates.

use std::collections::BTreeSet;

use super::{MAX_ENTRIES, configuration, fully_qualified_name, selectors, set, toleration};
use crate::FieldError;
use crate::metadata;
use crate::node::{Findings, Node};

/// Most alternatives of one request.
const MAX_ALTERNATIVES: usize = 8;

pub(crate) fn claim(object: &Node<'_>, out: &mut Findings) {
    devices(&object.get("spec").get("devices"), out);
}

/// A claim may not change once it is made.
pub(crate) fn claim_update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    new.get("spec").immutable_as("resource/v1.ResourceClaimSpec", &old.get("spec"), out);
}

pub(crate) fn template(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    metadata::of_template(&spec.get("metadata"), out);
    devices(&spec.get("spec").get("devices"), out);
}

pub(crate) fn template_update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    new.get("spec").immutable_as("resource/v1.ResourceClaimTemplateSpec", &old.get("spec"), out);
}

fn devices(devices: &Node<'_>, out: &mut Findings) {
    let requests = devices.get("requests");
    let known = request_names(&requests);
    set(&requests, MAX_ENTRIES, |request| request.get("name").text(), out, request);
    let constraints = devices.get("constraints");
    constraints.at_most(MAX_ENTRIES, out);
    constraints.items().for_each(|item| constraint(&item, &known, out));
    let configs = devices.get("config");
    configs.at_most(MAX_ENTRIES, out);
    for config in configs.items() {
        references(&config.get("requests"), &known, out);
        configuration(&config, out);
    }
}

/// Everything that a constraint or a configuration may name.
pub(super) fn request_names(requests: &Node<'_>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for request in requests.items() {
        let name = request.get("name").text();
        names.insert(name.to_owned());
        for alternative in request.get("firstAvailable").items() {
            names.insert(format!("{name}/{}", alternative.get("name").text()));
        }
    }
    names
}

fn request(request: &Node<'_>, out: &mut Findings) {
    request.get("name").label(out);
    let (exactly, first) = (request.get("exactly"), request.get("firstAvailable"));
    if first.len() > 0 {
        set(
            &first,
            MAX_ALTERNATIVES,
            |item| item.get("name").text(),
            out,
            |item, out| {
                item.get("name").label(out);
                demand(item, out);
            },
        );
    }
    if exactly.is_set() {
        demand(&exactly, out);
    }
    let text = "exactly one of `exactly` or `firstAvailable` is required";
    match (exactly.is_set(), first.len() > 0) {
        (false, false) => out.push(FieldError::required(&request.path, text)),
        (true, true) => {
            let detail = format!("{text}, but multiple fields are set");
            out.push(FieldError::invalid(&request.path, serde_json::Value::Null, detail));
        }
        _ => {}
    }
}

/// What a request or one of its alternatives wants.
fn demand(demand: &Node<'_>, out: &mut Findings) {
    demand.get("deviceClassName").require_subdomain(out);
    selectors(&demand.get("selectors"), out);
    let (mode, count) = (demand.get("allocationMode"), demand.get("count"));
    match mode.text() {
        "All" if count.int() != 0 => {
            out.push(count.invalid_int("must not be specified when allocationMode is 'All'"));
        }
        "ExactCount" if count.int() <= 0 => {
            out.push(count.invalid_int("must be greater than zero"));
        }
        "All" | "ExactCount" => {}
        other => {
            out.push(FieldError::not_supported(&mode.path, other, &["All", "ExactCount"]));
        }
    }
    demand.get("tolerations").items().for_each(|item| toleration(&item, out));
}

fn constraint(constraint: &Node<'_>, known: &BTreeSet<String>, out: &mut Findings) {
    references(&constraint.get("requests"), known, out);
    let (matching, distinct) =
        (constraint.get("matchAttribute"), constraint.get("distinctAttribute"));
    if matching.is_set() == distinct.is_set() {
        let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but \
                      multiple fields are set";
        out.push(FieldError::required(&constraint.path, detail));
        return;
    }
    for attribute in [matching, distinct] {
        if attribute.is_set() {
            fully_qualified_name(&attribute, out);
        }
    }
}

fn references(requests: &Node<'_>, known: &BTreeSet<String>, out: &mut Findings) {
    set(
        requests,
        MAX_ENTRIES,
        |item| item.text(),
        out,
        |item, out| {
            reference(item, known, out);
        },
    );
}

/// The name of a request, or of one of its alternatives.
pub(super) fn reference(name: &Node<'_>, known: &BTreeSet<String>, out: &mut Findings) {
    let detail = "must be the name of a request in the claim or the name of a request and a \
                  subrequest separated by '/'";
    let parts: Vec<&str> = name.text().split('/').collect();
    if parts.len() > 2 {
        out.push(name.invalid_text(detail));
        return;
    }
    let before = out.len();
    for part in parts {
        let wrong = meta::names::dns1123_label(part);
        out.extend(wrong.into_iter().map(|text| FieldError::invalid(&name.path, part, text)));
    }
    if out.len() == before && !known.contains(name.text()) {
        out.push(name.invalid_text(detail));
    }
}
