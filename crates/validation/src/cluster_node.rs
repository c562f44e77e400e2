//! Nodes.

use std::collections::BTreeSet;

use meta::names;

use crate::address::{is_ipv4_range, one_of_each_family};
use crate::node::{Findings, Node};
use crate::resources::resource_quantity;
use crate::{FieldError, Path};

const MAX_FEATURE: usize = 253;
const FEATURE: &str = r"^[A-Z][a-zA-Z0-9]*(\/[a-zA-Z][a-zA-Z0-9]*)*$";

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    taints(object, out);
    amounts(object, out);
    let ranges = object.get("spec").get("podCIDRs");
    ranges.items().for_each(|range| crate::address::cidr(&range, out));
    let families = ranges.items().map(|range| is_ipv4_range(range.text()));
    if ranges.len() > 2 || (ranges.len() == 2 && !one_of_each_family(families)) {
        let detail = "may specify no more than one CIDR for each IP family";
        out.push(ranges.invalid(detail));
    }
}

/// Upstream reports taints under the metadata.
fn taints(object: &Node<'_>, out: &mut Findings) {
    let path = Path::new("metadata").child("taints");
    let mut seen = BTreeSet::new();
    for (at, taint) in object.get("spec").get("taints").items().enumerate() {
        let taint = taint.under(path.index(at));
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        key.invalid_each(names::qualified_name(key.text()), out);
        let wrong = names::label_value(value.text());
        if !wrong.is_empty() {
            out.push(value.invalid(wrong.join(";")));
        }
        effect.require_one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"], out);
        if !seen.insert((key.text(), effect.text())) {
            let finding = FieldError::duplicate(&taint.path, taint.value.clone());
            let finding = finding.shown_as("core/v1.Taint");
            out.push(finding.with_detail("taints must be unique by key and effect pair"));
        }
    }
}

fn amounts(object: &Node<'_>, out: &mut Findings) {
    for list in ["capacity", "allocatable"] {
        let list = object.get("status").get(list);
        for (name, quantity) in list.entries() {
            let path = Path::new_in(&list.path, name);
            resource_quantity(name, &quantity.under(path), out);
        }
    }
}

/// What of a node may not change, in its spec as in its status. Upstream checks the taints twice.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    validate(new, out);
    addresses(&new.get("status").get("addresses"), out);
    features(&new.get("status").get("declaredFeatures"), out);
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
    if spec.get("externalID").value != before.get("externalID").value {
        out.push(spec.get("externalID").forbidden("may not be updated"));
    }
    taints(new, out);
}

fn addresses(addresses: &Node<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for address in addresses.items() {
        if !seen.insert((address.get("type").text(), address.get("address").text())) {
            let finding = FieldError::duplicate(&address.path, address.value.clone());
            out.push(finding.shown_as("core/v1.NodeAddress"));
        }
    }
}

/// Names of features, sorted.
fn features(features: &Node<'_>, out: &mut Findings) {
    let mut last = "";
    for feature in features.items() {
        let text = feature.text();
        if text.len() > MAX_FEATURE || !is_feature(text) {
            let detail =
                format!("must have at most {MAX_FEATURE} characters and match regex {FEATURE}");
            out.push(feature.invalid(detail));
        }
        if text == last {
            out.push(FieldError::duplicate(&feature.path, text));
        } else if text < last {
            out.push(features.invalid("list must be sorted alphabetically"));
        }
        last = text;
    }
}

fn is_feature(text: &str) -> bool {
    let is_word = |part: &str| {
        part.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    text.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase())
        && text.split('/').all(is_word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::tests::{check, check_update, object};

    #[test]
    fn taints_differ_and_ranges_are_of_different_families() {
        let taint = json!({"key": "k", "effect": "NoSchedule"});
        let twice = "Duplicate value: {\"Key\":\"k\",\"Value\":\"\",\"Effect\":\"NoSchedule\",\
                     \"TimeAdded\":null}: taints must be unique by key and effect pair";
        check(
            "",
            "Node",
            object(json!({"taints": [taint, taint], "podCIDRs": ["10.0.0.0/8", "11.0.0.0/8"]})),
            &[
                &format!("metadata.taints[1]: {twice}"),
                "spec.podCIDRs: Invalid value: [\"10.0.0.0/8\",\"11.0.0.0/8\"]: may specify no \
                 more than one CIDR for each IP family",
            ],
        );
    }

    #[test]
    fn ranges_and_provider_of_a_node_are_set_once() {
        let old = object(json!({"podCIDRs": ["10.0.0.0/8"], "providerID": "a"}));
        let new = object(json!({"podCIDRs": ["11.0.0.0/8"], "providerID": "b"}));
        check_update("", "Node", "", (&old, &object(json!({}))), &[]);
        check_update(
            "",
            "Node",
            "",
            (&new, &old),
            &[
                "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to \
                 valid",
                "spec.providerID: Forbidden: node updates may not change providerID except from \
                 \"\" to valid",
            ],
        );
    }

    #[test]
    fn features_of_a_node_are_sorted() {
        let with = |features: &[&str]| json!({"metadata": {"name": "n"}, "status": {"declaredFeatures": features}});
        check_update("", "Node", "status", (&with(&["A", "B/c"]), &with(&[])), &[]);
        check_update(
            "",
            "Node",
            "status",
            (&with(&["B", "A", "A"]), &with(&[])),
            &[
                "status.declaredFeatures: Invalid value: [\"B\",\"A\",\"A\"]: list must be sorted \
                 alphabetically",
                "status.declaredFeatures[2]: Duplicate value: \"A\"",
            ],
        );
    }
}
