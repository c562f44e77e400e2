//! The pure core about volumes: from a volume and the claim it refers to, what becomes of it.
//!
//! Upstream: `syncVolume` and `reclaimVolume` in
//! `pkg/controller/volume/persistentvolume/pv_controller.go`.

use api::finalizers::PV_CONTROLLER;
use api::volumes::{self, annotation};
use client::EventType;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::Told;

/// What to do about a volume.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Its phase should be this one.
    Phase(&'static str),
    /// It failed to be reclaimed, and says why.
    Fail(Told),
    /// It is free again: without its claim, or without the claim's uid where the user named it.
    Release { forget: bool },
    /// Its claim has to be bound to it, or cannot be.
    Claim(Option<Told>),
}

/// Decides; `claim` is the one that the volume refers to, by name and uid.
pub(super) fn decide(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Step {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let is_bound = reference.is_some_and(|one| one.uid.as_ref().is_some_and(|uid| !uid.is_empty()));
    if !is_bound {
        return Step::Phase("Available");
    }
    let Some(claim) = claim else { return reclaim(volume) };
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let annotations = volume.metadata.annotations.as_ref();
    match volumes::volume_name(claim) {
        "" if !volumes::has_mode(volume, claim) => {
            let text = format!(
                "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to \
                 incompatible volumeMode.",
                claim.metadata.name.as_deref().unwrap_or_default()
            );
            Step::Claim(Some(Told(EventType::Warning, "VolumeMismatch", text)))
        }
        "" => Step::Claim(None),
        bound if bound == name => Step::Phase("Bound"),
        // The claim is bound to another volume.
        _ if annotation(annotations, volumes::PROVISIONED_BY).is_some()
            && policy(volume) == "Delete" =>
        {
            reclaim(volume)
        }
        _ => Step::Release {
            forget: annotation(annotations, volumes::BOUND_BY_CONTROLLER).is_some(),
        },
    }
}

/// The volume's finalizers without the one that upstream's own provisioners left: of a volume that
/// somebody else deletes, or nobody. `None` when it has no such one.
///
/// Upstream: `modifyDeletionFinalizers`.
pub(super) fn finalizers_left(volume: &PersistentVolume) -> Option<Vec<&String>> {
    let finalizers = volume.metadata.finalizers.as_deref().unwrap_or_default();
    let annotations = volume.metadata.annotations.as_ref();
    let by = annotation(annotations, volumes::PROVISIONED_BY)?;
    let is_external = !by.starts_with("kubernetes.io/") || MIGRATED.contains(&by);
    let goes = is_external || policy(volume) != "Delete";
    (goes && finalizers.iter().any(|one| one == PV_CONTROLLER))
        .then(|| finalizers.iter().filter(|one| *one != PV_CONTROLLER).collect())
}

/// Provisioners of upstream's own whose work drivers do now.
const MIGRATED: [&str; 7] = [
    "kubernetes.io/aws-ebs",
    "kubernetes.io/azure-disk",
    "kubernetes.io/azure-file",
    "kubernetes.io/cinder",
    "kubernetes.io/gce-pd",
    "kubernetes.io/portworx-volume",
    "kubernetes.io/vsphere-volume",
];

/// Whether a provisioner has to delete a volume of which this was decided.
pub(super) fn waits_for_deletion(volume: &PersistentVolume, step: &Step) -> bool {
    let by = annotation(volume.metadata.annotations.as_ref(), volumes::PROVISIONED_BY);
    *step == Step::Phase("Released") && policy(volume) == "Delete" && by.is_some()
}

fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

fn reclaim(volume: &PersistentVolume) -> Step {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    if !matches!(phase, Some("Released" | "Failed")) {
        return Step::Phase("Released");
    }
    let annotations = volume.metadata.annotations.as_ref();
    let is_of_another = annotation(annotations, volumes::PROVISIONED_BY).is_some();
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let (reason, text) = match policy(volume) {
        // Whoever made it deletes it.
        "Delete" if is_of_another => return Step::Phase("Released"),
        "Delete" => {
            let text = format!(
                "error getting deleter volume plugin for volume {name:?}: no deletable volume \
                 plugin matched"
            );
            ("VolumeFailedDelete", text)
        }
        "Recycle" => ("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned()),
        "Retain" => return Step::Phase("Released"),
        _ => {
            let text = "Volume has unrecognized reclaim policy".to_owned();
            ("VolumeUnknownReclaimPolicy", text)
        }
    };
    Step::Fail(Told(EventType::Warning, reason, text))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(phase: &str, spec: &Value, annotations: &Value) -> PersistentVolume {
        let mut volume = json!({ "metadata": { "name": "v", "annotations": annotations },
            "status": { "phase": phase },
            "spec": { "claimRef": { "name": "c", "namespace": "n", "uid": "u" } } });
        for (field, value) in spec.as_object().unwrap() {
            volume["spec"][field] = value.clone();
        }
        serde_json::from_value(volume).unwrap()
    }

    fn claim(volume: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({ "metadata": { "name": "c", "namespace": "n", "uid": "u" },
            "spec": { "volumeName": volume } }))
        .unwrap()
    }

    #[test]
    fn a_volume_is_available_until_a_claim_has_it() {
        let none = json!({});
        let free = volume("", &json!({ "claimRef": null }), &none);
        assert_eq!(decide(&free, None), Step::Phase("Available"));
        let reserved = json!({ "claimRef": { "name": "c", "namespace": "n" } });
        assert_eq!(decide(&volume("", &reserved, &none), None), Step::Phase("Available"));
        let taken = volume("Available", &none, &none);
        assert_eq!(decide(&taken, Some(&claim(""))), Step::Claim(None));
        assert_eq!(decide(&taken, Some(&claim("v"))), Step::Phase("Bound"));
        let block = volume("Available", &json!({ "volumeMode": "Block" }), &none);
        assert!(matches!(decide(&block, Some(&claim(""))), Step::Claim(Some(_))));
    }

    #[test]
    fn a_volume_without_its_claim_is_released_and_reclaimed() {
        let by = json!({ volumes::PROVISIONED_BY: "p" });
        let with = |phase: &str, policy: &str, annotations: &Value| {
            let policy = json!({ "persistentVolumeReclaimPolicy": policy });
            decide(&volume(phase, &policy, annotations), None)
        };
        assert_eq!(with("Bound", "Delete", &by), Step::Phase("Released"));
        assert_eq!(with("Released", "Delete", &by), Step::Phase("Released"));
        assert_eq!(with("Released", "Retain", &json!({})), Step::Phase("Released"));
        let reason = |step: Step| match step {
            Step::Fail(Told(_, reason, _)) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(with("Released", "Delete", &json!({}))), "VolumeFailedDelete");
        assert_eq!(reason(with("Released", "Recycle", &json!({}))), "VolumeFailedRecycle");
        assert_eq!(reason(with("Failed", "Other", &json!({}))), "VolumeUnknownReclaimPolicy");
    }

    #[test]
    fn the_finalizer_of_provisioners_of_old_goes_when_nobody_would_take_it() {
        let left = |by: &str, policy: &str| {
            let policy = json!({ "persistentVolumeReclaimPolicy": policy });
            let mut volume = volume("Bound", &policy, &json!({ volumes::PROVISIONED_BY: by }));
            volume.metadata.finalizers = Some(vec!["other".to_owned(), PV_CONTROLLER.to_owned()]);
            finalizers_left(&volume).map(|left| left.len())
        };
        assert_eq!(left("csi.example.com", "Delete"), Some(1));
        assert_eq!(left("kubernetes.io/aws-ebs", "Delete"), Some(1));
        assert_eq!(left("kubernetes.io/host-path", "Delete"), None);
        assert_eq!(left("kubernetes.io/host-path", "Retain"), Some(1));
        assert_eq!(finalizers_left(&volume("Bound", &json!({}), &json!({}))), None);
    }

    #[test]
    fn a_volume_whose_claim_took_another_is_free_again() {
        let none = json!({});
        let other = claim("other");
        let by_us = json!({ volumes::BOUND_BY_CONTROLLER: "yes" });
        let step = decide(&volume("Available", &none, &by_us), Some(&other));
        assert_eq!(step, Step::Release { forget: true });
        let step = decide(&volume("Available", &none, &none), Some(&other));
        assert_eq!(step, Step::Release { forget: false });
        let made = json!({ volumes::PROVISIONED_BY: "p" });
        let delete = json!({ "persistentVolumeReclaimPolicy": "Delete" });
        let step = decide(&volume("Available", &delete, &made), Some(&other));
        assert_eq!(step, Step::Phase("Released"));
    }
}
