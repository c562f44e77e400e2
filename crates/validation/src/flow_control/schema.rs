//! FlowSchemas: which requests go to which priority level.

use meta::names;
use serde_json::{Value, json};

use crate::FieldError;
use crate::node::{Findings, Node};

const MAX_PRECEDENCE: i64 = 10_000;
/// What rules may be about, sorted.
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let (name, spec) = (object.get("metadata").get("name"), object.get("spec"));
    if let Some(fixed) = mandatory(name.text())
        && *spec.value != fixed
    {
        let detail = format!("spec of '{}' must equal the fixed value", name.text());
        let finding = spec.invalid(detail);
        out.push(finding.shown_as("flowcontrol/v1.FlowSchemaSpec"));
    }
    let precedence = spec.get("matchingPrecedence");
    if precedence.int() <= 0 {
        out.push(precedence.invalid_int("must be a positive value"));
    }
    if precedence.int() > MAX_PRECEDENCE {
        out.push(precedence.invalid(format!("must not be greater than {MAX_PRECEDENCE}")));
    }
    if precedence.int() == 1 && name.text() != "exempt" {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        out.push(precedence.invalid(detail));
    }
    let method = spec.get("distinguisherMethod");
    if method.is_set() && !matches!(method.get("type").text(), "ByNamespace" | "ByUser") {
        let path = method.get("type").path;
        let finding =
            FieldError::not_supported(&path, method.value.clone(), &["ByNamespace", "ByUser"]);
        out.push(finding.shown_as("flowcontrol/v1.FlowDistinguisherMethod"));
    }
    let level = spec.get("priorityLevelConfiguration").get("name");
    if level.text().is_empty() {
        out.push(FieldError::required(&level.path, "must reference a priority level"));
    } else {
        level.subdomain(out);
    }
    for rule in spec.get("rules").items() {
        subjects(&rule, out);
        let (resources, others) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
        if resources.len() + others.len() == 0 {
            let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
            out.push(FieldError::required(&rule.path, detail));
        }
        resources.items().for_each(|item| resource_rule(&item, out));
        others.items().for_each(|item| other_rule(&item, out));
    }
}

/// The spec of the two schemas that everything needs.
fn mandatory(name: &str) -> Option<Value> {
    let rules = |subjects: Value| {
        json!([{
            "subjects": subjects,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                "clusterScope": true, "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    match name {
        "exempt" => Some(json!({
            "priorityLevelConfiguration": {"name": "exempt"},
            "matchingPrecedence": 1,
            "rules": rules(json!([group("system:masters")])),
        })),
        "catch-all" => Some(json!({
            "priorityLevelConfiguration": {"name": "catch-all"},
            "matchingPrecedence": MAX_PRECEDENCE,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": rules(
                json!([group("system:unauthenticated"), group("system:authenticated")])
            ),
        })),
        _ => None,
    }
}

fn subjects(rule: &Node<'_>, out: &mut Findings) {
    let subjects = rule.get("subjects");
    if subjects.len() == 0 {
        let detail = "subjects must contain at least one value";
        out.push(FieldError::required(&subjects.path, detail));
    }
    for subject in subjects.items() {
        let kind = subject.get("kind");
        let members = [("User", "user"), ("Group", "group"), ("ServiceAccount", "serviceAccount")];
        if !members.iter().any(|(known, _)| kind.text() == *known) {
            let known = ["Group", "ServiceAccount", "User"];
            out.push(FieldError::not_supported(&kind.path, kind.text(), &known));
            continue;
        }
        for (of, member) in members {
            let value = subject.get(member);
            if of == kind.text() {
                if !value.is_set() {
                    let detail = format!("{member} is required when subject kind is '{of}'");
                    out.push(FieldError::required(&value.path, detail));
                } else if of == "ServiceAccount" {
                    service_account(&value, out);
                } else {
                    value.get("name").require(out);
                }
            } else if value.is_set() {
                let detail = format!("{member} is forbidden when subject kind is not '{of}'");
                out.push(value.forbidden(detail));
            }
        }
    }
}

fn service_account(account: &Node<'_>, out: &mut Findings) {
    let (name, namespace) = (account.get("name"), account.get("namespace"));
    if name.text().is_empty() {
        out.push(FieldError::required(&name.path, ""));
    } else if name.text() != "*" {
        name.subdomain(out);
    }
    if namespace.text().is_empty() {
        let detail = "must specify namespace for service account";
        out.push(FieldError::required(&namespace.path, detail));
    } else {
        namespace.label(out);
    }
}

fn verbs(rule: &Node<'_>, out: &mut Findings) {
    let verbs = rule.get("verbs");
    let has_all = verbs.items().any(|verb| verb.text() == "*");
    if verbs.len() == 0 {
        let detail = "verbs must contain at least one value";
        out.push(FieldError::required(&verbs.path, detail));
    } else if has_all {
        if verbs.len() > 1 {
            out.push(verbs.invalid("if '*' is present, must not specify other verbs"));
        }
    } else if !verbs.items().all(|verb| VERBS.contains(&verb.text())) {
        out.push(FieldError::not_supported(&verbs.path, verbs.value.clone(), &VERBS));
    }
}

fn list(list: &Node<'_>, required: &str, others: &str, out: &mut Findings) {
    if list.len() == 0 {
        out.push(FieldError::required(&list.path, required));
    } else if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        let detail = format!("if '*' is present, must not specify other {others}");
        out.push(list.invalid(detail));
    }
}

fn resource_rule(rule: &Node<'_>, out: &mut Findings) {
    verbs(rule, out);
    let groups = "resource rules must supply at least one api group";
    list(&rule.get("apiGroups"), groups, "api groups", out);
    let resources = "resource rules must supply at least one resource";
    list(&rule.get("resources"), resources, "resources", out);
    let namespaces = rule.get("namespaces");
    if namespaces.len() == 0 && rule.get("clusterScope").is_true() {
        return;
    }
    let required = "resource rules that are not cluster scoped must supply at least one namespace";
    if namespaces.len() > 0 && namespaces.items().all(|item| item.text() != "*") {
        for item in namespaces.items() {
            for text in names::dns1123_label(item.text()) {
                let each = "each member of this list must be '*' or a DNS-1123 label";
                out.push(item.invalid_text(format!("{each}; {text}")));
            }
        }
    } else {
        list(&namespaces, required, "namespaces", out);
    }
}

fn other_rule(rule: &Node<'_>, out: &mut Findings) {
    verbs(rule, out);
    let urls = rule.get("nonResourceURLs");
    let required = "nonResourceURLs must contain at least one value";
    if urls.len() > 0 && urls.items().all(|url| url.text() != "*") {
        urls.items().for_each(|url| path(&url, out));
    } else {
        list(&urls, required, "non-resource URLs", out);
    }
}

fn path(url: &Node<'_>, out: &mut Findings) {
    let text = url.text();
    if text.is_empty() {
        out.push(url.invalid_text("must not be empty"));
        return;
    }
    if text == "/" {
        return;
    }
    let wildcard = text.trim_end_matches('*');
    let is_suffix = !wildcard.contains('*') && text.len() <= wildcard.len() + 1;
    for (is_wrong, detail) in [
        (!text.starts_with('/'), "must start with slash"),
        (text.contains(' '), "must not contain white-space"),
        (text.contains("//"), "must not contain double slash"),
        (
            text.contains('*') && !(is_suffix && wildcard.ends_with('/')),
            "wildcard can only do suffix matching",
        ),
    ] {
        if is_wrong {
            out.push(url.invalid(detail));
        }
    }
}
