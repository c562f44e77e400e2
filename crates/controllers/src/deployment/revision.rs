//! The ReplicaSet of a template: finding it, naming it, numbering it.

use std::collections::BTreeMap;

use api::Typed;
use api::annotations::{
    DEPLOYMENT_DESIRED_REPLICAS, DEPLOYMENT_MAX_REPLICAS, DEPLOYMENT_REVISION,
    DEPLOYMENT_REVISION_HISTORY, LAST_APPLIED,
};
use api::labels::POD_TEMPLATE_HASH;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{Rollout, rolling};

/// Whether a missing ReplicaSet is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Create {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// Annotations of a Deployment that its ReplicaSets do not take over.
const OWN_ANNOTATIONS: [&str; 6] = [
    LAST_APPLIED,
    DEPLOYMENT_REVISION,
    DEPLOYMENT_REVISION_HISTORY,
    DEPLOYMENT_DESIRED_REPLICAS,
    DEPLOYMENT_MAX_REPLICAS,
    super::rollback::ROLLBACK_TO,
];

/// Whether Deployments and their ReplicaSets have an annotation in common.
pub(super) fn taken_over(annotation: &str) -> bool {
    !OWN_ANNOTATIONS.contains(&annotation)
}

/// Upstream's alphabet for names: no vowels, so that no words appear.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Sets the ReplicaSet of the current template apart from the others.
pub(super) fn sort(deployment: Deployment, mut sets: Vec<ReplicaSet>) -> Rollout {
    sets.sort_by(|a, b| {
        let key =
            |set: &ReplicaSet| (set.metadata.creation_timestamp.clone(), set.metadata.name.clone());
        key(a).cmp(&key(b))
    });
    let template = deployment.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    // Among several, the oldest one: it is the one that a retry would find.
    let new = sets.iter().position(|set| has_template(set, &template)).map(|at| sets.remove(at));
    Rollout { deployment, new, old: sets }
}

/// Whether the templates are equal but for the hash.
pub(super) fn has_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let theirs = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    without_hash(theirs) == without_hash(template.clone())
}

fn without_hash(mut template: PodTemplateSpec) -> PodTemplateSpec {
    let mut metadata = template.metadata.take().unwrap_or_default();
    let labels = metadata.labels.get_or_insert_default();
    labels.remove(POD_TEMPLATE_HASH);
    template.metadata = Some(metadata);
    template
}

/// Annotations and size that the new ReplicaSet should have; the revision is larger than all old
/// ones.
pub(super) fn next_revision(old: &[ReplicaSet]) -> i64 {
    old.iter().map(revision_of).max().unwrap_or(0).saturating_add(1)
}

/// The revision in a ReplicaSet's annotation, 0 when there is none.
pub(super) fn revision_of(set: &ReplicaSet) -> i64 {
    annotation(&set.metadata, DEPLOYMENT_REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// An annotation.
pub(super) fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The annotations of a ReplicaSet that has become, or still is, the one of the template.
pub(super) fn annotations(
    rollout: &Rollout,
    present: &BTreeMap<String, String>,
    revision: i64,
) -> BTreeMap<String, String> {
    let mut wanted = present.clone();
    for (key, value) in rollout.deployment.metadata.annotations.iter().flatten() {
        if !OWN_ANNOTATIONS.contains(&key.as_str()) {
            wanted.insert(key.clone(), value.clone());
        }
    }
    let before = present.get(DEPLOYMENT_REVISION);
    let known = before.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    if known < revision {
        if let Some(before) = before {
            let history = wanted.entry(DEPLOYMENT_REVISION_HISTORY.to_owned()).or_default();
            let earlier = history.split(',').filter(|entry| !entry.is_empty());
            let all: Vec<&str> = earlier.chain([before.as_str()]).collect();
            *history = all.join(",");
        }
        wanted.insert(DEPLOYMENT_REVISION.to_owned(), revision.to_string());
    }
    wanted
}

/// A ReplicaSet for the current template.
pub(super) fn make(rollout: &Rollout, revision: i64) -> ReplicaSet {
    let Rollout { deployment, .. } = rollout;
    let spec = rollout.spec();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = metadata.labels.clone();
    let mut selector = spec.selector.clone();
    let match_labels = selector.match_labels.get_or_insert_default();
    match_labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let replicas = rolling::first_size(rollout, 0);
    let mut annotations = annotations(rollout, &BTreeMap::new(), revision);
    annotations.extend(size_annotations(rollout));
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.clone().unwrap_or_default())),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            annotations: Some(annotations),
            owner_references: Some(vec![reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// The annotations by which a later scaling is recognised.
pub(super) fn size_annotations(rollout: &Rollout) -> [(String, String); 2] {
    let replicas = rollout.replicas();
    [
        (DEPLOYMENT_DESIRED_REPLICAS.to_owned(), replicas.to_string()),
        (DEPLOYMENT_MAX_REPLICAS.to_owned(), (replicas + rollout.max_surge()).to_string()),
    ]
}

/// The reference by which a Deployment controls a ReplicaSet.
pub(super) fn reference(deployment: &Deployment) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: deployment.metadata.name.clone().unwrap_or_default(),
        uid: deployment.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The value of `pod-template-hash`: stable for a template, other after a collision of names.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // Printing a typed object cannot fail, and its fields have a fixed order.
    let mut bytes = template.to_json().unwrap_or_default();
    bytes.extend(collisions.into_iter().flat_map(i32::to_le_bytes));
    let digits = fnv1a(&bytes).to_string();
    digits.bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
