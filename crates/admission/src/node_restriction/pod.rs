//! What a kubelet does to pods.

use meta::Status;
use serde_json::Value;

use super::Write;
use crate::refusal::not_found;
use crate::request::Operation;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// A kubelet makes mirror pods, and deletes pods of its own.
pub(super) fn check(write: &Write<'_>) -> Result<(), Status> {
    let node = write.node;
    match write.request.operation {
        Operation::Create => check_mirror(write),
        Operation::Delete if write.old["spec"]["nodeName"] != node => write
            .refuse(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
        Operation::Delete => Ok(()),
        other => write.refuse(format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            other.as_str()
        )),
    }
}

fn check_mirror(write: &Write<'_>) -> Result<(), Status> {
    let Write { node, object: pod, .. } = write;
    if pod["metadata"]["annotations"].get(MIRROR).is_none() {
        return write.refuse(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod["spec"]["nodeName"] != *node {
        return write.refuse(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        ));
    }
    check_owner(write)?;
    let refers_to = |what: &str| {
        write.refuse(format!("node {node:?} can not create pods that reference {what}"))
    };
    let spec = &pod["spec"];
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return refers_to("a service account");
    }
    let volumes = || spec["volumes"].as_array().into_iter().flatten();
    let sources = || {
        let projected = volumes().filter_map(|v| v["projected"]["sources"].as_array());
        projected.flatten().chain(volumes())
    };
    if names_any(spec, &["secretRef", "secretKeyRef", "imagePullSecrets"])
        || sources().any(uses_secret)
    {
        return refers_to("secrets");
    }
    if names_any(spec, &["configMapRef", "configMapKeyRef"])
        || sources().any(|source| source.get("configMap").is_some())
    {
        return refers_to("configmaps");
    }
    if sources().any(|source| source.get("clusterTrustBundle").is_some()) {
        return refers_to("clustertrustbundles");
    }
    if volumes().any(|volume| volume.get("persistentVolumeClaim").is_some()) {
        return refers_to("persistentvolumeclaims");
    }
    if spec["resourceClaims"].as_array().is_some_and(|claims| !claims.is_empty()) {
        return refers_to("resourceclaims");
    }
    Ok(())
}

/// A mirror pod belongs to its node and to nobody else.
fn check_owner(write: &Write<'_>) -> Result<(), Status> {
    let Write { node, object: pod, .. } = write;
    let owners = pod["metadata"]["ownerReferences"].as_array();
    let owner = match owners.map_or(&[][..], Vec::as_slice) {
        [_, _, ..] => {
            return write.refuse(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            ));
        }
        [owner] if is_node(owner, node) => owner,
        _ => {
            return write.refuse(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
    };
    if owner["controller"] != true {
        return write.refuse(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner["blockOwnerDeletion"] == true {
        return write.refuse(format!(
            "node {node:?} must not set blockOwnerDeletion on an owner reference"
        ));
    }
    let known = write.view.get("", "nodes", "", node).ok_or_else(|| not_found("nodes", node))?;
    let (given, uid) = (owner["uid"].as_str().unwrap_or_default(), &known.header().uid);
    if given != uid.as_str() {
        return write.refuse(format!("node {node} UID mismatch: expected {given} got {uid}"));
    }
    Ok(())
}

fn is_node(owner: &Value, node: &str) -> bool {
    owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == node
}

/// Whether a field of one of these names is anywhere below, in containers of any sort.
fn names_any(value: &Value, names: &[&str]) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| {
            names.contains(&key.as_str()) || (key != "volumes" && names_any(value, names))
        }),
        Value::Array(items) => items.iter().any(|item| names_any(item, names)),
        _ => false,
    }
}

/// Sources of volumes that read a secret, each in its own field.
fn uses_secret(source: &Value) -> bool {
    let Some(map) = source.as_object() else { return false };
    const REFERENCES: [&str; 5] = [
        "secretRef",
        "secretName",
        "nodePublishSecretRef",
        "nodeStageSecretRef",
        "controllerPublishSecretRef",
    ];
    map.contains_key("secret")
        || map.values().any(|kind| REFERENCES.iter().any(|field| kind.get(field).is_some()))
}

/// A kubelet says how its pods are, and nothing else of them.
pub(super) fn check_status(write: &Write<'_>) -> Result<(), Status> {
    let Write { node, object, old, request, .. } = write;
    if request.operation != Operation::Update {
        return write.refuse(format!("unexpected operation {:?}", request.operation.as_str()));
    }
    if old["spec"]["nodeName"] != *node {
        return write.refuse(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let labels = |pod: &Value| {
        let labels = pod["metadata"]["labels"].clone();
        if labels.is_null() { Value::Object(serde_json::Map::new()) } else { labels }
    };
    if labels(object) != labels(old) {
        return write.refuse(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |pod: &Value| -> Vec<(Value, Value)> {
        let list = pod["status"]["resourceClaimStatuses"].as_array().into_iter().flatten();
        list.map(|claim| (claim["name"].clone(), claim["resourceClaimName"].clone())).collect()
    };
    if claims(object) != claims(old) {
        return write.refuse(format!("node {node:?} cannot update resource claim statues"));
    }
    Ok(())
}

pub(super) fn check_eviction(write: &Write<'_>) -> Result<(), Status> {
    let Write { node, object, request, .. } = write;
    if request.operation != Operation::Create {
        return write.refuse(format!("unexpected operation {}", request.operation.as_str()));
    }
    let name = match request.name {
        "" => object["metadata"]["name"].as_str().unwrap_or_default(),
        name => name,
    };
    if name.is_empty() {
        return write.refuse("could not determine pod from request data");
    }
    if write.pod(name)?["spec"]["nodeName"] != *node {
        return write
            .refuse(format!("node {node} can only evict pods with spec.nodeName set to itself"));
    }
    Ok(())
}
