//! How many pods their controllers are scaled to.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meta::ObjectKey;

use crate::cluster::Informers;
use crate::pod_view::PodView;
use crate::scale_target::{ScaleError, ScaleTargets};
use crate::selection::controller_of;

/// Why the scale is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unknown {
    #[error("found no controllers for pod {0:?}")]
    NoController(String),
    #[error(transparent)]
    Scale(#[from] ScaleError),
}

/// What controllers are scaled to, all together, and the pods that have none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scaled {
    pub(super) total: i32,
    pub(super) unmanaged: Vec<String>,
}

/// Looks controllers up.
pub(super) struct Scales {
    pub(super) informers: Arc<Informers>,
    pub(super) others: ScaleTargets,
}

impl Scales {
    /// The sum over the controllers of the pods.
    pub(super) async fn of(&self, pods: &[Arc<PodView>]) -> Result<Scaled, Unknown> {
        let mut scaled = Scaled::default();
        let mut seen: BTreeMap<String, ()> = BTreeMap::new();
        let mut by_uid: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let Some(controller) = &pod.controller else {
                scaled.unmanaged.push(pod.key.name.clone());
                continue;
            };
            if seen.insert(controller.uid.clone(), ()).is_some() {
                continue;
            }
            let found = match self.built_in(controller, &pod.key.namespace) {
                Some(found) => Some(found),
                None => self.scalable(controller, &pod.key.namespace).await?,
            };
            let Some((uid, scale)) = found else {
                return Err(Unknown::NoController(pod.key.name.clone()));
            };
            by_uid.insert(uid, scale);
        }
        scaled.total = by_uid.values().fold(0, |total, scale| total.saturating_add(*scale));
        Ok(scaled)
    }

    /// The uid and scale of a controller that is in the cache: of the Deployment rather than of
    /// its ReplicaSet.
    fn built_in(&self, owner: &OwnerReference, namespace: &str) -> Option<(String, i32)> {
        let key = ObjectKey::new(namespace, &owner.name);
        let is_apps = owner.api_version.starts_with("apps/");
        let (metadata, replicas) = match owner.kind.as_str() {
            "ReplicaSet" if is_apps => {
                let set = self.informers.replica_sets.get(&key)?;
                let above = controller_of(&set.metadata).filter(|above| above.kind == "Deployment");
                if let Some(above) = above.filter(|_| set.metadata.uid.as_ref() == Some(&owner.uid))
                {
                    let key = ObjectKey::new(namespace, &above.name);
                    let deployment = self.informers.deployments.get(&key)?;
                    let is_it = deployment.metadata.uid.as_ref() == Some(&above.uid);
                    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
                    return is_it.then(|| (above.uid.clone(), replicas.unwrap_or(1)));
                }
                (set.metadata.clone(), set.spec.as_ref().and_then(|spec| spec.replicas))
            }
            "StatefulSet" if is_apps => {
                let set = self.informers.stateful_sets.get(&key)?;
                (set.metadata.clone(), set.spec.as_ref().and_then(|spec| spec.replicas))
            }
            "ReplicationController" if owner.api_version == "v1" => {
                let set = self.informers.replication_controllers.get(&key)?;
                (set.metadata.clone(), set.spec.as_ref().and_then(|spec| spec.replicas))
            }
            _ => return None,
        };
        let is_it = metadata.uid.as_ref() == Some(&owner.uid);
        is_it.then(|| (owner.uid.clone(), replicas.unwrap_or(1)))
    }

    /// The uid and scale of any other controller, from the server.
    async fn scalable(
        &self,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<Option<(String, i32)>, ScaleError> {
        let found = self.others.get(&owner.api_version, &owner.kind, namespace, &owner.name);
        let found = found.await?.filter(|found| found.uid == owner.uid);
        Ok(found.map(|found| (found.uid, found.replicas)))
    }
}
