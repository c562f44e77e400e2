//! ControllerRevisions: the templates that a set has had. What DaemonSets and StatefulSets share.

use api::Typed;
use client::{Client, ClientError, DeleteOptions, Patch, ResourcePath};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as wire;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::deployment::template_hash;
use crate::pod_control::Owner;
use crate::selection::{controller_of, selector};

/// What to do about a revision that a set has or could have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Keep,
    Adopt,
    Release,
    Ignore,
}

/// Whose a revision is, and whose it should be.
pub(crate) fn claim(
    set: &wire::ObjectMeta,
    wanted: Option<&wire::LabelSelector>,
    revision: &ControllerRevision,
) -> Claim {
    let labels = revision.metadata.labels.as_ref();
    let matches = selector(wanted).matches(|key| labels?.get(key).map(String::as_str));
    let is_going =
        set.deletion_timestamp.is_some() || revision.metadata.deletion_timestamp.is_some();
    match controller_of(&revision.metadata) {
        Some(owner) if Some(&owner.uid) != set.uid.as_ref() => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        None if matches && !is_going => Claim::Adopt,
        Some(_) if !is_going => Claim::Release,
        _ => Claim::Ignore,
    }
}

/// A template as the strategic merge patch that brings it back.
pub(crate) fn data(template: &PodTemplateSpec) -> Value {
    let mut template = template.to_tree().unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}

/// A set's template as a revision, called by a hash of it, which also is the label `hash_label`.
pub(crate) fn snapshot(
    set: &wire::ObjectMeta,
    owner: &Owner,
    template: &PodTemplateSpec,
    hash_label: &str,
    (number, collisions): (i64, Option<i32>),
) -> ControllerRevision {
    let hash = template_hash(template, collisions);
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
    let mut labels = labels.unwrap_or_default();
    labels.insert(hash_label.to_owned(), hash.clone());
    ControllerRevision {
        metadata: wire::ObjectMeta {
            name: Some(format!("{}-{hash}", owner.key.name)),
            namespace: Some(owner.key.namespace.clone()),
            labels: Some(labels),
            annotations: set.annotations.clone(),
            owner_references: Some(vec![owner.reference()]),
            ..wire::ObjectMeta::default()
        },
        data: Some(RawExtension(data(template))),
        revision: number,
    }
}

/// Whether a revision is of what [`data`] made.
pub(crate) fn has_data(revision: &ControllerRevision, data: &Value) -> bool {
    revision.data.as_ref().is_some_and(|has| has.0 == *data)
}

/// Writes revisions of one owner.
pub(crate) struct RevisionControl<'a> {
    pub(crate) client: &'a Client,
    pub(crate) owner: &'a Owner,
}

impl RevisionControl<'_> {
    /// Makes the owner the controller of a revision that has none.
    pub(crate) async fn adopt(&self, revision: &ControllerRevision) -> Result<(), ClientError> {
        self.patch_owner(revision, json!(self.owner.reference())).await
    }

    /// Takes the owner's reference off a revision.
    pub(crate) async fn release(&self, revision: &ControllerRevision) -> Result<(), ClientError> {
        let gone = json!({ "$patch": "delete", "uid": self.owner.uid });
        self.patch_owner(revision, gone).await
    }

    /// Deletes a revision. One that is gone is no error.
    pub(crate) async fn delete(&self, revision: &ControllerRevision) -> Result<(), ClientError> {
        let options =
            DeleteOptions { uid: revision.metadata.uid.clone(), ..DeleteOptions::default() };
        let api = self.client.api::<ControllerRevision>(&self.owner.key.namespace);
        match api.delete(revision.metadata.name.as_deref().unwrap_or_default(), &options).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Merges a change into a revision.
    pub(crate) async fn change(
        &self,
        revision: &ControllerRevision,
        change: &Value,
    ) -> Result<ControllerRevision, ClientError> {
        let path = ResourcePath::of::<ControllerRevision>();
        let api = self.client.dynamic::<ControllerRevision>(path, &self.owner.key.namespace);
        api.merge_update(revision.metadata.name.as_deref().unwrap_or_default(), "", change).await
    }

    async fn patch_owner(
        &self,
        revision: &ControllerRevision,
        owner: Value,
    ) -> Result<(), ClientError> {
        let patch = json!({
            "metadata": { "ownerReferences": [owner], "uid": revision.metadata.uid } });
        let api = self.client.api::<ControllerRevision>(&self.owner.key.namespace);
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        match api.patch(name, &Patch::Strategic(patch)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
