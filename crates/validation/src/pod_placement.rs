//! Where a pod that waits behind its gates may run: it may only become choosier.

use serde_json::Value;

use crate::FieldError;
use crate::node::{Findings, Node};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Labels may be added to the node selector, and demands to each term of the affinity.
pub(crate) fn narrowed(spec: &Node<'_>, before: &Node<'_>, out: &mut Findings) {
    let (selector, had) = (spec.get("nodeSelector"), before.get("nodeSelector"));
    if had.entries().any(|(key, value)| selector.value.get(key) != Some(value.value)) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        out.push(selector.invalid(detail));
    }
    let (now, had) = (required_terms(spec), required_terms(before));
    if had.len() == 0 {
        return;
    }
    if now.len() != had.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        let finding = now.invalid(detail);
        out.push(finding.shown_as("core/v1.NodeSelectorTerm"));
        return;
    }
    for (term, had) in now.items().zip(had.items()) {
        let is_kept = |list: &'static str| {
            let (list, had) = (term.get(list), had.get(list));
            had.items().all(|before| list.items().any(|item| item.value == before.value))
        };
        if !is_kept("matchExpressions") || !is_kept("matchFields") {
            let detail = "only additions are allowed (no mutations or deletions)";
            let finding = FieldError::invalid(&term.path, term.value.clone(), detail);
            out.push(finding.shown_as("core/v1.NodeSelectorTerm"));
        }
    }
}

fn required_terms<'a>(spec: &Node<'a>) -> Node<'a> {
    let affinity = spec.get("affinity").get("nodeAffinity");
    affinity.get(REQUIRED).get("nodeSelectorTerms")
}

/// Puts the old affinity to nodes into a spec.
pub(crate) fn take_node_affinity(spec: &mut Value, old: &Value) {
    match old.pointer("/affinity/nodeAffinity") {
        Some(node) => spec["affinity"]["nodeAffinity"] = node.clone(),
        None => {
            let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) else {
                return;
            };
            affinity.remove("nodeAffinity");
            if affinity.is_empty()
                && let Some(map) = spec.as_object_mut()
            {
                map.remove("affinity");
            }
        }
    }
}
