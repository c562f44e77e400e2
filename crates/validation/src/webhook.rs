//! Webhook configurations.

use std::collections::BTreeSet;

use meta::names;

use crate::FieldError;
use crate::metadata::label_selector;
use crate::node::{Findings, Node};

pub(crate) fn configuration(object: &Node<'_>, mutating: bool, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for hook in object.get("webhooks").items() {
        webhook(&hook, mutating, out);
        review_versions(&hook.get("admissionReviewVersions"), out);
        let name = hook.get("name");
        if !name.text().is_empty() && !seen.insert(name.text()) {
            out.push(FieldError::duplicate(&name.path, name.text()));
        }
    }
}

fn webhook(hook: &Node<'_>, mutating: bool, out: &mut Findings) {
    qualified_domain(&hook.get("name"), out);
    for rule in hook.get("rules").items() {
        operations(&rule, out);
        rule_part(&rule.get("apiGroups"), "API groups", false, out);
        rule_part(&rule.get("apiVersions"), "API versions", true, out);
        rule_part(&rule.get("resources"), "resources", true, out);
        rule.get("scope").one_of(&["*", "Cluster", "Namespaced"], out);
    }
    hook.get("failurePolicy").one_of(&["Fail", "Ignore"], out);
    hook.get("matchPolicy").one_of(&["Equivalent", "Exact"], out);
    let effects = hook.get("sideEffects");
    if effects.is_set() {
        effects.one_of(&["None", "NoneOnDryRun"], out);
    } else {
        let detail = "must specify one of None, NoneOnDryRun";
        out.push(FieldError::required(&effects.path, detail));
    }
    let timeout = hook.get("timeoutSeconds");
    if timeout.is_set() && !(1..=30).contains(&timeout.int()) {
        out.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
    }
    if mutating {
        hook.get("reinvocationPolicy").one_of(&["IfNeeded", "Never"], out);
    }
    label_selector(&hook.get("namespaceSelector"), out);
    label_selector(&hook.get("objectSelector"), out);
    let config = hook.get("clientConfig");
    let service = config.get("service");
    if config.get("url").is_set() == service.is_set() {
        let detail = "exactly one of url or service is required";
        out.push(FieldError::required(&config.path, detail));
    } else if service.is_set() {
        service_reference(&service, out);
    } else {
        url(&config.get("url"), out);
    }
    let conditions = hook.get("matchConditions");
    if conditions.len() > 0 {
        // One that is not evaluated must not look as if it were.
        let detail = "match conditions are not supported by this server yet";
        out.push(conditions.forbidden(detail));
    }
    for condition in hook.get("matchConditions").items() {
        condition.get("expression").require(out);
        let name = condition.get("name");
        if name.require(out) {
            name.invalid_each(names::qualified_name(name.text()), out);
        }
    }
}

/// Where a webhook outside of the cluster is.
fn url(url: &Node<'_>, out: &mut Findings) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = url.text();
    let Some((scheme, rest)) = text.split_once("://") else {
        out.push(url.invalid(format!("'https' is the only allowed URL scheme{FORM}")));
        return;
    };
    if scheme != "https" {
        out.push(url.invalid(format!("'https' is the only allowed URL scheme{FORM}")));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() {
        out.push(url.invalid(format!("host must be specified{FORM}")));
    }
    if authority.contains('@') {
        out.push(url.invalid("user information is not permitted in the URL"));
    }
    if path.contains('#') {
        out.push(url.invalid("fragments are not permitted in the URL"));
    }
    if path.split('#').next().is_some_and(|path| path.contains('?')) {
        out.push(url.invalid("query parameters are not permitted in the URL"));
    }
}

/// A domain of at least three parts.
fn qualified_domain(name: &Node<'_>, out: &mut Findings) {
    if !name.require(out) {
        return;
    }
    let wrong = names::dns1123_subdomain(name.text());
    if !wrong.is_empty() {
        out.push(name.invalid(wrong.join(",")));
    } else if name.text().split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        out.push(name.invalid(detail));
    }
}

fn review_versions(versions: &Node<'_>, out: &mut Findings) {
    if versions.len() == 0 {
        let detail = "must specify one of v1, v1beta1";
        out.push(FieldError::required(&versions.path, detail));
        return;
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        if !seen.insert(version.text()) {
            out.push(version.invalid("duplicate version"));
            continue;
        }
        version.invalid_each(names::dns1035_label(version.text()), out);
    }
    if !seen.contains("v1") && !seen.contains("v1beta1") {
        out.push(versions.invalid("must include at least one of v1, v1beta1"));
    }
}

fn operations(rule: &Node<'_>, out: &mut Findings) {
    const KNOWN: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    let operations = rule.get("operations");
    if operations.len() == 0 {
        out.push(FieldError::required(&operations.path, ""));
    }
    if operations.len() > 1 && operations.items().any(|operation| operation.text() == "*") {
        let detail = "if '*' is present, must not specify other operations";
        out.push(operations.invalid(detail));
    }
    for operation in operations.items() {
        operation.one_of(&KNOWN, out);
    }
}

fn rule_part(part: &Node<'_>, what: &str, non_empty: bool, out: &mut Findings) {
    if part.len() == 0 {
        out.push(FieldError::required(&part.path, ""));
    }
    // Resources may be mixed with their own subresources' wildcards.
    if what != "resources" && part.len() > 1 && part.items().any(|item| item.text() == "*") {
        out.push(part.invalid(format!("if '*' is present, must not specify other {what}")));
    }
    if non_empty {
        for item in part.items().filter(|item| item.text().is_empty()) {
            out.push(FieldError::required(&item.path, ""));
        }
    }
}

fn service_reference(service: &Node<'_>, out: &mut Findings) {
    service.get("name").require(out);
    service.get("namespace").require(out);
    let port = service.get("port");
    if port.is_set() && !(1..=65535).contains(&port.int()) {
        out.push(port.invalid("port is not valid: must be between 1 and 65535, inclusive"));
    }
    let path = service.get("path");
    if path.is_set() && !path.text().starts_with('/') {
        out.push(path.invalid("must start with a '/'"));
    }
}
