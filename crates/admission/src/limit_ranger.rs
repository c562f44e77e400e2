//! LimitRanger: defaults and bounds of what containers, pods and claims ask for.
//!
//! Upstream: `plugin/pkg/admission/limitranger`.

use meta::{Quantity, Status};
use serde_json::{Map, Value, json};

use crate::chain::Plugin;
use crate::refusal::forbidden;
use crate::request::{Operation, Request, View};

pub(crate) struct LimitRanger;

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        _old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        if request.creates_pod() {
            for range in ranges(request, view) {
                default_pod(object, &range);
            }
        }
        Ok(())
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        _old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let is_claim = request.is_for("", "persistentvolumeclaims")
            && matches!(request.operation, Operation::Create | Operation::Update);
        if !request.creates_pod() && !is_claim {
            return Ok(());
        }
        let mut findings = Vec::new();
        for range in ranges(request, view) {
            for limit in range["spec"]["limits"].as_array().into_iter().flatten() {
                match (limit["type"].as_str(), is_claim) {
                    (Some("Container"), false) => {
                        for container in all_containers(object) {
                            check(limit, &container["resources"], &mut findings);
                        }
                    }
                    (Some("Pod"), false) => check(limit, &totals(object), &mut findings),
                    (Some("PersistentVolumeClaim"), true) => {
                        check(limit, &object["spec"]["resources"], &mut findings);
                    }
                    _ => {}
                }
            }
        }
        match findings.as_slice() {
            [] => Ok(()),
            [one] => Err(forbidden(request, one)),
            many => Err(forbidden(request, &format!("[{}]", many.join(", ")))),
        }
    }
}

fn ranges(request: &Request<'_>, view: &dyn View) -> Vec<Value> {
    let found = view.list("", "limitranges", request.namespace);
    found.iter().filter_map(|range| range.decode().ok()).collect()
}

fn all_containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let list = |field: &str| pod["spec"][field].as_array().into_iter().flatten();
    list("containers").chain(list("initContainers"))
}

/// Fills in the container defaults of one range, and says so in upstream's annotation.
fn default_pod(pod: &mut Value, range: &Value) {
    let mut requests = Map::new();
    let mut limits = Map::new();
    for limit in range["spec"]["limits"].as_array().into_iter().flatten() {
        if limit["type"] == "Container" {
            requests.extend(limit["defaultRequest"].as_object().cloned().unwrap_or_default());
            limits.extend(limit["default"].as_object().cloned().unwrap_or_default());
        }
    }
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (side, defaults) in [("requests", &requests), ("limits", &limits)] {
                let set = fill(container, side, defaults);
                if !set.is_empty() {
                    let side = side.trim_end_matches('s');
                    notes.push(format!("{} {side} for {word} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"] = json!(text);
    }
}

/// Sets what is missing on one side; the names of what was set.
fn fill(container: &mut Value, side: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, value) in defaults {
        if container["resources"][side].get(name).is_none() {
            container["resources"][side][name] = value.clone();
            set.push(name.clone());
        }
    }
    // Looking must not leave nulls behind.
    if let Some(resources) = container["resources"].as_object_mut() {
        resources.retain(|_, value| !value.is_null());
    }
    if container["resources"].is_null()
        && let Some(map) = container.as_object_mut()
    {
        map.remove("resources");
    }
    set
}

/// Requests and limits of a whole pod.
fn totals(pod: &Value) -> Value {
    let mut sums = json!({"requests": {}, "limits": {}});
    for side in ["requests", "limits"] {
        let mut total: Map<String, Value> = Map::new();
        for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
            for (name, value) in container["resources"][side].as_object().into_iter().flatten() {
                let sum = total.get(name).map(quantity).unwrap_or_default() + quantity(value);
                total.insert(name.clone(), json!(sum.to_string()));
            }
        }
        for container in pod["spec"]["initContainers"].as_array().into_iter().flatten() {
            for (name, value) in container["resources"][side].as_object().into_iter().flatten() {
                let most = total.get(name).map(quantity).unwrap_or_default().max(quantity(value));
                total.insert(name.clone(), json!(most.to_string()));
            }
        }
        sums[side] = Value::Object(total);
    }
    sums
}

fn quantity(value: &Value) -> Quantity {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn check(limit: &Value, resources: &Value, findings: &mut Vec<String>) {
    let kind = limit["type"].as_str().unwrap_or_default();
    let side = |name: &str, side: &str| resources[side].get(name).map(quantity);
    for (name, min) in limit["min"].as_object().into_iter().flatten() {
        let (request, bound) = (side(name, "requests"), quantity(min));
        match request {
            None => findings.push(format!(
                "minimum {name} usage per {kind} is {bound}.  No request is specified"
            )),
            Some(request) if request < bound => findings.push(format!(
                "minimum {name} usage per {kind} is {bound}, but request is {request}"
            )),
            Some(_) => {
                if let Some(top) = side(name, "limits").filter(|top| *top < bound) {
                    findings.push(format!(
                        "minimum {name} usage per {kind} is {bound}, but limit is {top}"
                    ));
                }
            }
        }
    }
    for (name, max) in limit["max"].as_object().into_iter().flatten() {
        let bound = quantity(max);
        if kind == "PersistentVolumeClaim" {
            if let Some(request) = side(name, "requests").filter(|request| *request > bound) {
                findings.push(format!(
                    "maximum {name} usage per {kind} is {bound}, but request is {request}"
                ));
            }
            continue;
        }
        match side(name, "limits") {
            None => findings.push(format!(
                "maximum {name} usage per {kind} is {bound}.  No limit is specified"
            )),
            Some(top) if top > bound => findings
                .push(format!("maximum {name} usage per {kind} is {bound}, but limit is {top}")),
            Some(_) => {
                if let Some(request) = side(name, "requests").filter(|request| *request > bound) {
                    findings.push(format!(
                        "maximum {name} usage per {kind} is {bound}, but request is {request}"
                    ));
                }
            }
        }
    }
    for (name, ratio) in limit["maxLimitRequestRatio"].as_object().into_iter().flatten() {
        check_ratio(kind, name, &quantity(ratio), resources, findings);
    }
}

fn check_ratio(
    kind: &str,
    name: &str,
    bound: &Quantity,
    resources: &Value,
    findings: &mut Vec<String>,
) {
    let side = |side: &str| resources[side].get(name).map(quantity);
    let start = format!("{name} max limit to request ratio per {kind} is {bound}, but");
    match (side("requests"), side("limits")) {
        (Some(request), Some(limit)) if !request.is_zero() => {
            let found = limit.as_f64() / request.as_f64();
            if found > bound.as_f64() {
                findings.push(format!("{start} provided ratio is {found:.6}"));
            }
        }
        (None | Some(_), None) => {
            findings.push(format!("{start} no limit is specified or limit is 0"))
        }
        (_, Some(_)) => findings.push(format!("{start} no request is specified or request is 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_get_defaults_and_a_note() {
        let range = json!({"spec": {"limits": [{"type": "Container",
            "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}}]}});
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "c"}]}});
        default_pod(&mut pod, &range);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
            "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
        );
    }

    #[test]
    fn bounds_are_checked() {
        let limit = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}});
        let mut findings = Vec::new();
        let resources = json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "2"}});
        check(&limit, &resources, &mut findings);
        assert_eq!(
            findings,
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum cpu usage per Container is 1, but limit is 2"
            ]
        );
    }
}
