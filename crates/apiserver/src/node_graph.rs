//! Which objects the pods of a node refer to.
//!
//! Looked up in the pods of the node when a kubelet asks: a node has some hundred pods, and asks
//! rarely, since kubelets watch what they use.

use std::sync::Arc;

use meta::Object;
use serde_json::Value;

use crate::resources::Resources;

pub(crate) struct PodReferences(pub(crate) Arc<Resources>);

impl authz::NodeGraph for PodReferences {
    fn refers(
        &self,
        node: &str,
        _group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> bool {
        match resource {
            "persistentvolumes" => self.volume_is_used(node, name),
            "volumeattachments" => self.attachment_is_for(node, name),
            "resourceslices" => self.slice_is_of(node, name),
            "pods" => self.pods_of(node, namespace).iter().any(|pod| pod.header().name == name),
            _ => self.pods_of(node, namespace).iter().any(|pod| {
                serde_json::from_slice::<Value>(pod.json())
                    .is_ok_and(|pod| pod_refers(&pod, resource, name))
            }),
        }
    }
}

impl PodReferences {
    fn pods_of(&self, node: &str, namespace: &str) -> Vec<Arc<Object>> {
        let Some(storage) = self.0.storage("", "pods") else { return Vec::new() };
        let mut pods = storage.cache.on_node(node);
        pods.retain(|pod| pod.header().namespace == namespace);
        pods
    }

    fn volume_is_used(&self, node: &str, volume: &str) -> bool {
        let Some(storage) = self.0.storage("", "persistentvolumes") else { return false };
        let parsed = storage.cache.get(volume).and_then(|object| object.decode::<Value>().ok());
        let Some(volume) = parsed else { return false };
        let claim = &volume["spec"]["claimRef"];
        let (Some(namespace), Some(name)) = (claim["namespace"].as_str(), claim["name"].as_str())
        else {
            return false;
        };
        self.pods_of(node, namespace).iter().any(|pod| {
            pod.decode::<Value>().is_ok_and(|pod| pod_refers(&pod, "persistentvolumeclaims", name))
        })
    }

    fn attachment_is_for(&self, node: &str, name: &str) -> bool {
        let storage = self.0.storage("storage.k8s.io", "volumeattachments");
        let object = storage.and_then(|storage| storage.cache.get(name));
        let parsed = object.and_then(|object| object.decode::<Value>().ok());
        parsed.is_some_and(|attachment| attachment["spec"]["nodeName"] == node)
    }

    fn slice_is_of(&self, node: &str, name: &str) -> bool {
        let storage = self.0.storage("resource.k8s.io", "resourceslices");
        let object = storage.and_then(|storage| storage.cache.get(name));
        let parsed = object.and_then(|object| object.decode::<Value>().ok());
        parsed.is_some_and(|slice| slice["spec"]["nodeName"] == node)
    }
}

/// Whether a pod refers to an object of its namespace.
fn pod_refers(pod: &Value, resource: &str, name: &str) -> bool {
    let spec = &pod["spec"];
    match resource {
        "serviceaccounts" => spec["serviceAccountName"] == name,
        "resourceclaims" => {
            let statuses = pod["status"]["resourceClaimStatuses"].as_array();
            statuses.into_iter().flatten().any(|claim| claim["resourceClaimName"] == name)
                || mentions(&spec["resourceClaims"], "resourceClaimName", name)
        }
        "persistentvolumeclaims" => {
            let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let volumes = spec["volumes"].as_array();
            volumes.into_iter().flatten().any(|volume| {
                volume["persistentVolumeClaim"]["claimName"] == name
                    || (volume.get("ephemeral").is_some()
                        && volume["name"]
                            .as_str()
                            .is_some_and(|volume| format!("{pod_name}-{volume}") == name))
            })
        }
        "secrets" => {
            mentions(&spec["volumes"], "secretName", name)
                || [
                    "secret",
                    "secretRef",
                    "secretKeyRef",
                    "imagePullSecrets",
                    "nodePublishSecretRef",
                ]
                .iter()
                .any(|key| names_under(spec, key, name))
        }
        "configmaps" => ["configMap", "configMapRef", "configMapKeyRef"]
            .iter()
            .any(|key| names_under(spec, key, name)),
        _ => false,
    }
}

/// Whether `key: name` is anywhere in the value.
fn mentions(value: &Value, key: &str, name: &str) -> bool {
    match value {
        Value::Object(map) => {
            map.get(key).is_some_and(|found| found == name)
                || map.values().any(|value| mentions(value, key, name))
        }
        Value::Array(list) => list.iter().any(|value| mentions(value, key, name)),
        _ => false,
    }
}

/// Whether `key: {name: …}`, or a list of such, is anywhere in the value.
fn names_under(value: &Value, key: &str, name: &str) -> bool {
    match value {
        Value::Object(map) => {
            map.get(key).is_some_and(|found| match found {
                Value::Array(list) => list.iter().any(|item| item["name"] == name),
                found => found["name"] == name,
            }) || map.values().any(|value| names_under(value, key, name))
        }
        Value::Array(list) => list.iter().any(|value| names_under(value, key, name)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_found_wherever_they_are() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"name": "s", "secret": {"secretName": "vol"}},
                {"name": "c", "projected": {"sources": [{"configMap": {"name": "root-ca"}}]}},
                {"name": "e", "ephemeral": {}}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "env"}}],
                "env": [{"valueFrom": {"secretKeyRef": {"name": "key"}}}]}]}});
        for (resource, name) in [
            ("serviceaccounts", "sa"),
            ("secrets", "pull"),
            ("secrets", "vol"),
            ("secrets", "key"),
            ("configmaps", "root-ca"),
            ("configmaps", "env"),
            ("persistentvolumeclaims", "p-e"),
        ] {
            assert!(pod_refers(&pod, resource, name), "{resource} {name}");
        }
        assert!(!pod_refers(&pod, "secrets", "root-ca"));
        assert!(!pod_refers(&pod, "configmaps", "vol"));
    }
}
