//! Quotas with scopes count only some pods, or some claims.

use meta::GroupResource;
use serde_json::Value;

/// Whether the quota's scopes hold of the object.
#[must_use]
pub fn covers(quota: &Value, resource: &GroupResource, object: &Value) -> bool {
    let list = |pointer: &str| {
        quota.pointer(pointer).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
    };
    let is_in = |scope: &Value, operator: &str, values: &Value| {
        let scope = scope.as_str().unwrap_or_default();
        match (resource.group.as_str(), resource.resource.as_str()) {
            ("", "pods") => has_pod(scope, operator, values, object),
            ("", "persistentvolumeclaims") => has_claim(scope, operator, values, object),
            _ => false,
        }
    };
    list("/spec/scopes").iter().all(|scope| is_in(scope, "Exists", &Value::Null))
        && list("/spec/scopeSelector/matchExpressions").iter().all(|expression| {
            let operator = expression["operator"].as_str().unwrap_or("Exists");
            is_in(&expression["scopeName"], operator, &expression["values"])
        })
}

fn has_pod(scope: &str, operator: &str, values: &Value, pod: &Value) -> bool {
    let spec = &pod["spec"];
    let is_terminating = spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    let is_best_effort = pod["status"]["qosClass"] == "BestEffort";
    match scope {
        "Terminating" => is_terminating,
        "NotTerminating" => !is_terminating,
        "BestEffort" => is_best_effort,
        "NotBestEffort" => !is_best_effort,
        "PriorityClass" => selects(operator, values, &[&spec["priorityClassName"]]),
        "CrossNamespacePodAffinity" => names_namespaces(&spec["affinity"]),
        _ => false,
    }
}

fn has_claim(scope: &str, operator: &str, values: &Value, claim: &Value) -> bool {
    let status = &claim["status"];
    let classes = [
        &claim["spec"]["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ];
    scope == "VolumeAttributesClass" && selects(operator, values, &classes)
}

/// Whether one of the names is selected; when there is none, it is its absence that is asked for.
fn selects(operator: &str, values: &Value, names: &[&Value]) -> bool {
    let names: Vec<&str> =
        names.iter().filter_map(|name| name.as_str()).filter(|name| !name.is_empty()).collect();
    let has = |name: &&str| values.as_array().is_some_and(|list| list.iter().any(|v| v == name));
    match operator {
        "In" => names.iter().any(has),
        "NotIn" => names.is_empty() || names.iter().any(|name| !has(name)),
        "DoesNotExist" => names.is_empty(),
        _ => !names.is_empty(),
    }
}

/// Whether a term is about pods of other namespaces.
fn names_namespaces(affinity: &Value) -> bool {
    const SURE: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const LIKELY: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let terms = |list: &Value| list.as_array().cloned().unwrap_or_default();
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let of = &affinity[kind];
        let weighted = terms(&of[LIKELY]).into_iter().map(|term| term["podAffinityTerm"].clone());
        terms(&of[SURE]).into_iter().chain(weighted).any(|term| {
            term["namespaces"].as_array().is_some_and(|list| !list.is_empty())
                || term["namespaceSelector"].is_object()
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods(expression: Value, spec: Value) -> bool {
        let quota = json!({"spec": {"scopeSelector": {"matchExpressions": [expression]}}});
        let resource = GroupResource { group: String::new(), resource: "pods".to_owned() };
        covers(&quota, &resource, &json!({ "spec": spec }))
    }

    #[test]
    fn classes_are_selected_as_labels_are() {
        let with = |operator: &str| json!({"scopeName": "PriorityClass", "operator": operator, "values": ["a"]});
        let class = |name: &str| json!({ "priorityClassName": name });
        assert!(pods(with("In"), class("a")) && !pods(with("In"), class("b")));
        assert!(pods(with("NotIn"), class("b")) && !pods(with("NotIn"), class("a")));
        assert!(pods(with("NotIn"), json!({})) && !pods(with("In"), json!({})));
        assert!(pods(with("Exists"), class("b")) && pods(with("DoesNotExist"), json!({})));
    }

    #[test]
    fn terms_about_other_namespaces_are_found() {
        let scope = json!({"scopeName": "CrossNamespacePodAffinity", "operator": "Exists"});
        let term = |term: Value| {
            json!({"affinity": {"podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": term}]}}})
        };
        assert!(pods(scope.clone(), term(json!({"namespaceSelector": {}}))));
        assert!(!pods(scope, term(json!({"namespaces": []}))));
    }

    #[test]
    fn scopes_are_of_pods_and_claims_only() {
        let quota = json!({"spec": {"scopes": ["NotTerminating"]}});
        let resource = GroupResource { group: String::new(), resource: "services".to_owned() };
        assert!(!covers(&quota, &resource, &json!({})));
    }
}
