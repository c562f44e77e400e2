//! What upstream tells those who write something valid that they should not.
//!
//! Upstream: `WarningsOnCreate` and `WarningsOnUpdate` of each registry's strategy.

use meta::GroupResource;
use serde_json::Value;

/// Volumes whose plugins are gone: field, and since when.
const DEAD_VOLUMES: [(&str, &str); 5] = [
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
];

/// The warnings about a valid object that is written.
pub(crate) fn of(resource: &GroupResource, object: &Value, is_new: bool) -> Vec<String> {
    match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "services") => of_service(&object["spec"]),
        ("", "pods") if is_new => of_pod(&object["spec"]),
        ("storage.k8s.io", "csidrivers") if is_new => of_csi_driver(&object["spec"]),
        _ => Vec::new(),
    }
}

fn of_service(spec: &Value) -> Vec<String> {
    let has = |field: &str| match &spec[field] {
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    let mut warnings = Vec::new();
    let mut warn = |is_so: bool, text: &str| {
        if is_so {
            warnings.push(text.to_owned());
        }
    };
    let is_headless = spec["clusterIP"] == "None";
    let has_affinity = has("sessionAffinity") && spec["sessionAffinity"] != "None";
    warn(
        is_headless && has("loadBalancerIP"),
        "spec.loadBalancerIP is ignored for headless services",
    );
    warn(is_headless && has("externalIPs"), "spec.externalIPs is ignored for headless services");
    warn(is_headless && has_affinity, "spec.SessionAffinity is ignored for headless services");
    warn(
        !is_headless && has("externalIPs"),
        "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
    );
    warn(
        spec["trafficDistribution"] == "PreferClose",
        "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
    );
    warnings
}

fn of_pod(spec: &Value) -> Vec<String> {
    let volumes = spec["volumes"].as_array().into_iter().flatten().enumerate();
    let mut warnings = Vec::new();
    for (at, volume) in volumes {
        for (field, since) in DEAD_VOLUMES {
            if volume.get(field).is_some() {
                // The one field that upstream spells otherwise when it speaks of it.
                let shown = if field == "storageos" { "storageOS" } else { field };
                warnings.push(format!("spec.volumes[{at}].{shown}: {since}"));
            }
        }
    }
    warnings
}

fn of_csi_driver(spec: &Value) -> Vec<String> {
    let asks = spec["tokenRequests"].as_array().is_some_and(|requests| !requests.is_empty());
    if !asks || spec.get("serviceAccountTokenInSecrets").is_some_and(|value| !value.is_null()) {
        return Vec::new();
    }
    let text = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to \
                true to prevent possible logging of tokens in volume attributes";
    vec![text.to_owned()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn about(group: &str, resource: &str, spec: Value) -> Vec<String> {
        let resource = GroupResource { group: group.to_owned(), resource: resource.to_owned() };
        of(&resource, &json!({ "spec": spec }), true)
    }

    #[test]
    fn external_addresses_are_ignored_or_deprecated() {
        let with = |ip: &str| about("", "services", json!({"clusterIP": ip, "externalIPs": ["i"]}));
        assert_eq!(with("None"), ["spec.externalIPs is ignored for headless services"]);
        assert_eq!(
            with("10.0.0.1"),
            ["spec.externalIPs is deprecated and may no longer be implemented in some clusters"]
        );
        assert!(about("", "services", json!({"clusterIP": "None"})).is_empty());
    }

    #[test]
    fn volumes_of_removed_plugins_are_named() {
        let spec =
            json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "storageos": {}}]});
        assert_eq!(
            about("", "pods", spec),
            ["spec.volumes[1].storageOS: deprecated in v1.22, non-functional in v1.25+"]
        );
    }

    #[test]
    fn drivers_that_get_tokens_are_told_of_secrets() {
        let spec = json!({"tokenRequests": [{"audience": "a"}]});
        assert_eq!(about("storage.k8s.io", "csidrivers", spec).len(), 1);
        let spec = json!({"tokenRequests": [{}], "serviceAccountTokenInSecrets": false});
        assert!(about("storage.k8s.io", "csidrivers", spec).is_empty());
    }
}
