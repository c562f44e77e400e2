//! Pods: quality of service, phase, and graceful deletion.

use std::collections::BTreeMap;

use meta::{Quantity, Status};
use serde_json::{Value, json};

use super::{Deletion, Strategy, WriteContext, remove};

pub(super) struct Pods;

/// Without the gate `ClusterTrustBundleProjection` nothing remains of such sources.
fn drop_trust_bundles(pod: &mut Value) {
    let volumes = pod.pointer_mut("/spec/volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        let sources = volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut);
        for source in sources.into_iter().flatten() {
            remove(source, "clusterTrustBundle");
        }
    }
}

impl Strategy for Pods {
    fn returns_deleted(&self) -> bool {
        true
    }

    fn prepare_create(&self, ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        if !ctx.server.config.features.is_enabled("ClusterTrustBundleProjection") {
            drop_trust_bundles(object);
        }
        let mut status = json!({"phase": "Pending", "qosClass": qos_class(object)});
        let is_gated = object
            .pointer("/spec/schedulingGates")
            .and_then(Value::as_array)
            .is_some_and(|gates| !gates.is_empty());
        if is_gated {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "lastTransitionTime": meta::time::rfc3339(ctx.server.clock.now()),
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
        object["status"] = status;
        Ok(())
    }

    fn prepare_status(&self, _ctx: &WriteContext<'_>, object: &mut Value, old: &Value) {
        // Only the server says what quality of service a pod gets.
        if let Some(class) = old.pointer("/status/qosClass")
            && object["status"].get("qosClass").is_none()
        {
            object["status"]["qosClass"] = class.clone();
        }
    }

    fn deletion(&self, object: &Value, requested: Option<i64>) -> Deletion {
        let of_pod = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
        // Upstream: a negative period means the least that is graceful.
        let period = match requested.or(of_pod).unwrap_or(30) {
            negative if negative < 0 => 1,
            period => period,
        };
        let is_unscheduled =
            object.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().is_empty();
        let phase = object.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
        if is_unscheduled || matches!(phase, "Failed" | "Succeeded") {
            return Deletion::Graceful(0);
        }
        Deletion::Graceful(period)
    }
}

/// Upstream: `apis/core/helper/qos`.
fn qos_class(pod: &Value) -> &'static str {
    let list = |field: &str| pod["spec"][field].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut requests: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut limits: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut is_guaranteed = true;
    // Resources of the pod as a whole count instead of those of its containers.
    let of_pod = &pod["spec"]["resources"];
    if of_pod.is_object() {
        collect(&of_pod["requests"], &mut requests);
        is_guaranteed = collect(&of_pod["limits"], &mut limits) == 2;
    }
    let containers = list("containers").iter().chain(list("initContainers"));
    for container in containers.filter(|_| !of_pod.is_object()) {
        let resources = &container["resources"];
        collect(&resources["requests"], &mut requests);
        let limited = collect(&resources["limits"], &mut limits);
        if limited < 2 {
            is_guaranteed = false;
        }
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let same = requests.len() == limits.len()
        && requests.iter().all(|(name, request)| {
            limits.get(name).is_some_and(|limit| limit.to_string() == request.to_string())
        });
    if is_guaranteed && same { "Guaranteed" } else { "Burstable" }
}

/// Adds up CPU and memory that are not zero; how many of the two there were.
fn collect<'a>(resources: &'a Value, sums: &mut BTreeMap<&'a str, Quantity>) -> usize {
    let Some(map) = resources.as_object() else { return 0 };
    let mut found = 0;
    for (name, value) in map {
        if !matches!(name.as_str(), "cpu" | "memory") {
            continue;
        }
        let Some(quantity) = value.as_str().and_then(|text| text.parse::<Quantity>().ok()) else {
            continue;
        };
        if quantity.is_zero() {
            continue;
        }
        found += 1;
        match sums.get_mut(name.as_str()) {
            Some(sum) => *sum = *sum + quantity,
            None => {
                sums.insert(name, quantity);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(resources: Value, expected: &str) {
        let pod = json!({"spec": {"containers": [{"resources": resources}]}});
        assert_eq!(qos_class(&pod), expected, "{pod}");
    }

    #[test]
    fn quality_of_service_follows_from_resources() {
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        check(json!({"requests": both, "limits": both}), "Guaranteed");
        check(json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": both}), "Burstable");
        check(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}), "Burstable");
    }

    #[test]
    fn unscheduled_and_finished_pods_go_at_once() {
        let deletion = |pod: Value, requested| Pods.deletion(&pod, requested);
        assert_eq!(deletion(json!({}), None), Deletion::Graceful(0));
        let running = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}});
        assert_eq!(deletion(running.clone(), None), Deletion::Graceful(5));
        assert_eq!(deletion(running.clone(), Some(-1)), Deletion::Graceful(1));
        assert_eq!(deletion(running, Some(0)), Deletion::Graceful(0));
        let done = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Failed"}});
        assert_eq!(deletion(done, None), Deletion::Graceful(0));
    }
}
