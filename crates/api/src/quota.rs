//! What quotas count: the same for the server, which charges, and the controller, which recounts.

mod scope;
mod usage;

use std::collections::BTreeSet;

use meta::GroupResource;
use serde_json::Value;

pub use scope::covers;
pub use usage::{Usage, missing, of, quantity_of};

/// Amounts of pods, under the names that quotas have for them.
const OF_PODS: [&str; 10] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "pods",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Whether objects of the resource can use what a quota has this name for.
#[must_use]
pub fn counts(resource: &GroupResource, name: &str) -> bool {
    if name.strip_prefix("count/").is_some_and(|counted| counted == resource.to_string()) {
        return true;
    }
    let kind = resource.resource.as_str();
    let of_class = |suffix: &str| name.ends_with(suffix);
    match (resource.group.as_str(), kind) {
        ("", "pods") => {
            OF_PODS.contains(&name)
                || name.starts_with("hugepages-")
                || name.starts_with("requests.hugepages-")
                || name.strip_prefix("requests.").is_some_and(usage::is_extended)
        }
        ("", "services") => {
            matches!(name, "services" | "services.loadbalancers" | "services.nodeports")
        }
        ("", "persistentvolumeclaims") => {
            matches!(name, "persistentvolumeclaims" | "requests.storage")
                || of_class(".storageclass.storage.k8s.io/requests.storage")
                || of_class(".storageclass.storage.k8s.io/persistentvolumeclaims")
        }
        ("", _) => usage::COUNTED.contains(&kind) && kind == name,
        ("resource.k8s.io", "resourceclaims") => of_class(".deviceclass.resource.k8s.io/devices"),
        _ => false,
    }
}

/// The names in `status.hard` that the resource uses, and whether each has a known use.
#[must_use]
pub fn restricted<'a>(quota: &'a Value, resource: &GroupResource) -> (BTreeSet<&'a str>, bool) {
    let hard = quota["status"]["hard"].as_object();
    let names = hard.into_iter().flatten().map(|(name, _)| name.as_str());
    let names: BTreeSet<&str> = names.filter(|name| counts(resource, name)).collect();
    let is_known = names.iter().all(|name| !quota["status"]["used"][*name].is_null());
    (names, is_known)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(group: &str, resource: &str) -> GroupResource {
        GroupResource { group: group.to_owned(), resource: resource.to_owned() }
    }

    #[test]
    fn every_resource_has_names_of_its_own() {
        let pods = resource("", "pods");
        for name in ["pods", "count/pods", "requests.a.b/c", "hugepages-2Mi", "limits.cpu"] {
            assert!(counts(&pods, name), "{name}");
        }
        for name in ["requests.storage", "requests.kubernetes.io/c", "limits.a.b/c", "count/pod"] {
            assert!(!counts(&pods, name), "{name}");
        }
        let claims = resource("", "persistentvolumeclaims");
        assert!(counts(&claims, "gold.storageclass.storage.k8s.io/requests.storage"));
        assert!(counts(&resource("apps", "replicasets"), "count/replicasets.apps"));
        assert!(!counts(&resource("apps", "replicasets"), "replicasets"));
        assert!(!counts(&resource("", "endpoints"), "endpoints"));
    }

    #[test]
    fn only_what_the_resource_uses_must_be_known() {
        let quota =
            json!({"status": {"hard": {"pods": "1", "secrets": "2"}, "used": {"pods": "0"}}});
        let (names, is_known) = restricted(&quota, &resource("", "pods"));
        assert!(names.contains("pods") && names.len() == 1 && is_known);
        assert!(!restricted(&quota, &resource("", "secrets")).1);
        assert!(restricted(&json!({}), &resource("", "pods")).0.is_empty());
    }
}
