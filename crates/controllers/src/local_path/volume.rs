//! The pure core: which volume a claim gets, and which directories a node should remove.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::volumes::{self, annotation};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;

/// Why no volume is made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not on this node: the scheduler has to choose another one.
    Node(String),
    /// Not at all, as long as the claim is as it is.
    Claim(&'static str),
}

/// The volume for a claim on a node.
pub(super) fn make(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    name: &str,
    node: Option<&Node>,
) -> Result<PersistentVolume, Refusal> {
    let spec = claim.spec.clone().unwrap_or_default();
    let modes = spec.access_modes.unwrap_or_default();
    if modes.iter().any(|mode| !mode.starts_with("ReadWriteOnce")) {
        let why = "NodePath only supports ReadWriteOnce and ReadWriteOncePod access modes";
        return Err(Refusal::Claim(why));
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(Refusal::Claim("NodePath only supports Filesystem volumes"));
    }
    if spec.selector.is_some() {
        return Err(Refusal::Claim("claim.Spec.Selector is not supported"));
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        return Err(Refusal::Claim("claim.Spec.DataSource is not supported"));
    }
    let Some(node) = node else {
        return Err(Refusal::Node(format!("node {name:?} not found")));
    };
    let Some(directory) = directory(node) else {
        return Err(Refusal::Node(format!("node {name:?} keeps no local volumes")));
    };
    let hostname = node.metadata.labels.as_ref().and_then(|all| all.get(api::labels::HOSTNAME));
    let volume = volume_name(claim);
    let key = crate::selection::key_of(&claim.metadata);
    let path = format!("{directory}/{volume}_{}_{}", key.namespace, key.name);
    let value = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": volume, "finalizers": [volumes::LOCAL_PATH],
            "annotations": { volumes::PROVISIONED_BY: volumes::LOCAL_PATH,
                volumes::SELECTED_NODE: name },
        },
        "spec": {
            "capacity": { "storage": volumes::request(claim).to_string() },
            "accessModes": modes, "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class.metadata.name, "mountOptions": class.mount_options,
            "hostPath": { "path": path, "type": "DirectoryOrCreate" },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [{
                "key": api::labels::HOSTNAME, "operator": "In",
                "values": [hostname.map_or(name, String::as_str)] }] }] } },
            "claimRef": { "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": key.namespace, "name": key.name, "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version },
        },
    });
    serde_json::from_value(value).map_err(|_| Refusal::Claim("the volume cannot be written"))
}

/// The name of the volume of a claim.
pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default())
}

/// Where a node keeps volumes, if it says so.
pub(super) fn directory(node: &Node) -> Option<&str> {
    annotation(node.metadata.annotations.as_ref(), volumes::LOCAL_PATH_DIRECTORY)
}

/// Whether a volume was made here.
pub(super) fn is_ours(volume: &PersistentVolume) -> bool {
    let annotations = volume.metadata.annotations.as_ref();
    annotation(annotations, volumes::PROVISIONED_BY) == Some(volumes::LOCAL_PATH)
}

/// The node that a volume was made for.
pub(super) fn node_of(volume: &PersistentVolume) -> &str {
    let annotations = volume.metadata.annotations.as_ref();
    annotation(annotations, volumes::SELECTED_NODE).unwrap_or_default()
}

/// What becomes of a volume that was made here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing, now.
    Stays,
    /// It has to be deleted.
    Delete,
    /// Its directory is to be removed first.
    Waits,
    /// Nothing holds it any more.
    Free,
}

/// Decides; without a node there is no directory either.
pub(super) fn end(volume: &PersistentVolume, node: Option<&Node>) -> End {
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let is_deleted = volume.metadata.deletion_timestamp.is_some();
    let finalizers = volume.metadata.finalizers.as_deref().unwrap_or_default();
    if !is_deleted {
        let ends = policy == Some("Delete") && matches!(phase, Some("Released" | "Failed"));
        return if ends { End::Delete } else { End::Stays };
    }
    if !finalizers.iter().any(|finalizer| finalizer == volumes::LOCAL_PATH) {
        return End::Stays;
    }
    // Whoever deletes a volume that is to be retained wants its files.
    if policy != Some("Delete") {
        return End::Free;
    }
    // A claim that is still bound uses them; the protection of volumes holds it, too.
    if phase == Some("Bound") {
        return End::Stays;
    }
    let Some(node) = node else { return End::Free };
    let removed = listed(node, volumes::LOCAL_PATH_REMOVED);
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    if removed.contains(name) { End::Free } else { End::Waits }
}

/// The names that an annotation of a node lists.
pub(super) fn listed<'a>(node: &'a Node, key: &str) -> BTreeSet<&'a str> {
    let text = annotation(node.metadata.annotations.as_ref(), key).unwrap_or_default();
    text.split(',').filter(|name| !name.is_empty()).collect()
}

/// What a node should be told to remove.
pub(super) fn to_remove(node: &Node, all: &[Arc<PersistentVolume>]) -> String {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let is_meant = |volume: &&Arc<PersistentVolume>| {
        is_ours(volume) && node_of(volume) == name && end(volume, Some(node)) == End::Waits
    };
    // What is removed stays listed until the volume is gone, or else it would be forgotten.
    let removed = listed(node, volumes::LOCAL_PATH_REMOVED);
    let is_removed = |volume: &&Arc<PersistentVolume>| {
        volume.metadata.name.as_deref().is_some_and(|name| removed.contains(name))
    };
    let names: BTreeSet<_> = all
        .iter()
        .filter(|volume| is_meant(volume) || is_removed(volume))
        .filter_map(|volume| volume.metadata.name.as_deref())
        .collect();
    names.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut claim = json!({ "metadata": { "name": "c", "namespace": "n", "uid": "u" },
            "spec": { "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": "1Gi" } } } });
        for (field, value) in spec.as_object().unwrap() {
            claim["spec"][field] = value.clone();
        }
        serde_json::from_value(claim).unwrap()
    }

    fn node(annotations: Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": "a", "annotations": annotations,
            "labels": { "kubernetes.io/hostname": "host-a" } } }))
        .unwrap()
    }

    fn class() -> StorageClass {
        let class = json!({ "metadata": { "name": "local-path" }, "reclaimPolicy": "Delete",
            "provisioner": volumes::LOCAL_PATH });
        serde_json::from_value(class).unwrap()
    }

    #[test]
    fn a_volume_is_a_directory_of_its_node() {
        let here = node(json!({ volumes::LOCAL_PATH_DIRECTORY: "/storage" }));
        let made = make(&claim(json!({})), &class(), "a", Some(&here)).unwrap();
        let spec = made.spec.as_ref().unwrap();
        let path = spec.host_path.as_ref().unwrap();
        assert_eq!(path.path, "/storage/pvc-u_n_c");
        assert_eq!(path.type_.as_deref(), Some("DirectoryOrCreate"));
        let labels = [("kubernetes.io/hostname".to_owned(), "host-a".to_owned())].into();
        assert!(volumes::is_reachable(&made, "a", &labels));
        assert!(!volumes::is_reachable(&made, "b", &volumes::Labels::new()));
        assert!(
            volumes::check_fit(&made, &claim(json!({ "storageClassName": "local-path" }))).is_ok()
        );
        assert!(is_ours(&made) && node_of(&made) == "a");
    }

    #[test]
    fn what_a_directory_cannot_be_is_refused() {
        let here = node(json!({ volumes::LOCAL_PATH_DIRECTORY: "/storage" }));
        let refused =
            |spec: Value, node: Option<&Node>| make(&claim(spec), &class(), "a", node).unwrap_err();
        let text = "NodePath only supports ReadWriteOnce and ReadWriteOncePod access modes";
        let many = json!({ "accessModes": ["ReadWriteMany"] });
        assert_eq!(refused(many, Some(&here)), Refusal::Claim(text));
        let block = json!({ "volumeMode": "Block" });
        assert!(matches!(refused(block, Some(&here)), Refusal::Claim(_)));
        assert!(matches!(refused(json!({}), Some(&node(json!({})))), Refusal::Node(_)));
        assert!(matches!(refused(json!({}), None), Refusal::Node(_)));
    }

    fn volume(policy: &str, phase: &str, is_deleted: bool) -> Arc<PersistentVolume> {
        let mut volume = json!({ "metadata": { "name": "v", "finalizers": [volumes::LOCAL_PATH],
                "annotations": { volumes::PROVISIONED_BY: volumes::LOCAL_PATH,
                    volumes::SELECTED_NODE: "a" } },
            "spec": { "persistentVolumeReclaimPolicy": policy }, "status": { "phase": phase } });
        if is_deleted {
            volume["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    #[test]
    fn a_volume_goes_when_its_directory_is_gone() {
        let (plain, done) = (node(json!({})), node(json!({ volumes::LOCAL_PATH_REMOVED: "v,w" })));
        let ends = |policy: &str, phase: &str, is_deleted: bool, node: Option<&Node>| {
            end(&volume(policy, phase, is_deleted), node)
        };
        assert_eq!(ends("Delete", "Bound", false, Some(&plain)), End::Stays);
        assert_eq!(ends("Delete", "Released", false, Some(&plain)), End::Delete);
        assert_eq!(ends("Retain", "Released", false, Some(&plain)), End::Stays);
        assert_eq!(ends("Delete", "Released", true, Some(&plain)), End::Waits);
        assert_eq!(ends("Delete", "Released", true, Some(&done)), End::Free);
        assert_eq!(ends("Delete", "Released", true, None), End::Free);
        assert_eq!(ends("Retain", "Released", true, Some(&plain)), End::Free);
        assert_eq!(ends("Delete", "Bound", true, Some(&plain)), End::Stays);
    }

    #[test]
    fn a_node_is_told_what_to_remove_until_the_volume_is_gone() {
        let ending = [volume("Delete", "Released", true)];
        let (plain, done) = (node(json!({})), node(json!({ volumes::LOCAL_PATH_REMOVED: "v" })));
        assert_eq!(to_remove(&plain, &ending), "v");
        assert_eq!(to_remove(&done, &ending), "v");
        assert_eq!(to_remove(&done, &[]), "");
        assert_eq!(to_remove(&plain, &[volume("Retain", "Released", true)]), "");
        assert_eq!(to_remove(&plain, &[volume("Delete", "Bound", false)]), "");
    }
}
