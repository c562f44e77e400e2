//! The pure core: from a budget and its pods, what its status is.
//!
//! Upstream: `pkg/controller/disruption/disruption.go`, `pkg/apis/policy`'s helpers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::policy::v1::{
    PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::deployment::{Round, portion};
use crate::pod_view::PodView;

/// How long an eviction counts although its pod is still there: upstream `DeletionTimeout`.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
const ALLOWED: &str = "DisruptionAllowed";

/// How many pods there should be, and how many of them healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) pods: i32,
    pub(super) healthy: i32,
}

impl Expected {
    /// From what the pods' controllers are scaled to, if [`needs_scale`].
    pub(super) fn new(spec: &PodDisruptionBudgetSpec, pods: usize, scale: i32) -> Self {
        match (&spec.max_unavailable, &spec.min_available) {
            (Some(most), _) => {
                let most = portion(Some(most), scale, Round::Up);
                Self { pods: scale, healthy: scale.saturating_sub(most).max(0) }
            }
            (None, Some(IntOrString::Int(least))) => {
                Self { pods: i32::try_from(pods).unwrap_or(i32::MAX), healthy: *least }
            }
            (None, Some(percent)) => {
                Self { pods: scale, healthy: portion(Some(percent), scale, Round::Up) }
            }
            (None, None) => Self::default(),
        }
    }
}

/// Whether one has to know what the pods' controllers are scaled to.
pub(super) fn needs_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// What is found out about a budget.
#[derive(Debug)]
pub(super) struct Assessment {
    /// The status, if another one than there is.
    pub(super) status: Option<PodDisruptionBudgetStatus>,
    /// Pods that were to be evicted, and are still there.
    pub(super) late: Vec<Arc<PodView>>,
    /// When an eviction no longer counts.
    pub(super) recheck: Option<Duration>,
}

/// The shortest wait before a budget is looked at again.
const AGAIN_MIN: Duration = Duration::from_millis(1);

/// Judges the pods that a budget selects.
pub(super) fn assess(
    budget: &PodDisruptionBudget,
    pods: &[Arc<PodView>],
    expected: Expected,
    now: Timestamp,
) -> Assessment {
    let known = budget.status.clone().unwrap_or_default();
    let evicted = known.disrupted_pods.clone().unwrap_or_default();
    let (mut kept, mut late, mut recheck, mut healthy) = (BTreeMap::new(), Vec::new(), None, 0);
    for pod in pods.iter().filter(|pod| pod.deleted.is_none()) {
        let eviction = evicted.get(&pod.key.name);
        let left = eviction.map(|at| (at.0 + DELETION_TIMEOUT).duration_since(now));
        match (eviction, left) {
            (Some(at), Some(left)) if !left.is_negative() => {
                kept.insert(pod.key.name.clone(), at.clone());
                // At the very moment it is not late yet, and no wait would only look again.
                let left = Duration::try_from(left).unwrap_or_default().max(AGAIN_MIN);
                recheck = recheck.into_iter().chain([left]).min();
                continue;
            }
            (Some(_), _) => late.push(Arc::clone(pod)),
            _ => {}
        }
        healthy += i32::from(pod.ready);
    }
    let allowed = if expected.pods <= 0 { 0 } else { (healthy - expected.healthy).max(0) };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(expected.healthy),
        expected_pods: Some(expected.pods),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(kept).filter(|kept| !kept.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: known.conditions.clone(),
    };
    let (flag, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_allowed(&mut status, flag, reason, "", now);
    let is_same = status
        == PodDisruptionBudgetStatus {
            disrupted_pods: known.disrupted_pods.clone().filter(|pods| !pods.is_empty()),
            ..known
        };
    Assessment { status: (!is_same).then_some(status), late, recheck }
}

/// The status of a budget about which nothing can be found out: nothing may be disrupted. Nothing
/// when that is said already.
pub(super) fn failed(
    budget: &PodDisruptionBudget,
    why: &str,
    now: Timestamp,
) -> Option<PodDisruptionBudgetStatus> {
    let known = budget.status.clone().unwrap_or_default();
    let mut status = PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..known.clone() };
    set_allowed(&mut status, "False", "SyncFailed", why, now);
    (status != known).then_some(status)
}

fn set_allowed(
    status: &mut PodDisruptionBudgetStatus,
    flag: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let observed_generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    let mut condition = Condition {
        type_: ALLOWED.to_owned(),
        status: flag.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|known| known.type_ == ALLOWED) {
        None => conditions.push(condition),
        Some(known) => {
            if known.status == condition.status {
                condition.last_transition_time = known.last_transition_time.clone();
            }
            *known = condition;
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;

    fn spec(spec: Value) -> PodDisruptionBudgetSpec {
        serde_json::from_value(spec).unwrap()
    }

    fn budget(status: Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({ "metadata": { "name": "b", "generation": 2 },
            "spec": {}, "status": status }))
        .unwrap()
    }

    fn pods(all: &[(&str, bool)]) -> Vec<Arc<PodView>> {
        let pod = |(name, ready): &(&str, bool)| {
            let ready = if *ready { "True" } else { "False" };
            let pod = json!({ "metadata": { "name": name },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] } });
            Arc::new(PodView::new(serde_json::from_value::<Pod>(pod).unwrap()))
        };
        all.iter().map(pod).collect()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    fn judged(
        known: Value,
        all: &[(&str, bool)],
        (pods_wanted, healthy): (i32, i32),
    ) -> Assessment {
        assess(&budget(known), &pods(all), Expected { pods: pods_wanted, healthy }, now())
    }

    #[test]
    fn portions_are_of_the_scale_and_rounded_up() {
        let of = |value: Value, pods, scale| {
            let spec = spec(value);
            let expected = Expected::new(&spec, pods, scale);
            (needs_scale(&spec), expected.pods, expected.healthy)
        };
        assert_eq!(of(json!({ "minAvailable": 2 }), 5, 0), (false, 5, 2));
        assert_eq!(of(json!({ "minAvailable": "50%" }), 2, 7), (true, 7, 4));
        assert_eq!(of(json!({ "maxUnavailable": 1 }), 2, 3), (true, 3, 2));
        assert_eq!(of(json!({ "maxUnavailable": 5 }), 2, 3), (true, 3, 0));
        assert_eq!(of(json!({ "maxUnavailable": "30%" }), 2, 7), (true, 7, 4));
        assert_eq!(of(json!({}), 2, 0), (false, 0, 0));
    }

    #[test]
    fn what_is_healthy_beyond_the_need_may_be_disrupted() {
        let all = [("a", true), ("b", true), ("c", false)];
        let status = judged(json!(null), &all, (3, 1)).status.unwrap();
        let numbers = (status.current_healthy, status.disruptions_allowed, status.expected_pods);
        assert_eq!(numbers, (Some(2), Some(1), Some(3)));
        let condition = &status.conditions.as_ref().unwrap()[0];
        assert_eq!((&*condition.status, &*condition.reason), ("True", "SufficientPods"));
        assert_eq!(condition.observed_generation, Some(2));
        let again = judged(serde_json::to_value(&status).unwrap(), &all, (3, 1));
        assert!(again.status.is_none(), "what is known is not written again");
        let short = judged(json!(null), &all, (3, 2)).status.unwrap();
        let condition = &short.conditions.unwrap()[0];
        assert_eq!((&*condition.status, &*condition.reason), ("False", "InsufficientPods"));
        let none = judged(json!(null), &[], (0, 0)).status.unwrap();
        assert_eq!(none.disruptions_allowed, Some(0));
    }

    #[test]
    fn at_the_end_of_an_eviction_time_has_to_go_on() {
        let known = json!({ "disruptedPods": { "a": "2026-01-01T00:08:00Z" } });
        let recheck = judged(known, &[("a", true)], (1, 1)).recheck;
        assert!(recheck.is_some_and(|wait| !wait.is_zero()), "{recheck:?}");
    }

    #[test]
    fn an_eviction_counts_for_two_minutes() {
        let known = json!({ "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
            "disruptionsAllowed": 0, "disruptedPods": {
                "a": "2026-01-01T00:09:00Z", "b": "2026-01-01T00:07:00Z",
                "gone": "2026-01-01T00:09:59Z" } });
        let judged = judged(known, &[("a", true), ("b", true), ("c", true)], (3, 1));
        let status = judged.status.unwrap();
        assert_eq!((status.current_healthy, status.disruptions_allowed), (Some(2), Some(1)));
        assert_eq!(status.disrupted_pods.unwrap().into_keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(judged.recheck, Some(Duration::from_secs(60)));
        assert_eq!(judged.late.iter().map(|pod| &*pod.key.name).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn nothing_may_be_disrupted_while_nothing_is_known() {
        let known = json!({ "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2,
            "disruptionsAllowed": 1, "observedGeneration": 1 });
        let status = failed(&budget(known), "why", now()).unwrap();
        assert_eq!((status.disruptions_allowed, status.observed_generation), (Some(0), Some(1)));
        let condition = &status.conditions.as_ref().unwrap()[0];
        let words = (&*condition.status, &*condition.reason, &*condition.message);
        assert_eq!(words, ("False", "SyncFailed", "why"));
        let again = budget(serde_json::to_value(&status).unwrap());
        assert!(failed(&again, "why", now()).is_none());
    }
}
