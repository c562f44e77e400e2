//! What upstream tells those who write something valid that they should not.
//!
//! Upstream: `WarningsOnCreate` and `WarningsOnUpdate` of each registry's strategy.

mod custom_resource_definition;
mod key_pair;
mod pod;

use meta::{GroupResource, names};
use serde_json::Value;

/// The warnings about a valid object that is written, perhaps in place of an old one.
pub(crate) fn of(resource: &GroupResource, object: &Value, old: Option<&Value>) -> Vec<String> {
    let is_new = old.is_none();
    // What users do to pods that exist is not what they want of pods to come.
    let generation = |object: &Value| object["metadata"]["generation"].clone();
    let wants_anew = old.is_none_or(|old| generation(old) != generation(object));
    let template = |pointer: &str, path: &str| {
        let spec = object.pointer(pointer).filter(|_| wants_anew);
        spec.map(|spec| pod::of(path, spec)).unwrap_or_default()
    };
    let of_template = || template("/spec/template/spec", "spec.template.spec");
    let named = |spec: Vec<String>| {
        let why = "this is used in Pod names and hostnames";
        if is_new { [of_name(object, why), spec].concat() } else { spec }
    };
    match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "services") => of_service(&object["spec"]),
        ("", "secrets") if object["type"] == "kubernetes.io/tls" => {
            key_pair::of(&object["data"]).into_iter().collect()
        }
        ("", "pods") if is_new => {
            let why = "this is used in the Pod's hostname";
            [of_name(object, why), pod::of("spec", &object["spec"])].concat()
        }
        ("", "podtemplates") => template("/template/spec", "template.spec"),
        ("apps", "daemonsets" | "statefulsets") => of_template(),
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets")
        | ("batch", "jobs") => named(of_template()),
        ("batch", "cronjobs") => {
            let path = "spec.jobTemplate.spec.template.spec";
            named(template("/spec/jobTemplate/spec/template/spec", path))
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            custom_resource_definition::of(object, old)
        }
        ("storage.k8s.io", "csidrivers") if is_new => of_csi_driver(&object["spec"]),
        _ => Vec::new(),
    }
}

/// A name that is no label makes odd hostnames.
fn of_name(object: &Value, why: &str) -> Vec<String> {
    let wrong = names::dns1123_label(object["metadata"]["name"].as_str().unwrap_or_default());
    if wrong.is_empty() {
        return Vec::new();
    }
    let wrong = wrong.join(" ");
    vec![format!(
        "metadata.name: {why}, which can result in surprising behavior; a DNS label is recommended: \
         [{wrong}]"
    )]
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
        of(&resource, &json!({"metadata": {"name": "x"}, "spec": spec}), None)
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
    fn what_a_template_asks_for_is_told_again_when_it_changes() {
        let resource =
            GroupResource { group: "apps".to_owned(), resource: "deployments".to_owned() };
        let deployment = |generation: u32| {
            let volumes = json!([{"name": "a", "storageos": {}}]);
            json!({"metadata": {"name": "a.b", "generation": generation},
                "spec": {"template": {"spec": {"volumes": volumes}}}})
        };
        let about = |new: u32| of(&resource, &deployment(new), Some(&deployment(1)));
        assert_eq!((about(1).len(), about(2).len()), (0, 1));
        assert_eq!(of(&resource, &deployment(1), None).len(), 2);
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
