//! The pure core about volumes: from a volume and the claim it refers to, what becomes of it.
//!
//! Upstream: `syncVolume` and `reclaimVolume` in
//! `pkg/controller/volume/persistentvolume/pv_controller.go`.

use api::finalizers::PV_CONTROLLER;
use api::volumes::{self, annotation};
use client::EventType;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::Told;
use super::plugins::{self, Worker};

/// What to do about a volume.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Its phase should be this one.
    Phase(&'static str),
    /// It is released, and it is not for us to do anything about it.
    Keep,
    /// It has to be scrubbed, and is free again then.
    Recycle,
    /// The directory that it is has to be removed, and it with it.
    Delete,
    /// It failed to be reclaimed, and says why.
    Fail(Told),
    /// It is free again: without its claim, or without the claim's uid where the user named it.
    Release,
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
        _ => Step::Release,
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
    let goes = plugins::is_external(by) || policy(volume) != "Delete";
    (goes && finalizers.iter().any(|one| one == PV_CONTROLLER))
        .then(|| finalizers.iter().filter(|one| *one != PV_CONTROLLER).collect())
}

/// Whether somebody has to delete a volume of which this was decided, from when it is released.
pub(super) fn is_to_be_deleted(volume: &PersistentVolume, step: &Step) -> bool {
    matches!(step, Step::Phase("Released") | Step::Keep | Step::Delete | Step::Fail(_))
        && policy(volume) == "Delete"
        && !is_migrated(volume)
}

/// Whether somebody else has taken over all that is to be done about a volume.
fn is_migrated(volume: &PersistentVolume) -> bool {
    let driver = annotation(volume.metadata.annotations.as_ref(), volumes::MIGRATED_TO);
    driver.is_some_and(|driver| !driver.is_empty())
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
    if is_migrated(volume) {
        return Step::Keep;
    }
    let (reason, text) = match policy(volume) {
        "Retain" => return Step::Keep,
        "Recycle" => return Step::Recycle,
        "Delete" => match plugins::deleter(volume) {
            Worker::External => return Step::Keep,
            Worker::HostPath => return Step::Delete,
            Worker::Nobody(why) => ("VolumeFailedDelete", why),
        },
        _ => {
            let text = "Volume has unrecognized PersistentVolumeReclaimPolicy".to_owned();
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
        let none = json!({});
        assert_eq!(with("Bound", "Delete", &by), Step::Phase("Released"));
        assert_eq!(with("Released", "Delete", &by), Step::Keep);
        assert_eq!(with("Released", "Retain", &none), Step::Keep);
        assert_eq!(with("Failed", "Retain", &none), Step::Keep, "let the user see it");
        assert_eq!(with("Bound", "Recycle", &none), Step::Phase("Released"));
        assert_eq!(with("Released", "Recycle", &none), Step::Recycle);
        assert_eq!(with("Failed", "Recycle", &none), Step::Recycle, "it is tried again");
        let driver = json!({ volumes::MIGRATED_TO: "ebs.csi.aws.com" });
        assert_eq!(with("Released", "Recycle", &driver), Step::Keep);
        let reason = |step: Step| match step {
            Step::Fail(Told(_, reason, _)) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(with("Released", "Delete", &none)), "VolumeFailedDelete");
        assert_eq!(reason(with("Failed", "Other", &none)), "VolumeUnknownReclaimPolicy");
        let directory = json!({ "hostPath": { "path": "/x" },
            "persistentVolumeReclaimPolicy": "Delete" });
        assert_eq!(decide(&volume("Failed", &directory, &none), None), Step::Delete);
    }

    #[test]
    fn who_deletes_a_volume_is_timed() {
        let timed = |policy: &str, annotations: &Value| {
            let policy = json!({ "persistentVolumeReclaimPolicy": policy });
            let [bound, released] = ["Bound", "Released"].map(|phase| {
                let volume = volume(phase, &policy, annotations);
                is_to_be_deleted(&volume, &decide(&volume, None))
            });
            assert_eq!(bound, released, "from the start");
            released
        };
        assert!(timed("Delete", &json!({})));
        assert!(timed("Delete", &json!({ volumes::PROVISIONED_BY: "p" })));
        assert!(!timed("Delete", &json!({ volumes::MIGRATED_TO: "p" })));
        assert!(!timed("Retain", &json!({})));
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
        let step = decide(&volume("Available", &none, &none), Some(&other));
        assert_eq!(step, Step::Release);
        let made = json!({ volumes::PROVISIONED_BY: "p" });
        let delete = json!({ "persistentVolumeReclaimPolicy": "Delete" });
        let step = decide(&volume("Available", &delete, &made), Some(&other));
        assert_eq!(step, Step::Phase("Released"));
    }
}
