//! Roles and bindings.

use meta::names;
use serde_json::{Value, json};

use crate::FieldError;
use crate::metadata::label_selector;
use crate::node::{Findings, Node};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) fn role(object: &Node<'_>, namespaced: bool, out: &mut Findings) {
    for rule in object.get("rules").items() {
        policy_rule(&rule, namespaced, out);
    }
    let aggregation = object.get("aggregationRule");
    if !aggregation.is_set() {
        return;
    }
    let selectors = aggregation.get("clusterRoleSelectors");
    if selectors.len() == 0 {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        out.push(FieldError::required(&selectors.path, detail));
    }
    for selector in selectors.items() {
        label_selector(&selector, out);
        if meta::LabelSelector::from_object(Some(selector.value)).is_err() {
            out.push(FieldError::invalid(&selector.path, Value::Null, "invalid label selector."));
        }
    }
}

fn policy_rule(rule: &Node<'_>, namespaced: bool, out: &mut Findings) {
    if rule.get("verbs").len() == 0 {
        let detail = "verbs must contain at least one value";
        out.push(FieldError::required(&rule.get("verbs").path, detail));
    }
    let urls = rule.get("nonResourceURLs");
    let has = |field: &'static str| rule.get(field).len() > 0;
    if urls.len() > 0 {
        if namespaced {
            out.push(urls.invalid("namespaced rules cannot apply to non-resource URLs"));
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            out.push(urls.invalid(detail));
        }
        return;
    }
    if !has("apiGroups") {
        let detail = "resource rules must supply at least one api group";
        out.push(FieldError::required(&rule.get("apiGroups").path, detail));
    }
    if !has("resources") {
        let detail = "resource rules must supply at least one resource";
        out.push(FieldError::required(&rule.get("resources").path, detail));
    }
}

/// The role of a binding may not change. Upstream quotes its internal struct.
pub(crate) fn role_is_kept(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let role = new.get("roleRef");
    if role.value != old.get("roleRef").value {
        let [group, kind, name] = ["apiGroup", "kind", "name"].map(|field| role.get(field).text());
        let value = json!({"APIGroup": group, "Kind": kind, "Name": name});
        out.push(FieldError::invalid(&role.path, value, "cannot change roleRef"));
    }
}

pub(crate) fn binding(object: &Node<'_>, namespaced: bool, out: &mut Findings) {
    let role = object.get("roleRef");
    let group = role.get("apiGroup");
    if group.text() != GROUP {
        out.push(FieldError::not_supported(&group.path, group.text(), &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    let kind = role.get("kind");
    if !kinds.contains(&kind.text()) {
        out.push(FieldError::not_supported(&kind.path, kind.text(), kinds));
    }
    let name = role.get("name");
    if name.require(out) {
        name.invalid_each(names::path_segment(name.text()), out);
    }
    for subject in object.get("subjects").items() {
        role_subject(&subject, namespaced, out);
    }
}

fn role_subject(subject: &Node<'_>, namespaced: bool, out: &mut Findings) {
    let name = subject.get("name");
    let named = name.require(out);
    let (kind, group) = (subject.get("kind"), subject.get("apiGroup"));
    match kind.text() {
        "ServiceAccount" => {
            if named {
                name.invalid_each(names::dns1123_subdomain(name.text()), out);
            }
            if !group.text().is_empty() {
                out.push(FieldError::not_supported(&group.path, group.text(), &[""]));
            }
            if !namespaced && subject.get("namespace").text().is_empty() {
                out.push(FieldError::required(&subject.get("namespace").path, ""));
            }
        }
        "User" | "Group" => {
            if group.text() != GROUP {
                out.push(FieldError::not_supported(&group.path, group.text(), &[GROUP]));
            }
        }
        other => {
            let known = ["ServiceAccount", "User", "Group"];
            out.push(FieldError::not_supported(&kind.path, other, &known));
        }
    }
}
