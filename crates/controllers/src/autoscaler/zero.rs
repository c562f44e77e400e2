//! Down to no replicas and up again, behind the gate `HPAScaleToZero`: only a target that the
//! controller itself has brought there comes back, and the condition ScaledToZero says which.
//!
//! Upstream: `pkg/controller/podautoscaler/horizontal.go`, KEP-2021.

use features::Features;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use super::behavior::Said;

/// The type of the condition.
pub(super) const SCALED_TO_ZERO: &str = "ScaledToZero";

const SCALED: Said = ("ScaledToZero", "the HPA controller scaled the workload to zero");
const NOT_SCALED: Said =
    ("NotScaledToZero", "the HPA controller did not scale the workload to zero");

/// What is known of an autoscaler whose target may have no replicas.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zero {
    /// Whether the gate is open.
    pub(super) is_open: bool,
    /// Whether the controller has brought the target there.
    was_scaled: bool,
    /// Whether there is something to measure without pods.
    measures_others: bool,
    /// The fewest replicas.
    least: i32,
}

impl Zero {
    /// What the autoscaler and its condition say.
    pub(super) fn of(autoscaler: &HorizontalPodAutoscaler, features: &Features) -> Self {
        let is_open = features.is_enabled("HPAScaleToZero");
        let status = autoscaler.status.as_ref();
        let mut conditions =
            status.into_iter().flat_map(|status| status.conditions.iter().flatten());
        let condition = conditions.find(|condition| condition.type_ == SCALED_TO_ZERO);
        let mut metrics = autoscaler.spec.metrics.iter().flatten();
        Self {
            is_open,
            was_scaled: is_open && condition.is_some_and(|condition| condition.status == "True"),
            measures_others: metrics
                .any(|metric| ["Object", "External"].contains(&metric.type_.as_str())),
            least: autoscaler.spec.min_replicas.unwrap_or(1),
        }
    }

    /// Whether a target without replicas may get some again.
    pub(super) fn may_return(self) -> bool {
        self.was_scaled && (self.least != 0 || self.measures_others)
    }

    /// What the condition says after a change, and whether it is true; without the gate there is
    /// none.
    pub(super) fn after(self, from: i32, to: i32) -> Option<(bool, Said)> {
        let scaled = from > 0 && to == 0 && self.least == 0 && self.measures_others;
        self.is_open.then_some((scaled, if scaled { SCALED } else { NOT_SCALED }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn zero(gates: &[&str], least: i32, metric: &str, condition: &str) -> Zero {
        let autoscaler = serde_json::from_value(json!({
            "spec": { "minReplicas": least, "maxReplicas": 5, "metrics": [{ "type": metric }],
                "scaleTargetRef": { "kind": "Deployment", "name": "d" } },
            "status": { "desiredReplicas": 0,
                "conditions": [{ "type": "ScaledToZero", "status": condition }] },
        }));
        Zero::of(&autoscaler.unwrap(), &Features::parse(gates).unwrap())
    }

    const OPEN: &[&str] = &["HPAScaleToZero=true"];

    #[test]
    fn only_what_was_scaled_to_zero_returns() {
        assert!(zero(OPEN, 0, "External", "True").may_return());
        assert!(zero(OPEN, 1, "Resource", "True").may_return());
        // There are no pods that could be measured.
        assert!(!zero(OPEN, 0, "Resource", "True").may_return());
        assert!(!zero(OPEN, 0, "Object", "False").may_return());
        assert!(!zero(&[], 0, "External", "True").may_return());
    }

    #[test]
    fn the_condition_says_who_brought_the_target_to_zero() {
        let external = zero(OPEN, 0, "External", "False");
        assert_eq!(external.after(2, 0), Some((true, SCALED)));
        assert_eq!(external.after(0, 2), Some((false, NOT_SCALED)));
        assert_eq!(external.after(2, 1), Some((false, NOT_SCALED)));
        assert_eq!(zero(&[], 0, "External", "True").after(2, 0), None);
    }
}
