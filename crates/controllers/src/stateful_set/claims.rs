//! Who owns the claims of a StatefulSet: whether they go with their pods, with the set, or stay.
//!
//! Upstream: `claimsMatchRetentionPolicy` in `pkg/controller/statefulset/stateful_set_utils.go`.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::identity::{replicas, start};
use crate::pod_control::Owner;

/// What to do about the owners of a claim.
#[derive(Debug, PartialEq)]
pub(super) enum Owners {
    /// They are as they should be.
    Kept,
    /// Something else controls the claim, which is left alone.
    Conflict,
    /// These should be the owners.
    Changed(Vec<OwnerReference>),
}

/// Compares the owners of a claim with what the retention policy wants.
pub(super) fn owners(
    set: &StatefulSet,
    owner: &Owner,
    pod: &Owner,
    ordinal: i64,
    claim: &PersistentVolumeClaim,
) -> Owners {
    let known = claim.metadata.owner_references.as_deref().unwrap_or_default();
    let is_ours = |reference: &OwnerReference| [&owner.uid, &pod.uid].contains(&&reference.uid);
    if known.iter().any(|reference| reference.controller == Some(true) && !is_ours(reference)) {
        return Owners::Conflict;
    }
    let (of_set, of_pod) = wanted(set, ordinal);
    let reference = |wanted: bool, owner: &Owner| wanted.then(|| owner.reference());
    let ours = [reference(of_set, owner), reference(of_pod, pod)].into_iter().flatten();
    let others = known.iter().filter(|reference| !is_ours(reference)).cloned();
    let next: Vec<_> = others.chain(ours).collect();
    let is_same = next.len() == known.len() && next.iter().all(|one| known.contains(one));
    if is_same { Owners::Kept } else { Owners::Changed(next) }
}

/// Whether a claim still goes with an earlier pod of the name: a new one must not be started on it.
pub(super) fn is_stale(claim: &PersistentVolumeClaim, pod: &str) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.kind == "Pod" && owner.name == pod)
}

/// Whether the set, and whether the pod, should own the claims of an ordinal.
fn wanted(set: &StatefulSet, ordinal: i64) -> (bool, bool) {
    let policy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_claim_retention_policy.clone())
        .unwrap_or_default();
    let first = start(set);
    let is_surplus = !(first..first + replicas(set)).contains(&ordinal);
    let with_pod = policy.when_scaled.as_deref() == Some("Delete") && is_surplus;
    let with_set = policy.when_deleted.as_deref() == Some("Delete");
    (with_set && !with_pod, with_pod)
}

#[cfg(test)]
mod tests {
    use meta::ObjectKey;
    use serde_json::json;

    use super::*;

    fn owner(kind: &'static str, uid: &str) -> Owner {
        let key = ObjectKey::new("n", format!("{uid}-name"));
        Owner { api_version: "v1", kind, key, uid: uid.to_owned() }
    }

    fn looked_at(scaled: &str, deleted: &str, ordinal: i64, known: &[&Owner]) -> Owners {
        let set: StatefulSet = serde_json::from_value(json!({ "metadata": {}, "spec": {
            "replicas": 2, "selector": {}, "template": {},
            "persistentVolumeClaimRetentionPolicy": {
                "whenScaled": scaled, "whenDeleted": deleted } } }))
        .unwrap();
        let mut claim = PersistentVolumeClaim::default();
        let references = known.iter().map(|owner| owner.reference()).collect();
        claim.metadata.owner_references = Some(references);
        owners(&set, &owner("StatefulSet", "set"), &owner("Pod", "pod"), ordinal, &claim)
    }

    #[test]
    fn the_policy_says_who_owns_a_claim() {
        let (set, pod) = (owner("StatefulSet", "set"), owner("Pod", "pod"));
        let changed = |owners: &[&Owner]| {
            Owners::Changed(owners.iter().map(|owner| owner.reference()).collect())
        };
        for (scaled, deleted, ordinal, wanted) in [
            ("Retain", "Retain", 0, &[][..]),
            ("Retain", "Retain", 2, &[]),
            ("Retain", "Delete", 2, &[&set]),
            ("Delete", "Retain", 1, &[]),
            ("Delete", "Retain", 2, &[&pod]),
            ("Delete", "Delete", 1, &[&set]),
            ("Delete", "Delete", 2, &[&pod]),
        ] {
            let named = format!("{scaled} {deleted} {ordinal}");
            assert_eq!(looked_at(scaled, deleted, ordinal, wanted), Owners::Kept, "{named}");
            let wrong: &[&Owner] = if wanted.is_empty() { &[&set, &pod] } else { &[] };
            assert_eq!(looked_at(scaled, deleted, ordinal, wrong), changed(wanted), "{named}");
        }
    }

    #[test]
    fn a_claim_of_another_controller_is_left_alone() {
        let other = owner("Other", "other");
        assert_eq!(looked_at("Delete", "Delete", 0, &[&other]), Owners::Conflict);
    }

    #[test]
    fn a_claim_of_an_earlier_pod_is_stale() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({ "metadata": {
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "web-1", "uid": "u" }] } }))
        .unwrap();
        assert!(is_stale(&claim, "web-1"));
        assert!(!is_stale(&claim, "web-2"));
    }
}
