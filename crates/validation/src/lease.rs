//! Leases.

use meta::names;

use crate::node::{Findings, Node};

/// The one strategy that upstream knows.
pub(crate) const STRATEGY: &str = "OldestEmulationVersion";

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let duration = spec.get("leaseDurationSeconds");
    if duration.is_set() && duration.int() <= 0 {
        out.push(duration.invalid("must be greater than 0"));
    }
    spec.get("leaseTransitions").non_negative(out);
    let strategy = spec.get("strategy");
    if strategy.is_set() {
        self::strategy(&strategy, out);
    }
    let preferred = spec.get("preferredHolder");
    if !preferred.text().is_empty() && strategy.text().is_empty() {
        out.push(preferred.forbidden("may only be specified if `strategy` is defined"));
    }
}

/// How one of several candidates is chosen.
pub(crate) fn strategy(strategy: &Node<'_>, out: &mut Findings) {
    // Others are somebody's own, and have a domain.
    if !strategy.text().contains('/') {
        strategy.one_of(&[STRATEGY], out);
    } else {
        strategy.invalid_each(names::qualified_name(strategy.text()), out);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::tests::{check, object};

    #[test]
    fn a_lease_lasts_and_prefers_by_a_strategy() {
        check(
            "coordination.k8s.io",
            "Lease",
            object(json!({"leaseDurationSeconds": 0, "preferredHolder": "h"})),
            &[
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
            ],
        );
        check(
            "coordination.k8s.io",
            "Lease",
            object(json!({"strategy": "Mine"})),
            &["spec.strategy: Unsupported value: \"Mine\": supported values: \
               \"OldestEmulationVersion\""],
        );
    }
}
