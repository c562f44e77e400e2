//! Pod disruption budgets.

use crate::metadata::{conditions, label_selector};
use crate::node::{Findings, Node};
use crate::workload::{at_most_all, int_or_percent};

pub(crate) fn disruption_budget(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let (available, unavailable) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if available.is_set() && unavailable.is_set() {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        out.push(spec.invalid(detail).shown_as("policy/v1.PodDisruptionBudgetSpec"));
    }
    for limit in [available, unavailable] {
        if limit.is_set() {
            int_or_percent(&limit, out);
            at_most_all(&limit, out);
        }
    }
    label_selector(&spec.get("selector"), out);
    spec.get("unhealthyPodEvictionPolicy").one_of(&["AlwaysAllow", "IfHealthyBudget"], out);
}

/// What a budget allows at the moment.
pub(crate) fn status(object: &Node<'_>, out: &mut Findings) {
    let status = object.get("status");
    conditions(&status.get("conditions"), out);
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        status.get(field).non_negative(out);
    }
}
