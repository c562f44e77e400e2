//! Questions about persistent volumes and claims: what the binder and the scheduler both ask.
//!
//! Upstream: `component-helpers/storage/volume`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use meta::{LabelSelector, Quantity};

use crate::Typed;

/// The binder is done with a claim.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The binder, not the user, chose the other side.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Who made a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The driver that does for a volume what one of upstream's own plugins did.
pub const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// Who should make a volume for a claim.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same, as it was called first.
pub const STORAGE_PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The node that the scheduler chose for a claim's first pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The class of a claim or volume, as it was said first.
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
/// Marks the class of claims that name none.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The provisioner whose volumes are directories of nodes, and the finalizer that keeps such a
/// volume until its directory is gone.
pub const LOCAL_PATH: &str = "ironclad/local-path";
/// On a node, from itself: below which directory it keeps volumes.
pub const LOCAL_PATH_DIRECTORY: &str = "ironclad/local-path-directory";
/// On a node, from the provisioner: volumes whose directories are to be removed.
pub const LOCAL_PATH_REMOVE: &str = "ironclad/local-path-remove";
/// On a node, from itself: those of them whose directories are gone.
pub const LOCAL_PATH_REMOVED: &str = "ironclad/local-path-removed";

/// Labels of a node, or of anything.
pub type Labels = BTreeMap<String, String>;

/// A value among annotations.
pub fn annotation<'a>(annotations: Option<&'a Labels>, key: &str) -> Option<&'a str> {
    annotations?.get(key).map(String::as_str)
}

/// The class of a claim; empty when it has none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(claim.metadata.annotations.as_ref(), CLASS_BETA).or(named).unwrap_or_default()
}

/// The class of a volume; empty when it has none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let named = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(volume.metadata.annotations.as_ref(), CLASS_BETA).or(named).unwrap_or_default()
}

/// Whether claims of the class wait for their first pod.
pub fn is_delayed(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// Whether the binder is done with a claim.
pub fn is_fully_bound(claim: &PersistentVolumeClaim) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    !volume_name(claim).is_empty() && annotation(annotations, BIND_COMPLETED).is_some()
}

/// The volume that a claim names; empty when it names none.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// Whether a volume refers to a claim, or to one of its name before there was any.
pub fn refers_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && reference
                .uid
                .as_ref()
                .is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    })
}

/// Whether a node is one that a volume can be used on.
pub fn is_reachable(volume: &PersistentVolume, node: &str, labels: &Labels) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    affinity.and_then(|affinity| affinity.required.as_ref()).is_none_or(|required| {
        crate::node_selector::takes(required, node, |key| labels.get(key).map(String::as_str))
    })
}

/// Why a claim cannot have the volume that it names, in upstream's words.
///
/// # Errors
/// The first reason.
pub fn check_fit(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    if volume.metadata.deletion_timestamp.is_some() {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        return Err(format!("the volume is marked for deletion {name:?}"));
    }
    let fits = [
        (capacity(volume) >= request(claim), "requested PV is too small"),
        (class_of_claim(claim) == class_of_volume(volume), "storageClassName does not match"),
        (has_mode(volume, claim), "incompatible volumeMode"),
        (has_attributes(volume, claim), "volumeAttributesClassName does not match"),
        (has_access_modes(volume, claim), "incompatible accessMode"),
    ];
    match fits.iter().find(|(fits, _)| !fits) {
        Some((_, why)) => Err((*why).to_owned()),
        None => Ok(()),
    }
}

/// The volume for a claim: the one that refers to it, or the one with the fewest access modes
/// more than asked for and of these the smallest.
///
/// With a node, as the scheduler looks for it; without one, as the binder does, which binds
/// claims that wait for their first pod only to volumes that refer to them.
pub fn best_match<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'a Arc<PersistentVolume>>,
    node: Option<(&str, &Labels)>,
    is_delayed: bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let (wanted, class) = (request(claim), class_of_claim(claim));
    let spec = claim.spec.as_ref();
    let selector = spec.and_then(|spec| spec.selector.as_ref()).map(|selector| {
        let tree = selector.to_tree().ok();
        LabelSelector::from_object(tree.as_ref()).unwrap_or_else(|_| LabelSelector::nothing())
    });
    let mut best: Option<((usize, Quantity), &Arc<PersistentVolume>)> = None;
    for volume in volumes {
        let of_volume = volume.spec.as_ref();
        let is_taken = of_volume.is_some_and(|spec| spec.claim_ref.is_some());
        let is_ours = is_taken && refers_to(volume, claim);
        let has = capacity(volume);
        if !is_ours && (is_taken || class_of_volume(volume) != class)
            || volume.metadata.deletion_timestamp.is_some()
            || has < wanted
            || !has_mode(volume, claim)
            || !has_attributes(volume, claim)
            || !has_access_modes(volume, claim)
        {
            continue;
        }
        let is_reachable = node.is_none_or(|(name, labels)| is_reachable(volume, name, labels));
        if is_ours {
            return is_reachable.then_some(volume);
        }
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let labels = volume.metadata.labels.as_ref();
        let is_selected = selector
            .as_ref()
            .is_none_or(|selector| selector.matches(|key| labels?.get(key).map(String::as_str)));
        let waits = node.is_none() && is_delayed;
        if waits || phase != Some("Available") || !is_selected || !is_reachable {
            continue;
        }
        let modes = of_volume.and_then(|spec| spec.access_modes.as_ref()).map_or(0, Vec::len);
        let rank = (modes, has);
        if best.as_ref().is_none_or(|(known, _)| rank < *known) {
            best = Some((rank, volume));
        }
    }
    best.map(|(_, volume)| volume)
}

/// Whether both are file systems, or both block devices.
pub fn has_mode(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let mode = |mode: Option<&String>| mode.cloned().unwrap_or_else(|| "Filesystem".to_owned());
    let wanted = mode(claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref()));
    mode(volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref())) == wanted
}

fn has_attributes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let has = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    wanted.unwrap_or_default() == has.unwrap_or_default()
}

fn has_access_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
    let has = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
    let has = has.unwrap_or_default();
    wanted.unwrap_or_default().iter().all(|mode| has.contains(mode))
}

/// How much a volume has.
pub fn capacity(volume: &PersistentVolume) -> Quantity {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

/// How much a claim asks for.
pub fn request(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref()))
}

fn storage(
    amounts: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> Quantity {
    let amount = amounts.and_then(|amounts| amounts.get("storage"));
    amount.and_then(|amount| amount.0.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(name: &str, size: &str, change: Value) -> Arc<PersistentVolume> {
        let mut volume = json!({ "metadata": { "name": name },
            "spec": { "capacity": { "storage": size }, "accessModes": ["ReadWriteOnce"] },
            "status": { "phase": "Available" } });
        for (pointer, value) in change.as_object().unwrap() {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            volume.pointer_mut(parent).unwrap()[field] = value.clone();
        }
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    fn claim(change: Value) -> PersistentVolumeClaim {
        let mut claim = json!({ "metadata": { "name": "c", "namespace": "n", "uid": "u" },
            "spec": { "resources": { "requests": { "storage": "5Gi" } },
                "accessModes": ["ReadWriteOnce"] } });
        for (field, value) in change.as_object().unwrap() {
            claim["spec"][field] = value.clone();
        }
        serde_json::from_value(claim).unwrap()
    }

    fn chosen(claim: &PersistentVolumeClaim, all: &[Arc<PersistentVolume>]) -> Option<String> {
        best_match(claim, all, None, false).and_then(|volume| volume.metadata.name.clone())
    }

    #[test]
    fn the_smallest_that_fits_is_chosen() {
        let all = [
            volume("small", "1Gi", json!({})),
            volume("large", "100Gi", json!({})),
            volume("right", "6Gi", json!({})),
            volume(
                "deleted",
                "5Gi",
                json!({ "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" }),
            ),
            volume("released", "5Gi", json!({ "/status/phase": "Released" })),
            volume("taken", "5Gi", json!({ "/spec/claimRef": { "name": "d", "namespace": "n" } })),
            volume("block", "5Gi", json!({ "/spec/volumeMode": "Block" })),
            volume("classy", "5Gi", json!({ "/spec/storageClassName": "fast" })),
            volume("shared", "5Gi", json!({ "/spec/accessModes": ["ReadWriteMany"] })),
            volume(
                "both",
                "5Gi",
                json!({ "/spec/accessModes": ["ReadWriteOnce", "ReadWriteMany"] }),
            ),
        ];
        assert_eq!(chosen(&claim(json!({})), &all).as_deref(), Some("right"));
        let fast = claim(json!({ "storageClassName": "fast" }));
        assert_eq!(chosen(&fast, &all).as_deref(), Some("classy"));
        let many = claim(json!({ "accessModes": ["ReadWriteMany"] }));
        assert_eq!(chosen(&many, &all).as_deref(), Some("shared"));
        let block = claim(json!({ "volumeMode": "Block" }));
        assert_eq!(chosen(&block, &all).as_deref(), Some("block"));
        assert!(best_match(&claim(json!({})), &all, None, true).is_none(), "it waits for its pod");
    }

    #[test]
    fn a_volume_that_refers_to_the_claim_comes_first() {
        let reference = json!({ "/spec/claimRef": { "name": "c", "namespace": "n" } });
        let all = [volume("small", "5Gi", json!({})), volume("ours", "50Gi", reference)];
        assert_eq!(chosen(&claim(json!({})), &all).as_deref(), Some("ours"));
        let other = json!({ "/spec/claimRef": { "name": "c", "namespace": "n", "uid": "before" } });
        let all = [volume("before", "5Gi", other)];
        assert_eq!(chosen(&claim(json!({})), &all), None);
    }

    #[test]
    fn selectors_and_nodes_choose() {
        let zone = |name: &str, zone: &str| {
            let affinity = json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": "zone", "operator": "In", "values": [zone] }] }] } });
            volume(
                name,
                "5Gi",
                json!({ "/metadata/labels": { "tier": name }, "/spec/nodeAffinity": affinity }),
            )
        };
        let all = [zone("a", "a"), zone("b", "b")];
        let selecting = claim(json!({ "selector": { "matchLabels": { "tier": "b" } } }));
        assert_eq!(chosen(&selecting, &all).as_deref(), Some("b"));
        let labels = Labels::from([("zone".to_owned(), "b".to_owned())]);
        let found = best_match(&claim(json!({})), &all, Some(("node", &labels)), true);
        assert_eq!(found.unwrap().metadata.name.as_deref(), Some("b"));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let told = |change: Value| check_fit(&volume("v", "5Gi", change), &claim(json!({})));
        assert_eq!(told(json!({})), Ok(()));
        let why = |change: Value| told(change).unwrap_err();
        assert_eq!(why(json!({ "/spec/capacity": {} })), "requested PV is too small");
        let class = json!({ "/spec/storageClassName": "fast" });
        assert_eq!(why(class), "storageClassName does not match");
        assert_eq!(why(json!({ "/spec/volumeMode": "Block" })), "incompatible volumeMode");
        assert_eq!(why(json!({ "/spec/accessModes": [] })), "incompatible accessMode");
    }
}
