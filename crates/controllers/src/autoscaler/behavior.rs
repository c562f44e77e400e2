//! How fast a target may follow a recommendation.
//!
//! Upstream: `normalizeDesiredReplicas`, `normalizeDesiredReplicasWithBehaviors` in
//! `pkg/controller/podautoscaler/horizontal.go`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerSpec,
};

/// How long a higher recommendation holds without a behavior: upstream's
/// `--horizontal-pod-autoscaler-downscale-stabilization`.
const DOWNSCALE: SignedDuration = SignedDuration::from_mins(5);
/// Without a behavior the target may double, or grow to this.
const SCALE_UP_LIMIT: i32 = 4;
/// Recommendations and changes older than any window may be: upstream's validation allows 3600 s
/// for windows and 1800 s for periods.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// What was recommended and done to a target, as far as it still matters.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// Replicas that were recommended.
    pub(super) recommended: Vec<(Timestamp, i32)>,
    /// Changes of the number of replicas.
    pub(super) changes: Vec<(Timestamp, i32)>,
}

impl Past {
    /// Forgets what is too old.
    pub(super) fn trim(&mut self, now: Timestamp) {
        let is_recent = |at: &(Timestamp, i32)| now.duration_since(at.0) <= LONGEST;
        self.recommended.retain(is_recent);
        self.changes.retain(is_recent);
    }

    fn within(&self, now: Timestamp, window: SignedDuration) -> impl Iterator<Item = i32> {
        let recent = self.recommended.iter().filter(move |at| now.duration_since(at.0) < window);
        recent.map(|at| at.1)
    }

    /// How many replicas came, or went, in a period.
    fn changed(&self, now: Timestamp, seconds: i32, is_wanted: fn(i32) -> bool) -> i32 {
        let period = SignedDuration::from_secs(seconds.into());
        let recent = self.changes.iter().filter(|at| now.duration_since(at.0) < period);
        recent.map(|at| at.1).filter(|change| is_wanted(*change)).map(i32::abs).sum()
    }
}

/// Reason and text of a condition.
pub(super) type Said = (&'static str, &'static str);

/// What a recommendation comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Normalized {
    pub(super) replicas: i32,
    /// About the condition AbleToScale.
    pub(super) able: Said,
    /// About the condition ScalingLimited, and whether it is.
    pub(super) limited: (bool, Said),
}

const DOWN_STABILIZED: Said = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent \
     recommendation",
);
const UP_STABILIZED: Said = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const READY: Said = ("ReadyForNewScale", "recommended size matches current size");
const IN_RANGE: Said = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: Said =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: Said =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const UP_LIMIT: Said =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Said = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);

/// Applies windows, rates and bounds to a recommendation, and remembers it.
pub(super) fn normalize(
    spec: &HorizontalPodAutoscalerSpec,
    past: &mut Past,
    current: i32,
    recommended: i32,
    now: Timestamp,
) -> Normalized {
    let (stable, able) = match &spec.behavior {
        None => {
            let highest = past.within(now, DOWNSCALE).fold(recommended, i32::max);
            (highest, if highest == recommended { READY } else { DOWN_STABILIZED })
        }
        Some(behavior) => {
            let up = window(behavior.scale_up.as_ref(), 0);
            let down = window(behavior.scale_down.as_ref(), 300);
            let lowest = past.within(now, up).fold(recommended, i32::min);
            let highest = past.within(now, down).fold(recommended, i32::max);
            let stable = current.max(lowest).min(highest);
            let able = match stable {
                stable if stable == recommended => READY,
                _ if recommended > current => UP_STABILIZED,
                _ => DOWN_STABILIZED,
            };
            (stable, able)
        }
    };
    past.recommended.push((now, recommended));
    let (replicas, why) = limit(spec, past, current, stable, now);
    Normalized { replicas, able, limited: (replicas != stable, why) }
}

fn window(rules: Option<&HPAScalingRules>, default: i32) -> SignedDuration {
    let seconds = rules.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(default);
    SignedDuration::from_secs(seconds.into())
}

fn limit(
    spec: &HorizontalPodAutoscalerSpec,
    past: &Past,
    current: i32,
    desired: i32,
    now: Timestamp,
) -> (i32, Said) {
    let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
    let Some(behavior) = &spec.behavior else {
        let rate = current.saturating_mul(2).max(SCALE_UP_LIMIT);
        let (ceiling, why) = if most > rate { (rate, UP_LIMIT) } else { (most, TOO_MANY) };
        return match desired {
            desired if desired < least => (least, TOO_FEW),
            desired if desired > ceiling => (ceiling, why),
            desired => (desired, IN_RANGE),
        };
    };
    if desired > current {
        let rate = up_limit(behavior.scale_up.as_ref(), past, current, now).max(current);
        let (ceiling, why) = if most > rate { (rate, UP_LIMIT) } else { (most, TOO_MANY) };
        if desired > ceiling {
            return (ceiling, why);
        }
    } else if desired < current {
        let rate = down_limit(behavior.scale_down.as_ref(), past, current, now).min(current);
        let (floor, why) = if least < rate { (rate, DOWN_LIMIT) } else { (least, TOO_FEW) };
        if desired < floor {
            return (floor, why);
        }
    }
    (desired, IN_RANGE)
}

fn up_limit(rules: Option<&HPAScalingRules>, past: &Past, current: i32, now: Timestamp) -> i32 {
    let limit = |policy: &HPAScalingPolicy| {
        let came = past.changed(now, policy.period_seconds, |change| change > 0);
        let went = past.changed(now, policy.period_seconds, |change| change < 0);
        let start = current - came + went;
        match policy.type_.as_str() {
            "Pods" => start.saturating_add(policy.value),
            _ => rounded((f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil()),
        }
    };
    // Upstream's defaults: 4 pods or as many again, within 15 seconds.
    let default = [("Pods", 4), ("Percent", 100)];
    let limits = policies(rules, &default).iter().map(limit).collect::<Vec<_>>();
    match rules.and_then(|rules| rules.select_policy.as_deref()) {
        Some("Disabled") => current,
        Some("Min") => limits.into_iter().min().unwrap_or(current),
        _ => limits.into_iter().max().unwrap_or(current),
    }
}

fn down_limit(rules: Option<&HPAScalingRules>, past: &Past, current: i32, now: Timestamp) -> i32 {
    let limit = |policy: &HPAScalingPolicy| {
        let came = past.changed(now, policy.period_seconds, |change| change > 0);
        let went = past.changed(now, policy.period_seconds, |change| change < 0);
        let start = current - came + went;
        match policy.type_.as_str() {
            "Pods" => start.saturating_sub(policy.value),
            _ => rounded((f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)).trunc()),
        }
    };
    let limits = policies(rules, &[("Percent", 100)]).iter().map(limit).collect::<Vec<_>>();
    match rules.and_then(|rules| rules.select_policy.as_deref()) {
        Some("Disabled") => current,
        // The smallest change leaves the most.
        Some("Min") => limits.into_iter().max().unwrap_or(current),
        _ => limits.into_iter().min().unwrap_or(current),
    }
}

fn policies(rules: Option<&HPAScalingRules>, default: &[(&str, i32)]) -> Vec<HPAScalingPolicy> {
    if let Some(policies) = rules.and_then(|rules| rules.policies.clone()) {
        return policies;
    }
    let policy = |(kind, value): &(&str, i32)| HPAScalingPolicy {
        type_: (*kind).to_owned(),
        value: *value,
        period_seconds: 15,
    };
    default.iter().map(policy).collect()
}

/// A number of replicas: what is out of range is as many as there can be.
#[expect(clippy::cast_possible_truncation, reason = "a conversion from f64 saturates")]
pub(super) fn rounded(number: f64) -> i32 {
    number as i32
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(behavior: Value) -> HorizontalPodAutoscalerSpec {
        serde_json::from_value(json!({ "minReplicas": 2, "maxReplicas": 20, "behavior": behavior,
            "scaleTargetRef": { "kind": "Deployment", "name": "d" } }))
        .unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn normalized(spec: &HorizontalPodAutoscalerSpec, past: &Past, to: (i32, i32)) -> (i32, Said) {
        let mut past = past.clone();
        let normalized = normalize(spec, &mut past, to.0, to.1, at(10_000));
        assert_eq!(past.recommended.last(), Some(&(at(10_000), to.1)));
        (normalized.replicas, normalized.limited.1)
    }

    #[test]
    fn without_a_behavior_a_target_doubles_at_most_and_shrinks_slowly() {
        let plain = spec(json!(null));
        let none = Past::default();
        assert_eq!(normalized(&plain, &none, (2, 3)), (3, IN_RANGE));
        assert_eq!(normalized(&plain, &none, (5, 15)), (10, UP_LIMIT));
        assert_eq!(normalized(&plain, &none, (15, 40)), (20, TOO_MANY));
        assert_eq!(normalized(&plain, &none, (5, 1)), (2, TOO_FEW));
        let past = Past { recommended: vec![(at(9_800), 5), (at(9_000), 9)], ..Past::default() };
        assert_eq!(normalized(&plain, &past, (5, 3)).0, 5);
        let held = normalize(&plain, &mut past.clone(), 5, 3, at(10_000));
        assert_eq!(held.able, DOWN_STABILIZED);
    }

    #[test]
    fn policies_limit_what_happens_in_a_period() {
        let behavior = spec(json!({
            "scaleUp": { "selectPolicy": "Max", "policies": [
                { "type": "Pods", "value": 2, "periodSeconds": 60 },
                { "type": "Percent", "value": 10, "periodSeconds": 60 }] },
            "scaleDown": { "stabilizationWindowSeconds": 0, "policies": [
                { "type": "Percent", "value": 50, "periodSeconds": 60 }] } }));
        let none = Past::default();
        assert_eq!(normalized(&behavior, &none, (5, 15)), (7, UP_LIMIT));
        assert_eq!(normalized(&behavior, &none, (10, 2)), (5, DOWN_LIMIT));
        let past = Past { changes: vec![(at(9_950), 1), (at(9_900), 7)], ..Past::default() };
        assert_eq!(normalized(&behavior, &past, (5, 15)), (6, UP_LIMIT));
        let disabled = spec(json!({ "scaleDown": { "selectPolicy": "Disabled",
            "stabilizationWindowSeconds": 0 } }));
        assert_eq!(normalized(&disabled, &none, (10, 2)), (10, DOWN_LIMIT));
    }

    #[test]
    fn windows_hold_both_ways() {
        let behavior = spec(json!({ "scaleUp": { "stabilizationWindowSeconds": 60 } }));
        let past = Past { recommended: vec![(at(9_970), 4)], ..Past::default() };
        assert_eq!(normalized(&behavior, &past, (3, 8)).0, 4);
        let held = normalize(&behavior, &mut past.clone(), 3, 8, at(10_000));
        assert_eq!(held.able, UP_STABILIZED);
        assert_eq!(normalized(&behavior, &past, (4, 2)).0, 4);
    }
}
