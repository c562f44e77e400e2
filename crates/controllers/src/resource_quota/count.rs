//! The pure core: what a quota's objects use, and whether that must be written.

use std::collections::BTreeMap;

use api::Typed;
use api::quota::{Usage, counts, covers, of, quantity_of};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use meta::GroupResource;
use serde_json::Value;

/// Amounts as they are written.
type Amounts = BTreeMap<String, Quantity>;

/// A count under way.
pub(super) struct Count {
    quota: Value,
    hard: Amounts,
    /// What the status says; `None` is no status yet.
    before: (Option<Amounts>, Option<Amounts>),
    used: Usage,
    now: Timestamp,
}

impl Count {
    /// A count of nothing yet.
    pub(super) fn new(quota: &ResourceQuota, now: Timestamp) -> Self {
        let status = quota.status.clone().unwrap_or_default();
        Self {
            quota: quota.to_tree().unwrap_or_default(),
            hard: quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default(),
            before: (status.hard, status.used),
            used: Usage::new(),
            now,
        }
    }

    /// The resource is counted: what nothing uses is zero, and not unknown.
    pub(super) fn begin(&mut self, resource: &GroupResource) {
        for name in self.hard.keys().filter(|name| counts(resource, name)) {
            self.used.entry(name.clone()).or_default();
        }
    }

    /// Counts one object.
    pub(super) fn add(&mut self, resource: &GroupResource, object: &Value) {
        if !covers(&self.quota, resource, object) {
            return;
        }
        for (name, amount) in of(resource, object, self.now) {
            if let Some(used) = self.used.get_mut(&name) {
                *used = *used + amount;
            }
        }
    }

    /// Limits and use to be written, if they are not what the status says.
    pub(super) fn change(self) -> Option<(Amounts, Amounts)> {
        let (hard, known) = self.before;
        let is_set = hard.is_some() && known.is_some();
        let known = known.unwrap_or_default();
        let counted =
            self.used.iter().map(|(name, used)| (name.clone(), Quantity(used.to_string())));
        // What no resource that is served uses keeps the use it had.
        let kept = known.iter().filter(|(name, _)| self.hard.contains_key(*name));
        let mut used: Amounts = kept.map(|(name, used)| (name.clone(), used.clone())).collect();
        used.extend(counted);
        if is_set && are_equal(&hard.unwrap_or_default(), &self.hard) && are_equal(&known, &used) {
            return None;
        }
        Some((self.hard, used))
    }
}

fn are_equal(a: &Amounts, b: &Amounts) -> bool {
    let amount = |text: &Quantity| quantity_of(&Value::String(text.0.clone()));
    a.len() == b.len()
        && a.iter().all(|(name, text)| {
            b.get(name).is_some_and(|other| (amount(text) - amount(other)).is_zero())
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods() -> GroupResource {
        GroupResource { group: String::new(), resource: "pods".to_owned() }
    }

    fn count(quota: Value, objects: &[Value]) -> Option<Value> {
        let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
        let mut count = Count::new(&quota, Timestamp::UNIX_EPOCH);
        count.begin(&pods());
        objects.iter().for_each(|object| count.add(&pods(), object));
        count.change().map(|(hard, used)| json!({ "hard": hard, "used": used }))
    }

    fn pod(cpu: &str, class: &str) -> Value {
        json!({ "spec": { "containers": [{ "resources": { "requests": { "cpu": cpu } } }] },
            "status": { "qosClass": class } })
    }

    #[test]
    fn what_a_quota_names_is_counted_and_nothing_else() {
        let quota = json!({ "spec": { "hard": { "cpu": "2", "pods": "3", "secrets": "1" } } });
        assert_eq!(
            count(quota, &[pod("500m", "Burstable"), pod("1", "Burstable")]),
            Some(json!({ "hard": { "cpu": "2", "pods": "3", "secrets": "1" },
                "used": { "cpu": "1500m", "pods": "2" } }))
        );
    }

    #[test]
    fn an_equal_status_is_not_written() {
        let quota = |hard: &str, used: &str| {
            json!({ "spec": { "hard": { "cpu": "1" } },
                "status": { "hard": { "cpu": hard }, "used": { "cpu": used } } })
        };
        assert_eq!(count(quota("1000m", "500m"), &[pod("0.5", "Burstable")]), None);
        let reset = json!({ "hard": { "cpu": "1" }, "used": { "cpu": "500m" } });
        assert_eq!(count(quota("2", "500m"), &[pod("500m", "Burstable")]), Some(reset));
        let unused = json!({ "hard": { "cpu": "1" }, "used": { "cpu": "0" } });
        assert_eq!(count(quota("1", "500m"), &[]), Some(unused));
    }

    #[test]
    fn pods_out_of_scope_are_not_counted() {
        let quota = json!({ "spec": { "hard": { "pods": "5" }, "scopes": ["BestEffort"] } });
        let counted =
            count(quota, &[pod("1", "Burstable"), json!({"status": {"qosClass": "BestEffort"}})]);
        assert_eq!(counted.unwrap()["used"], json!({ "pods": "1" }));
    }
}
