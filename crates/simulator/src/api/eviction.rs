//! Bindings and evictions of pods.

use meta::{LabelSelector, Reason};
use serde_json::{Value, json};

use super::{Answer, Api, Asked, Target, failure};

impl Api {
    /// Puts a pod on a node.
    pub(super) fn bind(&mut self, asked: Asked<'_>, target: &Target, body: &Value) -> Answer {
        let target = Target { subresource: String::new(), ..target.clone() };
        let pod = self.read(&target)?;
        let bound = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
        let other = &body["metadata"]["uid"];
        if bound
            || !pod["metadata"]["deletionTimestamp"].is_null()
            || (other.is_string() && *other != pod["metadata"]["uid"])
        {
            return Err(failure(Reason::Conflict, "the pod cannot be bound any more"));
        }
        let mut next = pod.clone();
        next["spec"]["nodeName"] = body["target"]["name"].clone();
        let conditions = next["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let mut conditions: Vec<Value> =
            conditions.into_iter().filter(|one| one["type"] != "PodScheduled").collect();
        conditions.push(json!({ "type": "PodScheduled", "status": "True",
            "lastTransitionTime": meta::time::rfc3339(asked.now) }));
        next["status"]["conditions"] = conditions.into();
        self.settle(asked, &target, &pod, next);
        Ok(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
    }

    /// Deletes a pod, if its budget lets it.
    pub(super) fn evict(&mut self, asked: Asked<'_>, target: &Target, body: &Value) -> Answer {
        let target = Target { subresource: String::new(), ..target.clone() };
        let pod = self.read(&target)?;
        let name = target.name.as_str();
        let is_of = |budget: &&Value| {
            let selector = LabelSelector::from_object(budget["spec"].get("selector"));
            budget["metadata"]["namespace"] == *target.namespace
                && selector.is_ok_and(|one| one.matches_value(&pod["metadata"]["labels"]))
        };
        let budget = self.all("policy/poddisruptionbudgets").find(is_of).cloned();
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        if let Some(budget) = budget
            && phase == "Running"
            && pod["metadata"]["deletionTimestamp"].is_null()
        {
            let status = &budget["status"];
            let seen = status["observedGeneration"].as_i64().unwrap_or(0);
            let allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0);
            if seen < budget["metadata"]["generation"].as_i64().unwrap_or(1) || allowed < 1 {
                let text = "Cannot evict pod as it would violate the pod's disruption budget.";
                return Err(failure(Reason::TooManyRequests, text));
            }
            let mut next = budget.clone();
            next["status"]["disruptionsAllowed"] = (allowed - 1).into();
            next["status"]["disruptedPods"][name] = meta::time::rfc3339(asked.now).into();
            let of = budget["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!(
                "/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{of}",
                target.namespace
            );
            let server = Asked { by: "apiserver", ..asked };
            let budget = self.settle(server, &Target::parse(&path), &budget, next);
            let mut checks = std::mem::take(&mut self.checks);
            checks.evicted(self, &budget, &pod);
            self.checks = checks;
        }
        let asked = Asked { by: "eviction", ..asked };
        self.delete(asked, &target, &body["deleteOptions"])?;
        Ok(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
    }
}
