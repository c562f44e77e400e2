//! How many pods their controllers are scaled to.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use api::Typed;
use client::{Client, ClientError, ResourcePath};
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResourceList, OwnerReference};
use meta::{GroupVersion, GroupVersionResource, ObjectKey};
use serde_json::Value;

use crate::cluster::Informers;
use crate::pod_view::PodView;
use crate::selection::controller_of;

/// Why the scale is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScaleError {
    #[error("found no controllers for pod {0:?}")]
    NoController(String),
    #[error("{0} does not implement the scale subresource")]
    NotScalable(String),
    #[error("no matches for kind {kind:?} in version {version:?}")]
    UnknownKind { kind: String, version: String },
    #[error(transparent)]
    Client(#[from] ClientError),
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
    pub(super) client: Client,
    /// Resources that have a scale, by kind: kinds of custom resources come and go, but what is
    /// known to have a scale is asked for it, and the answer says if it has gone.
    pub(super) known: Mutex<HashMap<(String, String), GroupVersionResource>>,
}

impl Scales {
    /// The sum over the controllers of the pods.
    pub(super) async fn of(&self, pods: &[Arc<PodView>]) -> Result<Scaled, ScaleError> {
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
                return Err(ScaleError::NoController(pod.key.name.clone()));
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
        let resource = self.resource(owner).await?;
        let path = ResourcePath::new(resource).object(namespace, &owner.name, "scale");
        let body = match self.client.request(Method::GET, &path, "", bytes::Bytes::new()).await {
            Err(error) if error.is_not_found() => {
                let kind = (owner.api_version.clone(), owner.kind.clone());
                self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&kind);
                return Ok(None);
            }
            result => result?,
        };
        let scale: Value = serde_json::from_slice(&body).map_err(ClientError::decode)?;
        let is_it = scale["metadata"]["uid"] == *owner.uid;
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        let replicas = i32::try_from(replicas).unwrap_or(i32::MAX);
        Ok(is_it.then(|| (owner.uid.clone(), replicas)))
    }

    /// The resource of a kind, if it has a scale.
    async fn resource(&self, owner: &OwnerReference) -> Result<GroupVersionResource, ScaleError> {
        let kind = (owner.api_version.clone(), owner.kind.clone());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&kind).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let (group, version) =
            owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let path = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let unknown = || ScaleError::UnknownKind {
            kind: owner.kind.clone(),
            version: GroupVersion::new(group, version).to_string(),
        };
        let body = match self.client.request(Method::GET, &path, "", bytes::Bytes::new()).await {
            Err(error) if error.is_not_found() => return Err(unknown()),
            result => result?,
        };
        let list = APIResourceList::from_json(&body).map_err(ClientError::decode)?;
        let is_kind = |name: &str, kind: &str| !name.contains('/') && kind == owner.kind;
        let found = list.resources.iter().find(|found| is_kind(&found.name, &found.kind));
        let name = &found.ok_or_else(unknown)?.name;
        let scale = format!("{name}/scale");
        if !list.resources.iter().any(|found| found.name == scale) {
            let named = if group.is_empty() { name.clone() } else { format!("{name}.{group}") };
            return Err(ScaleError::NotScalable(named));
        }
        let resource = GroupVersionResource::new(group, version, &**name);
        let mut cache = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(kind, resource.clone());
        Ok(resource)
    }
}
