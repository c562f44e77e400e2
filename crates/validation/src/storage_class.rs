//! Storage classes.

use std::collections::BTreeSet;

use meta::names;

use crate::FieldError;
use crate::node::{Findings, Node};

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let provisioner = object.get("provisioner");
    if provisioner.require(out) {
        let lower = provisioner.text().to_lowercase();
        let wrong = names::qualified_name(&lower);
        let finding = |text| FieldError::invalid(&provisioner.path, lower.as_str(), text);
        out.extend(wrong.into_iter().map(finding));
    }
    object.get("reclaimPolicy").one_of(&["Delete", "Retain"], out);
    object.get("volumeBindingMode").require_one_of(&["Immediate", "WaitForFirstConsumer"], out);
    for term in object.get("allowedTopologies").items() {
        let expressions = term.get("matchLabelExpressions");
        let mut keys = BTreeSet::new();
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
            if !keys.insert(key.text()) {
                out.push(FieldError::duplicate(&key.path, key.text()));
            }
        }
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
