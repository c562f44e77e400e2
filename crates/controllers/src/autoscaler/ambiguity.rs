//! Which autoscalers would scale the same pods.
//!
//! Upstream: `hpasControllingPodsUnderSelector` in `pkg/controller/podautoscaler/horizontal.go`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use meta::{LabelSelector, ObjectKey};

use crate::pod_view::PodView;

/// The selectors of all targets, by autoscaler.
#[derive(Default)]
pub(super) struct Selectors(Mutex<BTreeMap<ObjectKey, LabelSelector>>);

impl Selectors {
    /// Forgets an autoscaler.
    pub(super) fn remove(&self, key: &ObjectKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Notes which pods an autoscaler's target has; why nobody knows whose they are, if others
    /// have some of them too. `pods` are those of its namespace.
    pub(super) fn claim(
        &self,
        key: &ObjectKey,
        text: &str,
        selector: LabelSelector,
        pods: &[Arc<PodView>],
    ) -> Result<(), String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pods: Vec<_> = pods.iter().filter(|pod| pod.matches(&selector)).collect();
        all.insert(key.clone(), selector);
        let here = all.iter().filter(|(other, _)| other.namespace == key.namespace);
        let rivals: Vec<_> = here
            .filter(|(_, selector)| pods.iter().any(|pod| pod.matches(selector)))
            .map(|(other, _)| format!("{{{} {}}}", other.name, other.namespace))
            .collect();
        if rivals.len() < 2 {
            return Ok(());
        }
        let rivals = rivals.join(" ");
        Err(format!("pods by selector {text} are controlled by multiple HPAs: [{rivals}]"))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn two_that_select_one_pod_are_in_each_others_way() {
        let pod: Pod = serde_json::from_value(json!({ "metadata": {
            "namespace": "n", "name": "p", "labels": { "app": "w", "tier": "x" } } }))
        .unwrap();
        let pods = [Arc::new(PodView::new(pod))];
        let selectors = Selectors::default();
        let claim = |namespace: &str, name: &str, text: &str| {
            let selector = LabelSelector::parse(text).unwrap();
            selectors.claim(&ObjectKey::new(namespace, name), text, selector, &pods)
        };
        assert_eq!(claim("n", "a", "app=w"), Ok(()));
        assert_eq!(claim("n", "a", "app=w"), Ok(()), "again");
        assert_eq!(claim("m", "b", "tier=x"), Ok(()), "elsewhere");
        assert_eq!(claim("n", "c", "app=other"), Ok(()));
        let text = "pods by selector tier=x are controlled by multiple HPAs: [{a n} {d n}]";
        assert_eq!(claim("n", "d", "tier=x"), Err(text.to_owned()));
        selectors.remove(&ObjectKey::new("n", "a"));
        assert_eq!(claim("n", "d", "tier=x"), Ok(()));
    }
}
