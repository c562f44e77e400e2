//! Resources of a running pod, changed in place.
//!
//! Upstream: `ValidatePodResize`.

use std::collections::BTreeMap;

use meta::Quantity;
use serde_json::Value;

use crate::node::{Findings, Node};
use crate::pod;
use crate::{FieldError, Path};

pub(crate) fn validate(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    pod::changed(new, out);
    let refuse = |detail: &str| FieldError::forbidden(&Path::default(), detail);
    if pod::is_mirror(old) {
        out.push(refuse("static pods cannot be resized"));
        return;
    }
    let (spec, before) = (new.get("spec"), old.get("spec"));
    if before.get("os").get("name").text() == "windows" {
        out.push(refuse("windows pods cannot be resized"));
        return;
    }
    if !reports_resources(old) {
        out.push(spec.forbidden("Pod running on node without support for resize"));
    }
    if !same_containers(&spec, &before, out) {
        return;
    }
    let class = old.get("status").get("qosClass");
    let had = class.value.as_str().map_or_else(|| quality(before.value), |text| text);
    if quality(spec.value) != had {
        let detail = "Pod QOS Class may not change as a result of resizing";
        out.push(FieldError::invalid(&spec.path, had, detail));
    }
    for list in ["containers", "initContainers"] {
        for (container, before) in spec.get(list).items().zip(before.get(list).items()) {
            if list == "initContainers" {
                of_init(&container, &before, out);
            }
            nothing_removed(&container.get("resources"), &before.get("resources"), "resource", out);
        }
    }
    nothing_removed(&spec.get("resources"), &before.get("resources"), "pod-level resource", out);
    if before.get("resources").is_set() && !spec.get("resources").is_set() {
        out.push(spec.get("resources").forbidden("pod-level resources cannot be removed"));
    }
    if without_compute(spec.value) != without_compute(before.value) {
        out.push(spec.forbidden("only cpu and memory resources are mutable"));
    }
}

/// A node that can resize says what its running containers have.
fn reports_resources(pod: &Node<'_>) -> bool {
    pod.get("status").get("containerStatuses").items().all(|status| {
        !status.get("state").get("running").is_set() || status.get("resources").is_set()
    })
}

fn same_containers(spec: &Node<'_>, before: &Node<'_>, out: &mut Findings) -> bool {
    for list in ["containers", "initContainers"] {
        let (now, had) = (spec.get(list), before.get(list));
        if now.len() != had.len() {
            out.push(now.forbidden(format!("{list} may not be added or removed on resize")));
            return false;
        }
        let name = |container: Node<'_>| container.get("name").text().to_owned();
        if !now.items().map(name).eq(had.items().map(name)) {
            out.push(now.forbidden(format!("{list} may not be renamed or reordered on resize")));
            return false;
        }
    }
    true
}

/// What runs to its end before the others cannot be resized when that would restart it.
fn of_init(container: &Node<'_>, before: &Node<'_>, out: &mut Findings) {
    let changed = container.get("resources").value != before.get("resources").value;
    if !changed || before.get("restartPolicy").text() == "Always" {
        return;
    }
    let restarts = |policy: Node<'_>| policy.get("restartPolicy").text() == "RestartContainer";
    if before.get("resizePolicy").items().any(restarts) {
        out.push(container.get("resources").forbidden(
            "non-sidecar init containers with a resize policy of RestartContainer cannot be \
             resized",
        ));
    }
}

fn nothing_removed(now: &Node<'_>, before: &Node<'_>, what: &str, out: &mut Findings) {
    for (side, plural) in [("requests", "requests"), ("limits", "limits")] {
        let (list, had) = (now.get(side), before.get(side));
        if had.entries().any(|(name, _)| list.value.get(name).is_none()) {
            out.push(list.forbidden(format!("{what} {plural} cannot be removed")));
        }
    }
}

/// The spec without processor and memory, and without how they are changed.
fn without_compute(spec: &Value) -> Value {
    fn strip(holder: &mut Value) {
        if let Some(map) = holder.as_object_mut() {
            map.remove("resizePolicy");
        }
        let Some(resources) = holder.get_mut("resources") else { return };
        for side in ["requests", "limits"] {
            if let Some(list) = resources.get_mut(side).and_then(Value::as_object_mut) {
                list.remove("cpu");
                list.remove("memory");
                if list.is_empty()
                    && let Some(map) = resources.as_object_mut()
                {
                    map.remove(side);
                }
            }
        }
        if resources.as_object().is_some_and(serde_json::Map::is_empty)
            && let Some(map) = holder.as_object_mut()
        {
            map.remove("resources");
        }
    }
    let mut spec = spec.clone();
    strip(&mut spec);
    for list in ["containers", "initContainers"] {
        spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
    }
    spec
}

/// The quality of service that follows from requests and limits.
///
/// Upstream: `apis/core/helper/qos`.
fn quality(spec: &Value) -> &'static str {
    let mut sums: [BTreeMap<String, Quantity>; 2] = Default::default();
    let mut all_limited = true;
    let mut add = |resources: &Value| {
        for (side, sums) in ["requests", "limits"].iter().zip(&mut sums) {
            for (name, value) in resources[side].as_object().into_iter().flatten() {
                let quantity = value.as_str().and_then(|text| text.parse::<Quantity>().ok());
                let counts = matches!(name.as_str(), "cpu" | "memory");
                if let Some(quantity) = quantity.filter(|quantity| counts && !quantity.is_zero()) {
                    let sum = sums.remove(name).unwrap_or_default();
                    sums.insert(name.clone(), sum + quantity);
                }
            }
        }
        let limits = &resources["limits"];
        all_limited &= limits.get("cpu").is_some() && limits.get("memory").is_some();
    };
    if spec["resources"].is_object() {
        add(&spec["resources"]);
    } else {
        for list in ["containers", "initContainers"] {
            let containers = spec[list].as_array().into_iter().flatten();
            containers.for_each(|container| add(&container["resources"]));
        }
    }
    let [requests, limits] = &sums;
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    if all_limited && requests == limits { "Guaranteed" } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::tests::check_update;

    fn pod(resources: serde_json::Value) -> serde_json::Value {
        json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
            "containers": [{"name": "c", "image": "i", "resources": resources}]}})
    }

    #[test]
    fn amounts_change_but_not_what_follows_from_them() {
        let old = pod(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}));
        let more = pod(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}));
        check_update("", "Pod", "resize", (&more, &old), &[]);
        check_update(
            "",
            "Pod",
            "resize",
            (&pod(json!({})), &old),
            &[
                "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of \
                 resizing",
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be \
                 removed",
                "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
            ],
        );
        let other = pod(json!({"requests": {"cpu": "1", "ephemeral-storage": "1"},
            "limits": {"cpu": "2"}}));
        check_update(
            "",
            "Pod",
            "resize",
            (&other, &old),
            &["spec: Forbidden: only cpu and memory resources are mutable"],
        );
    }

    #[test]
    fn containers_stay_the_same() {
        let old = pod(json!({}));
        let mut new = old.clone();
        new["spec"]["containers"][0]["name"] = json!("d");
        check_update(
            "",
            "Pod",
            "resize",
            (&new, &old),
            &["spec.containers: Forbidden: containers may not be renamed or reordered on resize"],
        );
    }
}
