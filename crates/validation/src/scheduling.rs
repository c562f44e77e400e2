//! Tolerations, affinity and topology spread.

use std::collections::BTreeMap;

use meta::names;

use crate::FieldError;
use crate::metadata::label_selector;
use crate::node::{Findings, Node};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Tolerations of a pod.
pub(crate) fn tolerations(tolerations: &Node<'_>, out: &mut Findings) {
    for toleration in tolerations.items() {
        let (key, operator) = (toleration.get("key"), toleration.get("operator"));
        let (value, effect) = (toleration.get("value"), toleration.get("effect"));
        if !key.text().is_empty() {
            key.invalid_each(names::qualified_name(key.text()), out);
        } else if operator.text() != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all \
                          values and all keys\"";
            out.push(FieldError::invalid(&operator.path, operator.text(), detail));
        }
        if toleration.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            out.push(FieldError::invalid(&effect.path, effect.text(), detail));
        }
        match operator.text() {
            "" | "Equal" => {
                let wrong = names::label_value(value.text());
                if !wrong.is_empty() {
                    let detail = wrong.join(";");
                    out.push(FieldError::invalid(&operator.path, value.text(), detail));
                }
            }
            "Exists" => {
                if !value.text().is_empty() {
                    let detail = "value must be empty when `operator` is 'Exists'";
                    out.push(FieldError::invalid(&operator.path, value.text(), detail));
                }
            }
            other => {
                let supported = ["Equal", "Exists"];
                out.push(FieldError::not_supported(&operator.path, other, &supported));
            }
        }
        if !effect.text().is_empty() && !EFFECTS.contains(&effect.text()) {
            out.push(FieldError::not_supported(&effect.path, effect.text(), &EFFECTS));
        }
    }
}

/// Affinity of a pod.
pub(crate) fn affinity(affinity: &Node<'_>, out: &mut Findings) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let node = affinity.get("nodeAffinity");
    let required = node.get(REQUIRED);
    if required.is_set() {
        node_selector(&required, out);
    }
    for term in node.get(PREFERRED).items() {
        weight(&term.get("weight"), out);
        node_selector_term(&term.get("preference"), false, out);
    }
    for side in ["podAffinity", "podAntiAffinity"] {
        let side = affinity.get(side);
        for term in side.get(REQUIRED).items() {
            pod_term(&term, out);
        }
        for term in side.get(PREFERRED).items() {
            weight(&term.get("weight"), out);
            pod_term(&term.get("podAffinityTerm"), out);
        }
    }
}

fn weight(weight: &Node<'_>, out: &mut Findings) {
    if !(1..=100).contains(&weight.int()) {
        out.push(FieldError::invalid(&weight.path, weight.int(), "must be in the range 1-100"));
    }
}

/// A node selector, as in affinity and in volumes.
pub(crate) fn node_selector(selector: &Node<'_>, out: &mut Findings) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.len() == 0 {
        let detail = "must have at least one node selector term";
        out.push(FieldError::required(&terms.path, detail));
    }
    for term in terms.items() {
        node_selector_term(&term, true, out);
    }
}

fn node_selector_term(term: &Node<'_>, check_values: bool, out: &mut Findings) {
    for expression in term.get("matchExpressions").items() {
        let (operator, values) = (expression.get("operator"), expression.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.len() == 0 => out.push(FieldError::required(
                &values.path,
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                out.push(values.forbidden(
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ))
            }
            "Gt" | "Lt" if values.len() != 1 => out.push(FieldError::required(
                &values.path,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => out.push(FieldError::invalid(
                &operator.path,
                other,
                "not a valid selector operator",
            )),
        }
        let key = expression.get("key");
        let wrong = names::qualified_name(key.text());
        out.extend(wrong.into_iter().map(|t| FieldError::invalid(&key.path, key.text(), t)));
        if check_values {
            for value in values.items() {
                value.invalid_each(names::label_value(value.text()), out);
            }
        }
    }
    for field in term.get("matchFields").items() {
        let (operator, values) = (field.get("operator"), field.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.len() != 1 => out.push(FieldError::required(
                &values.path,
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            )),
            "In" | "NotIn" => {}
            other => out.push(FieldError::invalid(
                &operator.path,
                other,
                "not a valid selector operator",
            )),
        }
        let key = field.get("key");
        if key.text() != "metadata.name" {
            let detail = "not a valid field selector key";
            out.push(FieldError::invalid(&key.path, key.text(), detail));
            continue;
        }
        for value in values.items() {
            value.invalid_each(names::dns1123_subdomain(value.text()), out);
        }
    }
}

fn pod_term(term: &Node<'_>, out: &mut Findings) {
    let selector = term.get("labelSelector");
    label_selector(&selector, out);
    label_selector(&term.get("namespaceSelector"), out);
    for namespace in term.get("namespaces").items() {
        let path = term.path.child("namespace");
        namespace.under(path).invalid_each(names::dns1123_label(namespace.text()), out);
    }
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = term.get(list);
        if keys.len() > 0 && !selector.is_set() {
            out.push(keys.forbidden("must not be specified when labelSelector is not set"));
        }
        for key in keys.items() {
            key.invalid_each(names::qualified_name(key.text()), out);
        }
    }
    let topology = term.get("topologyKey");
    if topology.text().is_empty() {
        out.push(FieldError::required(&topology.path, "can not be empty"));
    }
    let wrong = names::qualified_name(topology.text());
    out.extend(wrong.into_iter().map(|t| FieldError::invalid(&topology.path, topology.text(), t)));
}

/// Topology spread constraints of a pod.
pub(crate) fn topology_spread(constraints: &Node<'_>, out: &mut Findings) {
    const ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
    let mut seen = BTreeMap::new();
    for constraint in constraints.items() {
        let (skew, key) = (constraint.get("maxSkew"), constraint.get("topologyKey"));
        let action = constraint.get("whenUnsatisfiable");
        if skew.int() <= 0 {
            out.push(FieldError::invalid(&skew.path, skew.int(), "must be greater than zero"));
        }
        if key.text().is_empty() {
            out.push(FieldError::required(&key.path, "can not be empty"));
        }
        if !ACTIONS.contains(&action.text()) {
            out.push(FieldError::not_supported(&action.path, action.text(), &ACTIONS));
        }
        if let Some(first) = seen.insert((key.text(), action.text()), constraint.path.clone()) {
            // Upstream reports the earlier one.
            let path = first.child("{topologyKey, whenUnsatisfiable}");
            let value = format!("{{{}, {}}}", key.text(), action.text());
            out.push(FieldError::duplicate(&path, value));
        }
        let domains = constraint.get("minDomains");
        if domains.is_set() {
            if domains.int() <= 0 {
                out.push(domains.invalid("must be greater than zero"));
            }
            if action.text() != ACTIONS[0] {
                let detail = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    action.text()
                );
                out.push(domains.invalid(detail));
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.get(field).one_of(&["Honor", "Ignore"], out);
        }
        for label in constraint.get("matchLabelKeys").items() {
            label.invalid_each(names::qualified_name(label.text()), out);
        }
        label_selector(&constraint.get("labelSelector"), out);
    }
}
