//! How workload controllers create, delete, adopt and release pods.

use std::sync::Arc;

use api::Typed;
use client::{Client, ClientError, DeleteOptions, EventRecorder, EventType, Patch, Regarding};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};
use meta::{LabelSelector, ObjectKey};
use serde_json::json;

use crate::pod_view::PodView;
use crate::written::{PODS, Writes};

/// The object that pods are made for.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
}

impl Owner {
    /// The reference by which it controls a dependent.
    pub(crate) fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.api_version.to_owned(),
            kind: self.kind.to_owned(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// What its events are about.
    pub(crate) fn regarding(&self) -> Regarding {
        Regarding {
            api_version: self.api_version.to_owned(),
            kind: self.kind.to_owned(),
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
            ..Regarding::default()
        }
    }
}

/// Writes pods for one controller, with upstream's events.
#[derive(Clone)]
pub(crate) struct PodControl {
    pub(crate) client: Client,
    pub(crate) recorder: EventRecorder,
    /// What is told of writes, for controllers that wait until they have seen them.
    pub(crate) writes: Option<Arc<Writes>>,
}

impl PodControl {
    /// Creates a pod and tells so in an event of the owner.
    pub(crate) async fn create(&self, owner: &Owner, pod: &Pod) -> Result<(), ClientError> {
        let namespace = &owner.key.namespace;
        match self.client.api::<Pod>(namespace).create_unread(pod).await {
            Ok(created) => {
                let text = format!("Created pod: {}", created.name);
                self.event(owner, EventType::Normal, "SuccessfulCreate", text);
                self.wrote(owner, Some(&created.resource_version));
                Ok(())
            }
            Err(error) => {
                // Nothing can be created in it any more, and nobody needs to hear that.
                if !error.is_namespace_terminating() {
                    let text = format!("Error creating: {error}");
                    self.event(owner, EventType::Warning, "FailedCreate", text);
                }
                Err(error)
            }
        }
    }

    /// Deletes a pod and tells so in an event of the owner. One that is gone is no error.
    pub(crate) async fn delete(&self, owner: &Owner, pod: &PodView) -> Result<(), ClientError> {
        let options = DeleteOptions { uid: Some(pod.uid.clone()), ..DeleteOptions::default() };
        let pods = self.client.api::<Pod>(&pod.key.namespace);
        match pods.delete(&pod.key.name, &options).await {
            Ok(()) => {
                let text = format!("Deleted pod: {}", pod.key.name);
                self.event(owner, EventType::Normal, "SuccessfulDelete", text);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                let text = format!("Error deleting: {error}");
                self.event(owner, EventType::Warning, "FailedDelete", text);
                Err(error)
            }
        }
    }

    /// Makes the owner the controller of a pod that has none.
    pub(crate) async fn adopt(&self, owner: &Owner, pod: &PodView) -> Result<(), ClientError> {
        let patch = json!({
            "metadata": { "ownerReferences": [owner.reference()], "uid": pod.uid },
        });
        self.patch(Some(owner), pod, patch).await
    }

    /// Takes the owner's reference off a pod.
    pub(crate) async fn release(&self, owner: &Owner, pod: &PodView) -> Result<(), ClientError> {
        let gone = json!({ "$patch": "delete", "uid": owner.uid });
        let patch = json!({ "metadata": { "ownerReferences": [gone], "uid": pod.uid } });
        self.patch(Some(owner), pod, patch).await
    }

    /// The pods that are the owner's, of those that could be. The others are adopted and released
    /// as they are to be, as long as the server says that the owner, a `T`, is still there.
    pub(crate) async fn claim_all<T: Resource + Metadata<Ty = ObjectMeta> + Typed>(
        &self,
        owner: &Owner,
        owner_is_deleted: bool,
        selector: &LabelSelector,
        pods: impl Iterator<Item = Arc<PodView>>,
    ) -> Result<Vec<Arc<PodView>>, ClientError> {
        let mut claimed = Vec::new();
        for pod in pods {
            match claim(&pod, owner, owner_is_deleted, selector) {
                Claim::Keep => claimed.push(pod),
                Claim::Ignore => {}
                Claim::Release => self.release(owner, &pod).await?,
                Claim::Adopt if self.is_alive::<T>(owner).await? => {
                    self.adopt(owner, &pod).await?;
                    claimed.push(pod);
                }
                Claim::Adopt => {}
            }
        }
        Ok(claimed)
    }

    /// Asks the server whether the owner still is what the cache says, before it adopts.
    pub(crate) async fn is_alive<T: Resource + Metadata<Ty = ObjectMeta> + Typed>(
        &self,
        owner: &Owner,
    ) -> Result<bool, ClientError> {
        let fresh = self.client.api::<T>(&owner.key.namespace).get_opt(&owner.key.name).await?;
        Ok(fresh.is_some_and(|fresh| {
            let meta = fresh.metadata();
            meta.uid.as_ref() == Some(&owner.uid) && meta.deletion_timestamp.is_none()
        }))
    }

    /// Patches a pod, of an owner that is there; one that is gone, or another of its name, is no
    /// error.
    pub(crate) async fn patch(
        &self,
        owner: Option<&Owner>,
        pod: &PodView,
        patch: serde_json::Value,
    ) -> Result<(), ClientError> {
        let pods = self.client.api::<Pod>(&pod.key.namespace);
        match pods.patch(&pod.key.name, &Patch::Strategic(patch)).await {
            Ok(written) => {
                let version = written.metadata.resource_version.as_deref();
                owner.into_iter().for_each(|owner| self.wrote(owner, version));
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A pod of an owner was written and has this version now.
    pub(crate) fn wrote(&self, owner: &Owner, version: Option<&str>) {
        if let Some(writes) = &self.writes {
            writes.wrote(owner, PODS, version);
        }
    }

    fn event(&self, owner: &Owner, kind: EventType, reason: &str, text: String) {
        self.recorder.record(&owner.regarding(), kind, reason, text);
    }
}

/// What to do about a pod that an owner has or could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is the owner's.
    Keep,
    /// It should become the owner's.
    Adopt,
    /// It is the owner's and should not be.
    Release,
    /// It is none of the owner's business.
    Ignore,
}

/// Upstream `BaseControllerRefManager.ClaimObject`.
pub(crate) fn claim(
    pod: &PodView,
    owner: &Owner,
    owner_is_deleted: bool,
    selector: &LabelSelector,
) -> Claim {
    let matches = pod.matches(selector);
    match &pod.controller {
        Some(controller) if controller.uid != owner.uid => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if owner_is_deleted || pod.deleted.is_some() => Claim::Ignore,
        Some(_) => Claim::Release,
        None if matches && !owner_is_deleted && pod.deleted.is_none() => Claim::Adopt,
        None => Claim::Ignore,
    }
}

/// A pod made of a template; the server gives it its name.
pub(crate) fn from_template(owner: &Owner, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.key.name)),
            namespace: Some(owner.key.namespace.clone()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner.reference()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
