//! Webhook configurations.

use std::collections::BTreeSet;

use cel::Environment;
use cel::admission::Sees;
use meta::names;

use crate::FieldError;
use crate::match_rules::{match_conditions, rule};
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
    hook.get("rules").items().for_each(|item| rule(&item, out));
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
    label_selector(&hook.get("namespaceSelector"), out);
    label_selector(&hook.get("objectSelector"), out);
    if mutating {
        hook.get("reinvocationPolicy").one_of(&["IfNeeded", "Never"], out);
    }
    client_config(&hook.get("clientConfig"), out);
    let sees = Sees { authorizer: true, ..Sees::default() };
    match_conditions(&hook.get("matchConditions"), &Environment::admission(sees), out);
}

/// Where a webhook is.
pub(crate) fn client_config(config: &Node<'_>, out: &mut Findings) {
    let service = config.get("service");
    if config.get("url").is_set() == service.is_set() {
        let detail = "exactly one of url or service is required";
        out.push(FieldError::required(&config.path, detail));
    } else if service.is_set() {
        service_reference(&service, out);
    } else {
        url(&config.get("url"), out);
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
    known_version(versions, out);
}

/// The versions of questions about conversions; they may be absent only by mistake.
pub(crate) fn conversion_versions(versions: &Node<'_>, out: &mut Findings) {
    if versions.len() == 0 {
        out.push(FieldError::required(&versions.path, ""));
        return;
    }
    known_version(versions, out);
}

fn known_version(versions: &Node<'_>, out: &mut Findings) {
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

/// Upstream reports a missing name at the namespace, and the other way round.
fn service_reference(service: &Node<'_>, out: &mut Findings) {
    for (field, at) in [("namespace", "name"), ("name", "namespace")] {
        if service.get(field).text().is_empty() {
            out.push(FieldError::required(&service.path.child(at), ""));
        }
    }
    let port = service.get("port");
    if port.is_set() && !(1..=65535).contains(&port.int()) {
        out.push(port.invalid("port is not valid: must be between 1 and 65535, inclusive"));
    }
    if service.get("path").is_set() {
        service_path(&service.get("path"), out);
    }
}

/// An absolute path of segments that are subdomains.
fn service_path(path: &Node<'_>, out: &mut Findings) {
    let text = path.text();
    if text.is_empty() || text == "/" {
        return;
    }
    if text == "//" {
        out.push(path.invalid("segment[0] may not be empty"));
        return;
    }
    let Some(rest) = text.strip_prefix('/') else {
        out.push(path.invalid("must start with a '/'"));
        return;
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    for (at, segment) in rest.split('/').enumerate() {
        if segment.is_empty() {
            out.push(path.invalid(format!("segment[{at}] may not be empty")));
            continue;
        }
        for text in names::dns1123_subdomain(segment) {
            out.push(path.invalid(format!("segment[{at}]: {text}")));
        }
    }
}
