//! Nodes.

use std::collections::BTreeSet;

use meta::names;

use crate::node::{Findings, Node};
use crate::resources::resource_quantity;
use crate::{FieldError, Path};

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    // Upstream reports taints under the metadata.
    let path = Path::new("metadata").child("taints");
    let mut seen = BTreeSet::new();
    for (at, taint) in object.get("spec").get("taints").items().enumerate() {
        let taint = taint.under(path.index(at));
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        key.invalid_each(names::qualified_name(key.text()), out);
        if !names::label_value(value.text()).is_empty() {
            let wrong = names::label_value(value.text());
            out.push(value.invalid(wrong.join(";")));
        }
        effect.require_one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"], out);
        if !seen.insert((key.text(), effect.text())) {
            let mut finding = FieldError::duplicate(&taint.path, taint.value.clone());
            "taints must be unique by key and effect pair".clone_into(&mut finding.detail);
            out.push(finding);
        }
    }
    for list in ["capacity", "allocatable"] {
        for (name, quantity) in object.get("status").get(list).entries() {
            resource_quantity(name, &quantity, out);
        }
    }
    let ranges = object.get("spec").get("podCIDRs");
    for range in ranges.items() {
        if !crate::service::is_cidr(range.text()) {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            out.push(range.invalid(detail));
        }
    }
}

/// What of a node may not change.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let changed = |field: &'static str| {
        before.get(field).is_set() && spec.get(field).value != before.get(field).value
    };
    if changed("podCIDRs") {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        out.push(spec.get("podCIDRs").forbidden(detail));
    }
    if changed("providerID") {
        let detail = "node updates may not change providerID except from \"\" to valid";
        out.push(spec.get("providerID").forbidden(detail));
    }
}
