//! Storage classes.

use std::collections::{BTreeMap, BTreeSet};

use meta::names;

use crate::FieldError;
use crate::node::{Findings, Node};
use crate::storage::{parameters, provisioner};

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    provisioner(&object.get("provisioner"), out);
    parameters(&object.get("parameters"), out);
    object.get("reclaimPolicy").one_of(&["Delete", "Retain"], out);
    object.get("volumeBindingMode").require_one_of(&["Immediate", "WaitForFirstConsumer"], out);
    topologies(&object.get("allowedTopologies"), out);
}

/// Upstream compares each term with those before it, and with as many empty ones as there are
/// terms.
fn topologies(topologies: &Node<'_>, out: &mut Findings) {
    let mut terms = vec![BTreeMap::new(); topologies.len()];
    for term in topologies.items() {
        let expressions = term.get("matchLabelExpressions");
        let mut chosen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for expression in expressions.items() {
            let (key, values) = (expression.get("key"), expression.get("values"));
            if values.len() == 0 {
                out.push(FieldError::required(&values.path, ""));
            }
            let mut seen = BTreeSet::new();
            for value in values.items() {
                if !seen.insert(value.text()) {
                    out.push(FieldError::duplicate(&value.path, value.text()));
                }
            }
            key.invalid_each(names::qualified_name(key.text()), out);
            if chosen.insert(key.text(), seen).is_some() {
                out.push(FieldError::duplicate(&key.path, key.text()));
            }
        }
        for _ in terms.iter().filter(|other| **other == chosen) {
            out.push(FieldError::duplicate(&expressions.path, ""));
        }
        terms.push(chosen);
    }
}

/// What of a class may not change.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    for field in ["parameters", "provisioner"] {
        if new.get(field).value != old.get(field).value {
            out.push(new.get(field).forbidden(format!("updates to {field} are forbidden.")));
        }
    }
    for field in ["reclaimPolicy", "volumeBindingMode"] {
        new.get(field).immutable(&old.get(field), out);
    }
}
