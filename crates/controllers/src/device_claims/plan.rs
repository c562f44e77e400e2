//! The pure core: which claims a pod still needs, and what becomes of a claim whose pods have gone.

use api::finalizers::RESOURCE_CLAIM;
use k8s_openapi::api::resource::v1::{
    ResourceClaim, ResourceClaimConsumerReference, ResourceClaimSpec, ResourceClaimTemplate,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::pod_devices::{DeviceClaim, Named};
use crate::pod_view::PodView;
use crate::selection::controller_of;

/// On a claim that was made for a pod: for which entry of its spec.
pub(super) const ENTRY: &str = "resource.kubernetes.io/pod-claim-name";
/// How long the part of a name may be that the server completes: a hyphen and five more follow.
const BASE_MAX: usize = 57;
/// How many pods may have a claim at once: upstream `ResourceClaimReservedForMaxSize`.
const CONSUMERS_MAX: usize = 256;

/// The claim of one entry.
#[derive(Debug, PartialEq)]
pub(super) enum Wish<'a> {
    /// Nothing is to be done.
    Settled,
    /// This claim is the pod's, and its status should say so.
    Found(&'a str),
    /// One has to be made of this template.
    Make(&'a str),
}

/// Whether a claim asks for devices that others use, too.
pub(super) fn is_of_admin(spec: &ResourceClaimSpec) -> bool {
    let devices = spec.devices.as_ref();
    let requests = devices.and_then(|devices| devices.requests.as_deref()).unwrap_or_default();
    requests.iter().any(|request| {
        request.exactly.as_ref().is_some_and(|exactly| exactly.admin_access == Some(true))
    })
}

/// Decides about one entry of a pod; `is_ours` says whether a claim exists and is the pod's, `owned`
/// are those that were made for it, by entry.
pub(super) fn wish<'a>(
    entry: &'a DeviceClaim,
    is_ours: impl Fn(&str) -> bool,
    owned: &'a [(String, String)],
) -> Wish<'a> {
    let is_there = match &entry.claim {
        Named::Given(_) | Named::NotNeeded => return Wish::Settled,
        // Another one of this name is no use: the pod gets a new one.
        Named::Made(name) => is_ours(name),
        Named::NotMade => false,
    };
    let Some(template) = entry.template.as_deref().filter(|_| !is_there) else {
        return Wish::Settled;
    };
    match owned.iter().find(|(of, _)| *of == entry.name) {
        Some((_, name)) => Wish::Found(name),
        None => Wish::Make(template),
    }
}

/// The claim of a template for an entry of a pod.
pub(super) fn make(pod: &PodView, entry: &str, template: &ResourceClaimTemplate) -> ResourceClaim {
    let from = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = from.annotations.unwrap_or_default();
    annotations.insert(ENTRY.to_owned(), entry.to_owned());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(base_name(&pod.key.name, entry)),
            namespace: Some(pod.key.namespace.clone()),
            labels: from.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: pod.key.name.clone(),
                uid: pod.uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// Both names; of long ones as much of each as there is room for.
fn base_name(pod: &str, entry: &str) -> String {
    let whole = format!("{pod}-{entry}-");
    if whole.len() <= BASE_MAX {
        return whole;
    }
    let part = |name: &str| name[..name.len() * BASE_MAX / whole.len()].to_owned();
    format!("{}-{}", part(pod), part(entry))
}

/// Whether a pod that has a node must be noted in the claim that it uses.
pub(super) fn must_reserve(pod: &PodView, claim: &ResourceClaim) -> bool {
    let consumers = consumers(claim);
    is_allocated(claim)
        && consumers.len() < CONSUMERS_MAX
        && consumers.iter().all(|consumer| consumer.uid != pod.uid)
}

pub(super) fn consumers(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default()
}

fn is_allocated(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.allocation.is_some())
}

/// Whether a pod will not use its claims any more.
pub(super) fn is_done(pod: &PodView) -> bool {
    pod.is_terminal() || (pod.deleted.is_some() && pod.node.is_empty())
}

/// Whether a claim is one that was made for this pod, and not one of that name for another.
pub(super) fn is_of(claim: &ResourceClaim, pod: &PodView) -> bool {
    controller_of(&claim.metadata).is_some_and(|owner| owner.uid == pod.uid)
}

/// What becomes of a claim.
#[derive(Debug, PartialEq)]
pub(super) struct Settlement {
    /// Who has it from now on, if that changes.
    pub(super) consumers: Option<Vec<ResourceClaimConsumerReference>>,
    /// Its devices are given back.
    pub(super) deallocate: bool,
    /// It need not be kept any more.
    pub(super) unprotect: bool,
}

/// Decides about a claim; `stays` says of each of its consumers whether it still needs it.
pub(super) fn settle(claim: &ResourceClaim, stays: &[bool]) -> Settlement {
    let before = consumers(claim);
    let left: Vec<_> = before
        .iter()
        .zip(stays)
        .filter(|(_, stays)| **stays)
        .map(|(consumer, _)| consumer.clone())
        .collect();
    let finalizers = claim.metadata.finalizers.as_deref().unwrap_or_default();
    let is_protected = finalizers.iter().any(|name| name == RESOURCE_CLAIM);
    let was_last = left.is_empty() && !before.is_empty();
    // A driver may allocate without a consumer: that nobody uses it is no reason by itself.
    let is_over = left.is_empty() && (was_last || claim.metadata.deletion_timestamp.is_some());
    Settlement {
        deallocate: is_protected && is_over && is_allocated(claim),
        unprotect: is_protected && is_over,
        consumers: (left.len() < before.len()).then_some(left),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value, status: Value) -> PodView {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "namespace": "n", "name": "p", "uid": "u" },
            "spec": spec, "status": status }))
        .unwrap();
        PodView::new(pod)
    }

    fn claim(change: Value) -> ResourceClaim {
        let mut claim = json!({ "metadata": { "name": "c", "finalizers": [RESOURCE_CLAIM] },
            "spec": {}, "status": { "allocation": {}, "reservedFor": [
                { "resource": "pods", "name": "p", "uid": "u" },
                { "resource": "pods", "name": "q", "uid": "v" }] } });
        for (pointer, value) in change.as_object().unwrap() {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            claim.pointer_mut(parent).unwrap()[field] = value.clone();
        }
        serde_json::from_value(claim).unwrap()
    }

    #[track_caller]
    fn check_wish(entry: Value, statuses: Value, is_ours: bool, expected: Wish<'_>) {
        let spec = json!({ "containers": [], "resourceClaims": [entry] });
        let pod = pod(spec, json!({ "resourceClaimStatuses": statuses }));
        let entry = &pod.devices.as_ref().unwrap().wanted[0];
        let owned = [("found".to_owned(), "p-found-x".to_owned())];
        assert_eq!(wish(entry, |_| is_ours, &owned), expected);
    }

    #[test]
    fn a_pod_gets_the_claims_of_its_templates() {
        let entry = |name: &str| json!({ "name": name, "resourceClaimTemplateName": "t" });
        let given = json!({ "name": "a", "resourceClaimName": "mine" });
        check_wish(given, json!([]), false, Wish::Settled);
        check_wish(entry("a"), json!([]), false, Wish::Make("t"));
        check_wish(entry("found"), json!([]), false, Wish::Found("p-found-x"));
        check_wish(entry("a"), json!([{ "name": "a" }]), false, Wish::Settled);
        let made = json!([{ "name": "a", "resourceClaimName": "p-a-x" }]);
        check_wish(entry("a"), made.clone(), true, Wish::Settled);
        check_wish(entry("a"), made, false, Wish::Make("t"));
    }

    #[test]
    fn a_claim_is_of_its_template_and_its_pod() {
        let template = serde_json::from_value(json!({ "metadata": {}, "spec": {
            "metadata": { "labels": { "a": "b" }, "annotations": { "c": "d" } },
            "spec": { "devices": {} } } }))
        .unwrap();
        let made = make(&pod(json!({ "containers": [] }), json!({})), "gpu", &template);
        let metadata = &made.metadata;
        assert_eq!(metadata.generate_name.as_deref(), Some("p-gpu-"));
        assert_eq!(metadata.labels.as_ref().unwrap()["a"], "b");
        let annotations = metadata.annotations.as_ref().unwrap();
        assert_eq!((annotations["c"].as_str(), annotations[ENTRY].as_str()), ("d", "gpu"));
        assert_eq!(controller_of(metadata).unwrap().uid, "u");
        let long = base_name(&"p".repeat(60), &"c".repeat(40));
        assert_eq!(long, format!("{}-{}", "p".repeat(33), "c".repeat(22)));
    }

    #[test]
    fn pods_with_a_node_are_noted_once() {
        let pod = pod(json!({ "nodeName": "a", "containers": [] }), json!({}));
        assert!(!must_reserve(&pod, &claim(json!({}))));
        assert!(must_reserve(&pod, &claim(json!({ "/status/reservedFor": [] }))));
        let free = claim(json!({ "/status/reservedFor": [], "/status/allocation": null }));
        assert!(!must_reserve(&pod, &free));
    }

    #[track_caller]
    fn check_end(change: Value, stays: &[bool], left: Option<usize>, is_over: [bool; 2]) {
        let end = settle(&claim(change), stays);
        assert_eq!(end.consumers.map(|consumers| consumers.len()), left);
        assert_eq!([end.deallocate, end.unprotect], is_over);
    }

    #[test]
    fn the_last_pod_gives_the_devices_back() {
        check_end(json!({}), &[true, true], None, [false; 2]);
        check_end(json!({}), &[true, false], Some(1), [false; 2]);
        check_end(json!({}), &[false, false], Some(0), [true; 2]);
        let classic = json!({ "/metadata/finalizers": [] });
        check_end(classic, &[false, false], Some(0), [false; 2]);
    }

    #[test]
    fn what_nobody_uses_goes_when_it_is_deleted() {
        let unused = json!({ "/status/reservedFor": [] });
        check_end(unused, &[], None, [false; 2]);
        let deleted = json!({ "/status/reservedFor": [],
            "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" });
        check_end(deleted, &[], None, [true; 2]);
        let in_use = json!({ "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" });
        check_end(in_use, &[true, true], None, [false; 2]);
    }
}
