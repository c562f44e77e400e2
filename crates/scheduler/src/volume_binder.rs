//! Carries out a [`VolumePlan`] before its pod is bound: gives volumes to claims, asks for those
//! that have to be made, and waits until all claims are bound.

use std::collections::HashMap;
use std::time::Duration;

use api::volumes;
use client::{ClientError, ResourcePath};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use meta::ObjectKey;
use serde_json::{Value, json};

use crate::pod_info::PodInfo;
use crate::scheduler::Scheduler;
use crate::volumes::{VolumePlan, key_of};

/// How long claims may take: upstream's `bindTimeoutSeconds`.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Why the claims of a pod were not bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// A write failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A claim is gone.
    #[error("failed to get pvc {0:?} from the lister: not found")]
    Gone(String),
    /// Whoever should make the volume cannot make it there.
    #[error("provisioning failed for PVC {0:?}")]
    Refused(String),
    /// The pod is not waited for any more.
    #[error("pod does not exist any more, while waiting for binding")]
    PodGone,
    /// It took too long.
    #[error("context deadline exceeded")]
    Timeout,
}

impl Scheduler {
    /// Binds the claims of a plan.
    pub(crate) async fn bind_volumes(
        &self,
        pod: &PodInfo,
        plan: &VolumePlan,
        node: &str,
    ) -> Result<(), BindError> {
        for (claim, volume) in &plan.matched {
            self.give(claim, volume).await?;
        }
        let mut chosen = HashMap::new();
        for claim in &plan.provision {
            chosen.insert(key_of(claim), self.choose(claim, node).await?);
        }
        let give_up = self.clock.monotonic() + TIMEOUT;
        loop {
            // Asked for before the look, so that no change is missed.
            let changed = self.volumes_changed.notified();
            if self.are_bound(pod, plan, node, &chosen)? {
                return Ok(());
            }
            let left = give_up.saturating_duration_since(self.clock.monotonic());
            if left.is_zero() {
                return Err(BindError::Timeout);
            }
            tokio::select! {
                () = changed => {}
                () = self.clock.sleep(left) => {}
            }
        }
    }

    async fn give(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), ClientError> {
        let known = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        if known.is_some_and(|known| known.uid == claim.metadata.uid) {
            return Ok(());
        }
        let mut change = json!({
            "metadata": { "uid": volume.metadata.uid,
                "resourceVersion": volume.metadata.resource_version },
            "spec": { "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.metadata.namespace, "name": claim.metadata.name,
                "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version } },
        });
        if known.is_none() {
            change["metadata"]["annotations"] = json!({ volumes::BOUND_BY_CONTROLLER: "yes" });
        }
        let path = ResourcePath::of::<PersistentVolume>();
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        self.client.dynamic::<Value>(path, "").merge_update(name, "", &change).await.map(drop)
    }

    /// Names the node in a claim; gives the version in which it does.
    async fn choose(&self, claim: &PersistentVolumeClaim, node: &str) -> Result<u64, ClientError> {
        let change = json!({ "metadata": { "uid": claim.metadata.uid,
            "annotations": { volumes::SELECTED_NODE: node } } });
        let key = key_of(claim);
        let path = ResourcePath::of::<PersistentVolumeClaim>();
        let api = self.client.dynamic::<Value>(path, &key.namespace);
        let chosen = api.merge_update(&key.name, "", &change).await?;
        Ok(version(chosen["metadata"]["resourceVersion"].as_str()))
    }

    fn are_bound(
        &self,
        pod: &PodInfo,
        plan: &VolumePlan,
        node: &str,
        chosen: &HashMap<ObjectKey, u64>,
    ) -> Result<bool, BindError> {
        let cluster = self.lock();
        if !cluster.is_assumed(&pod.uid) {
            return Err(BindError::PodGone);
        }
        for key in plan.claims() {
            let Some(claim) = cluster.snapshot.volumes.claims.get(&key) else {
                return Err(BindError::Gone(key.name));
            };
            if volumes::is_fully_bound(claim) {
                continue;
            }
            // Whoever cannot make the volume takes the node's name out again.
            let named =
                volumes::annotation(claim.metadata.annotations.as_ref(), volumes::SELECTED_NODE);
            let seen = version(claim.metadata.resource_version.as_deref());
            if chosen.get(&key).is_some_and(|chosen| seen >= *chosen) && named != Some(node) {
                return Err(BindError::Refused(key.name));
            }
            return Ok(false);
        }
        Ok(true)
    }
}

fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
