//! Who a pod of a StatefulSet is: its ordinal, its names, its claims.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::HASH;
use crate::pod_control::{Owner, from_template};
use crate::pod_view::PodView;

/// Labels of pods that say which of the set they are.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The number at the end of the name of a set's pod; `None` for pods that are not called so.
pub(super) fn ordinal(set: &str, pod: &str) -> Option<i64> {
    let (parent, number) = pod.rsplit_once('-')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (parent == set && is_number).then(|| number.parse::<i32>().ok())?.map(i64::from)
}

/// The first ordinal.
pub(super) fn start(set: &StatefulSet) -> i64 {
    let ordinals = set.spec.as_ref().and_then(|spec| spec.ordinals.as_ref());
    ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0).into()
}

/// How many pods there should be.
pub(super) fn replicas(set: &StatefulSet) -> i64 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).into()
}

/// The name of a pod.
pub(super) fn pod_name(set: &str, ordinal: i64) -> String {
    format!("{set}-{ordinal}")
}

/// The pod with an ordinal, of a template.
pub(super) fn pod(
    set: &StatefulSet,
    owner: &Owner,
    template: &PodTemplateSpec,
    (ordinal, revision): (i64, &str),
) -> Pod {
    let mut pod = from_template(owner, template);
    let name = pod_name(&owner.key.name, ordinal);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.extend(labels_of(&name, ordinal));
    labels.insert(HASH.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    let claims = templates(set);
    let mut volumes: Vec<Volume> =
        claims.iter().map(|claim| volume(claim, owner, ordinal)).collect();
    let is_other = |volume: &Volume| claims.iter().all(|claim| *name_of(claim) != *volume.name);
    volumes.extend(spec.volumes.take().into_iter().flatten().filter(is_other));
    spec.volumes = Some(volumes).filter(|volumes| !volumes.is_empty());
    pod
}

/// The labels that a pod needs to have.
pub(super) fn labels_of(name: &str, ordinal: i64) -> [(String, String); 2] {
    [(POD_NAME.to_owned(), name.to_owned()), (POD_INDEX.to_owned(), ordinal.to_string())]
}

/// Whether a pod is labelled as the one it is.
pub(super) fn is_labelled(pod: &PodView) -> bool {
    pod.labels.get(POD_NAME) == Some(&pod.key.name)
}

/// The templates of claims.
pub(super) fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    let spec = set.spec.as_ref();
    spec.and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default()
}

/// The name of the claim of a pod.
pub(super) fn claim_name(template: &PersistentVolumeClaim, set: &str, ordinal: i64) -> String {
    format!("{}-{set}-{ordinal}", name_of(template))
}

/// Whether a claim is of a pod of the set, by its name.
pub(super) fn is_claim_of(template: &PersistentVolumeClaim, set: &str, claim: &str) -> bool {
    let rest = claim.strip_prefix(name_of(template)).and_then(|rest| rest.strip_prefix('-'));
    rest.is_some_and(|pod| ordinal(set, pod).is_some())
}

/// The claim of a pod, as it is created.
pub(super) fn claim(
    set: &StatefulSet,
    owner: &Owner,
    template: &PersistentVolumeClaim,
    ordinal: i64,
) -> PersistentVolumeClaim {
    let selector = set.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    let mut labels: BTreeMap<_, _> = template.metadata.labels.clone().unwrap_or_default();
    labels.extend(selector.match_labels.unwrap_or_default());
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim_name(template, &owner.key.name, ordinal)),
            namespace: Some(owner.key.namespace.clone()),
            labels: Some(labels),
            ..template.metadata.clone()
        },
        status: None,
        ..template.clone()
    }
}

fn volume(template: &PersistentVolumeClaim, owner: &Owner, ordinal: i64) -> Volume {
    let claim_name = claim_name(template, &owner.key.name, ordinal);
    Volume {
        name: name_of(template).to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name,
            ..PersistentVolumeClaimVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn name_of(template: &PersistentVolumeClaim) -> &str {
    template.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_ordinal_is_at_the_end_of_the_name() {
        assert_eq!(ordinal("web", "web-12"), Some(12));
        assert_eq!(ordinal("web", "web-0-1"), None);
        assert_eq!(ordinal("web-0", "web-0-1"), Some(1));
        for other in ["web", "web-", "web-x", "other-1", "web-99999999999", "web-+1"] {
            assert_eq!(ordinal("web", other), None, "{other}");
        }
    }

    #[test]
    fn a_pod_has_the_names_and_claims_of_its_ordinal() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "n", "uid": "u" },
            "spec": {
                "serviceName": "svc", "selector": { "matchLabels": { "a": "b" } },
                "template": { "metadata": { "labels": { "a": "b" } }, "spec": {
                    "containers": [], "volumes": [
                        { "name": "data", "emptyDir": {} }, { "name": "own", "emptyDir": {} }] } },
                "volumeClaimTemplates": [
                    { "metadata": { "name": "data", "labels": { "x": "y" } }, "spec": {} }],
            },
        }))
        .unwrap();
        let owner = super::super::owner(&set);
        let template = &set.spec.as_ref().unwrap().template;
        let pod = pod(&set, &owner, template, (3, "web-abc"));
        let labels = pod.metadata.labels.as_ref().unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-3"));
        assert_eq!(
            (&*labels[POD_NAME], &*labels[POD_INDEX], &*labels[HASH]),
            ("web-3", "3", "web-abc")
        );
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(
            (spec.hostname.as_deref(), spec.subdomain.as_deref()),
            (Some("web-3"), Some("svc"))
        );
        let volumes = spec.volumes.as_ref().unwrap();
        let names: Vec<_> = volumes.iter().map(|volume| &*volume.name).collect();
        assert_eq!(names, ["data", "own"]);
        let source = volumes[0].persistent_volume_claim.as_ref().unwrap();
        assert_eq!(source.claim_name, "data-web-3");
        let claim = claim(&set, &owner, &templates(&set)[0], 3);
        assert_eq!(claim.metadata.name.as_deref(), Some("data-web-3"));
        let labels = claim.metadata.labels.unwrap();
        assert_eq!((&*labels["a"], &*labels["x"]), ("b", "y"));
    }
}
