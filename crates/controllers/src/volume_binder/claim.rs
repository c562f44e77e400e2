//! The pure core about claims: from a claim and the volumes there are, what becomes of it.
//!
//! Upstream: `syncUnboundClaim` and `syncBoundClaim` in
//! `pkg/controller/volume/persistentvolume/pv_controller.go`.

use std::sync::Arc;

use api::volumes::{self, annotation};
use client::EventType;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::Told;
use super::plugins::{self, Worker};
use crate::pod_view::PodView;

/// What a claim is compared with.
pub(super) struct World {
    pub(super) volumes: Vec<Arc<PersistentVolume>>,
    pub(super) classes: Vec<Arc<StorageClass>>,
    /// The pods of the claim's namespace that mount it.
    pub(super) pods: Vec<Arc<PodView>>,
    /// Whether volumes are made for claims.
    pub(super) provisions: bool,
}

/// What to do about a claim.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// It and the volume belong together.
    Bind(Arc<PersistentVolume>),
    /// It waits.
    Wait(Option<Told>),
    /// Its volume is gone, or somebody else's.
    Lose(Told),
    /// It has no class, and gets the default one.
    Classify(String),
    /// This one should make a volume for it.
    Provision(String),
    /// It gets a directory of this host.
    Make,
}

/// Decides.
pub(super) fn decide(claim: &PersistentVolumeClaim, world: &World) -> Step {
    let is_bound =
        annotation(claim.metadata.annotations.as_ref(), volumes::BIND_COMPLETED).is_some();
    let name = volumes::volume_name(claim);
    let named = || world.volumes.iter().find(|one| one.metadata.name.as_deref() == Some(name));
    match (is_bound, name.is_empty()) {
        (true, true) => lost("Bound claim has lost reference to PersistentVolume"),
        (true, false) => keep(claim, named()),
        (false, true) => find(claim, world),
        (false, false) => request(claim, named()),
    }
}

fn lost(what: &str) -> Step {
    let text = format!("{what}. Data on the volume is lost!");
    Step::Lose(Told(EventType::Warning, "ClaimLost", text))
}

fn keep(claim: &PersistentVolumeClaim, volume: Option<&Arc<PersistentVolume>>) -> Step {
    let Some(volume) = volume else { return lost("Bound claim has lost its PersistentVolume") };
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    match reference {
        Some(reference) if reference.uid != claim.metadata.uid => {
            let text = "Two claims are bound to the same volume, this one is bound incorrectly";
            Step::Lose(Told(EventType::Warning, "ClaimMisbound", text.to_owned()))
        }
        _ => Step::Bind(Arc::clone(volume)),
    }
}

fn request(claim: &PersistentVolumeClaim, volume: Option<&Arc<PersistentVolume>>) -> Step {
    let Some(volume) = volume else { return Step::Wait(None) };
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let is_taken = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some());
    if !is_taken {
        return match volumes::check_fit(volume, claim) {
            Ok(()) => Step::Bind(Arc::clone(volume)),
            Err(why) => {
                let text = format!("Cannot bind to requested volume {name:?}: {why}");
                Step::Wait(Some(Told(EventType::Warning, "VolumeMismatch", text)))
            }
        };
    }
    if volumes::refers_to(volume, claim) {
        return Step::Bind(Arc::clone(volume));
    }
    let text = format!("volume {name:?} already bound to a different claim.");
    Step::Wait(Some(Told(EventType::Warning, "FailedBinding", text)))
}

fn find(claim: &PersistentVolumeClaim, world: &World) -> Step {
    let class_name = volumes::class_of_claim(claim);
    let class = world.classes.iter().find(|one| one.metadata.name.as_deref() == Some(class_name));
    let waits = class.is_some_and(|class| volumes::is_delayed(class));
    if let Some(volume) = volumes::best_match(claim, &world.volumes, None, waits) {
        return Step::Bind(Arc::clone(volume));
    }
    if class_name.is_empty()
        && claim.spec.as_ref().is_none_or(|spec| spec.storage_class_name.is_none())
        && let Some(default) = default_class(&world.classes)
    {
        return Step::Classify(default);
    }
    let node = annotation(claim.metadata.annotations.as_ref(), volumes::SELECTED_NODE);
    if waits && node.is_none() {
        return Step::Wait(Some(waiting(&world.pods)));
    }
    if class_name.is_empty() {
        let text = "no persistent volumes available for this claim and no storage class is set";
        return Step::Wait(Some(Told(EventType::Normal, "FailedBinding", text.to_owned())));
    }
    if !world.provisions {
        return Step::Wait(None);
    }
    let failed =
        |text: String| Step::Wait(Some(Told(EventType::Warning, "ProvisioningFailed", text)));
    match class {
        None => failed(format!("storageclass.storage.k8s.io {class_name:?} not found")),
        Some(class) => match plugins::provisioner(&class.provisioner) {
            Worker::External => Step::Provision(class.provisioner.clone()),
            Worker::HostPath => Step::Make,
            Worker::Nobody(why) => failed(why),
        },
    }
}

/// Upstream `emitEventForUnboundDelayBindingClaim`.
fn waiting(pods: &[Arc<PodView>]) -> Told {
    let names: Vec<&str> = pods
        .iter()
        .filter(|pod| pod.node.is_empty() && !pod.is_terminal())
        .map(|pod| &*pod.key.name)
        .collect();
    let (reason, text) = match names.as_slice() {
        [] => {
            let text = "waiting for first consumer to be created before binding";
            ("WaitForFirstConsumer", text.to_owned())
        }
        [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        pods => {
            let text = format!("waiting for pods {} to be scheduled", pods.join(","));
            ("WaitForPodScheduled", text)
        }
    };
    Told(EventType::Normal, reason, text)
}

/// The class that says it is the default one; of several the youngest, and of these the first by
/// name.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<String> {
    let is_default = |class: &&Arc<StorageClass>| {
        annotation(class.metadata.annotations.as_ref(), volumes::DEFAULT_CLASS) == Some("true")
    };
    let rank = |class: &&Arc<StorageClass>| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (std::cmp::Reverse(created), class.metadata.name.clone())
    };
    let class = classes.iter().filter(is_default).min_by_key(rank)?;
    class.metadata.name.clone()
}

#[cfg(test)]
mod tests;
