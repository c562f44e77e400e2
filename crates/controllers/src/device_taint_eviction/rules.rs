//! Taints that administrators give to devices, and what is told of them.
//!
//! Upstream: `DeviceTaintRule` in `pkg/controller/devicetainteviction`, behind the gate
//! `DRADeviceTaintRules`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::DeviceRequestAllocationResult;
use k8s_openapi::api::resource::v1beta2::{DeviceTaintRule, DeviceTaintSelector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use meta::ObjectKey;

use super::Taint;

/// Whether pods still have to go because of a rule.
const IN_PROGRESS: &str = "EvictionInProgress";

/// A rule, reduced to what is read of it.
#[derive(Debug, PartialEq)]
pub(crate) struct RuleView {
    name: String,
    uid: String,
    generation: i64,
    /// Without a selector no device is meant.
    selector: Option<DeviceTaintSelector>,
    effect: String,
    taint: Taint,
    conditions: Vec<Condition>,
}

/// What a rule comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Pods that have to go, or would have to, and the namespaces they are in.
    pub(super) pods: usize,
    pub(super) namespaces: usize,
    /// Pods that have gone since this process began.
    pub(super) evicted: u64,
}

impl Count {
    pub(super) fn of(pods: &[ObjectKey], evicted: u64) -> Self {
        let namespaces: BTreeSet<_> = pods.iter().map(|pod| &pod.namespace).collect();
        Self { pods: pods.len(), namespaces: namespaces.len(), evicted }
    }
}

impl RuleView {
    /// Reduces a rule.
    pub(crate) fn new(rule: DeviceTaintRule) -> Self {
        let taint = rule.spec.taint;
        Self {
            name: rule.metadata.name.unwrap_or_default(),
            uid: rule.metadata.uid.unwrap_or_default(),
            generation: rule.metadata.generation.unwrap_or_default(),
            selector: rule.spec.device_selector,
            effect: taint.effect,
            taint: Taint {
                key: taint.key,
                value: taint.value.unwrap_or_default(),
                since: taint.time_added.map(|time| time.0),
            },
            conditions: rule.status.and_then(|status| status.conditions).unwrap_or_default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn uid(&self) -> &str {
        &self.uid
    }

    /// Whether it evicts.
    pub(super) fn evicts(&self) -> bool {
        self.effect == api::taints::NO_EXECUTE
    }

    /// Whether both say the same, whatever is told of them.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        (&self.selector, &self.effect, &self.taint)
            == (&other.selector, &other.effect, &other.taint)
    }

    /// Whether a device is meant.
    pub(super) fn selects(&self, device: &DeviceRequestAllocationResult) -> bool {
        let fits =
            |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|one| one == has);
        self.selector.as_ref().is_some_and(|selector| {
            fits(&selector.driver, &device.driver)
                && fits(&selector.pool, &device.pool)
                && fits(&selector.device, &device.device)
        })
    }

    pub(super) fn taint(&self) -> &Taint {
        &self.taint
    }

    /// Whether anything is left to be told: of what evicts nobody, that is told once.
    pub(super) fn is_told(&self) -> bool {
        let told = self.conditions.iter().find(|condition| condition.type_ == IN_PROGRESS);
        !self.evicts() && told.is_some_and(|told| told.observed_generation == Some(self.generation))
    }

    /// The conditions that it should have; `None` when it has them.
    pub(super) fn conditions(&self, count: Count, now: Timestamp) -> Option<Vec<Condition>> {
        let Count { pods, namespaces, evicted } = count;
        let (status, reason, message) = if !self.evicts() {
            let text = format!(
                "{pods} pod(s) would be evicted in {namespaces} namespace(s) if the effect was \
                 NoExecute. This information will not be updated again."
            );
            ("False", "NoEffect", text)
        } else if pods > 0 {
            let text = format!(
                "{pods} pod(s) need to be evicted in {namespaces} namespace(s). {evicted} pod(s) \
                 evicted since starting the controller."
            );
            ("True", "PodsPendingEviction", text)
        } else {
            let text = format!("{evicted} pod(s) evicted since starting the controller.");
            ("False", "Completed", text)
        };
        let known = self.conditions.iter().find(|condition| condition.type_ == IN_PROGRESS);
        let since = known.filter(|known| known.status == status);
        let condition = Condition {
            type_: IN_PROGRESS.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: Some(self.generation),
            last_transition_time: since.map_or(Time(now), |one| one.last_transition_time.clone()),
        };
        if known == Some(&condition) {
            return None;
        }
        let others = self.conditions.iter().filter(|other| other.type_ != IN_PROGRESS);
        Some(others.cloned().chain([condition]).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(selector: Value, effect: &str) -> RuleView {
        let rule = json!({ "metadata": { "name": "r", "generation": 2 }, "spec": {
            "deviceSelector": selector, "taint": { "key": "k", "effect": effect } } });
        RuleView::new(serde_json::from_value(rule).unwrap())
    }

    #[test]
    fn a_rule_means_the_devices_that_it_selects() {
        let device = serde_json::from_value(json!({ "driver": "d", "pool": "p", "device": "one",
            "request": "r" }))
        .unwrap();
        let selects = |selector: Value| rule(selector, "NoExecute").selects(&device);
        assert!(selects(json!({})) && selects(json!({ "driver": "d", "device": "one" })));
        assert!(!selects(json!({ "pool": "q" })) && !selects(Value::Null));
    }

    #[test]
    fn it_is_told_how_many_have_to_go() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut rule = rule(json!({}), "NoExecute");
        let pods = [ObjectKey::new("n", "a"), ObjectKey::new("n", "b")];
        let told = rule.conditions(Count::of(&pods, 1), now).unwrap();
        assert_eq!(
            (told[0].status.as_str(), told[0].reason.as_str()),
            ("True", "PodsPendingEviction")
        );
        let text = "2 pod(s) need to be evicted in 1 namespace(s). 1 pod(s) evicted since starting \
                    the controller.";
        assert_eq!(told[0].message, text);
        rule.conditions = told;
        assert_eq!(rule.conditions(Count::of(&pods, 1), now), None);
        let over = rule.conditions(Count::of(&[], 3), now).unwrap();
        assert_eq!((over[0].status.as_str(), over[0].reason.as_str()), ("False", "Completed"));
        assert!(!rule.is_told(), "it goes on");
    }

    #[test]
    fn a_preview_is_told_once() {
        let mut rule = rule(json!({}), "None");
        assert!(!rule.is_told());
        let pods = [ObjectKey::new("n", "a")];
        rule.conditions = rule.conditions(Count::of(&pods, 0), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(rule.conditions[0].reason, "NoEffect");
        assert!(rule.is_told());
        rule.generation = 3;
        assert!(!rule.is_told());
    }
}
