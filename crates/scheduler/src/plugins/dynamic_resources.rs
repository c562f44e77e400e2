//! The devices that the pod's claims were given.
//!
//! Claims are not allocated here: a pod whose claim nobody has allocated waits, and is told so. Of
//! one that is allocated, the pod goes where its devices are, and is noted in it before it is bound.
//!
//! Upstream: `pkg/scheduler/framework/plugins/dynamicresources`.

use std::sync::Arc;

use client::{Client, ClientError};
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use meta::ObjectKey;
use serde_json::json;

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::{DeviceClaim, PodInfo};
use crate::snapshot::Snapshot;

const ELSEWHERE: &str = "resourceclaim not available on the node";
const IN_USE: &str = "resourceclaim in use";
/// How many pods may have a claim at once: upstream `ResourceClaimReservedForMaxSize`.
const CONSUMERS_MAX: usize = 256;

/// Filters by where the devices of the pod's claims are.
pub struct DynamicResources;

/// The nodes that the devices of the claims leave.
struct Places(Vec<NodeSelector>);

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<(), Rejection> {
        let mut places = Vec::new();
        for named in &pod.device_claims {
            let Some(claim) = find(pod, named, snapshot).map_err(Rejection::unresolvable)? else {
                continue;
            };
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
            let Some(allocation) = allocation else {
                let text = format!(
                    "resourceclaim {name:?} is not allocated, and this scheduler does not \
                     allocate devices"
                );
                return Err(Rejection::unresolvable(text));
            };
            if !has(claim, pod) && consumers(claim).len() >= CONSUMERS_MAX {
                return Err(Rejection::unresolvable(IN_USE));
            }
            places.extend(allocation.node_selector.clone());
        }
        if !places.is_empty() {
            state.write(Places(places));
        }
        Ok(())
    }

    fn filter(
        &self,
        state: &CycleState,
        _: &PodInfo,
        node: &NodeInfo,
        _: &Snapshot,
    ) -> Result<(), Rejection> {
        let Some(Places(places)) = state.read() else { return Ok(()) };
        let is_here = |selector: &NodeSelector| {
            api::node_selector::takes(selector, &node.name, |key| node.label(key))
        };
        if places.iter().all(is_here) { Ok(()) } else { Err(Rejection::resolvable(ELSEWHERE)) }
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        use ClusterEvent::{DeviceClaims, NodeAdded, NodeLabels};
        matches!(event, DeviceClaims | NodeAdded | NodeLabels)
    }
}

/// The claims in which a pod has to be noted before it is bound.
pub fn unreserved(pod: &PodInfo, snapshot: &Snapshot) -> Vec<Arc<ResourceClaim>> {
    let found = pod.device_claims.iter().filter_map(|named| find(pod, named, snapshot).ok()?);
    found.filter(|claim| !has(claim, pod)).cloned().collect()
}

/// Notes a pod in a claim.
///
/// # Errors
/// Any failure of a request; a conflict means that the claim has changed meanwhile.
pub async fn reserve(
    client: &Client,
    pod: &PodInfo,
    claim: &ResourceClaim,
) -> Result<(), ClientError> {
    let known = consumers(claim).iter();
    let mut all: Vec<_> = known.filter_map(|one| serde_json::to_value(one).ok()).collect();
    all.push(json!({ "resource": "pods", "name": pod.key.name, "uid": pod.uid }));
    let change = json!({ "metadata": { "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version },
        "status": { "reservedFor": all } });
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let api = client.api::<ResourceClaim>(&pod.key.namespace);
    api.merge_update(name, "status", &change).await.map(drop)
}

fn consumers(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default()
}

fn has(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    consumers(claim).iter().any(|consumer| consumer.uid == pod.uid)
}

/// The claim of one of the pod's entries, if it needs one, or why the pod cannot have it.
fn find<'a>(
    pod: &PodInfo,
    named: &DeviceClaim,
    snapshot: &'a Snapshot,
) -> Result<Option<&'a Arc<ResourceClaim>>, String> {
    let (name, is_made) = match named {
        DeviceClaim::Given(name) => (name, false),
        DeviceClaim::Made(name) => (name, true),
        DeviceClaim::NotNeeded => return Ok(None),
        DeviceClaim::NotMade => {
            return Err(format!("pod \"{}\": ResourceClaim not created yet", pod.key));
        }
    };
    let key = ObjectKey::new(&pod.key.namespace, name);
    let Some(claim) = snapshot.device_claims.get(&key) else {
        return Err(format!("could not find v1.ResourceClaim \"{key}\""));
    };
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("resourceclaim {name:?} is being deleted"));
    }
    let mut owners = claim.metadata.owner_references.iter().flatten();
    if is_made && !owners.any(|owner| owner.controller == Some(true) && owner.uid == pod.uid) {
        let pod = &pod.key;
        return Err(format!(
            "ResourceClaim {key} was not created for pod {pod} (pod is not owner)"
        ));
    }
    Ok(Some(claim))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pod(claim: Value, statuses: Value) -> PodInfo {
        let mut entry = claim;
        entry["name"] = "gpu".into();
        let pod = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" },
            "spec": { "containers": [], "resourceClaims": [entry] },
            "status": { "resourceClaimStatuses": statuses } });
        PodInfo::new(&serde_json::from_value(pod).unwrap())
    }

    fn snapshot(change: Value) -> Snapshot {
        let mut claim = json!({ "metadata": { "name": "c", "namespace": "n" }, "spec": {},
            "status": { "allocation": { "nodeSelector": { "nodeSelectorTerms": [{
                "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["a"] }]
            }] } } } });
        for (pointer, value) in change.as_object().unwrap() {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            claim.pointer_mut(parent).unwrap()[field] = value.clone();
        }
        let mut snapshot = Snapshot::default();
        let claim = Arc::new(serde_json::from_value(claim).unwrap());
        snapshot.device_claims.insert(ObjectKey::new("n", "c"), claim);
        snapshot
    }

    /// What nodes `a` and `b` say.
    fn told(pod: &PodInfo, snapshot: &Snapshot) -> [String; 2] {
        ["a", "b"].map(|name| {
            let node = NodeInfo { name: name.to_owned(), ..NodeInfo::default() };
            let mut state = CycleState::default();
            let verdict = DynamicResources
                .pre_filter(&mut state, pod, snapshot)
                .and_then(|()| DynamicResources.filter(&state, pod, &node, snapshot));
            verdict.map_or_else(|rejection| rejection.reasons.join(", "), |()| "ok".to_owned())
        })
    }

    #[track_caller]
    fn check(pod: &PodInfo, snapshot: &Snapshot, expected: &str) {
        assert_eq!(told(pod, snapshot), [expected, expected].map(str::to_owned));
    }

    #[test]
    fn a_pod_goes_where_its_devices_are() {
        let given = pod(json!({ "resourceClaimName": "c" }), json!([]));
        assert_eq!(told(&given, &snapshot(json!({}))), ["ok", ELSEWHERE].map(str::to_owned));
        let anywhere = snapshot(json!({ "/status/allocation": {} }));
        check(&given, &anywhere, "ok");
        let none = pod(json!({ "resourceClaimTemplateName": "t" }), json!([{ "name": "gpu" }]));
        check(&none, &Snapshot::default(), "ok");
    }

    #[test]
    fn a_pod_waits_for_its_claims() {
        let given = pod(json!({ "resourceClaimName": "c" }), json!([]));
        check(&given, &Snapshot::default(), "could not find v1.ResourceClaim \"n/c\"");
        let free = snapshot(json!({ "/status/allocation": null }));
        let text = "resourceclaim \"c\" is not allocated, and this scheduler does not allocate \
                    devices";
        check(&given, &free, text);
        let deleted = snapshot(json!({ "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" }));
        check(&given, &deleted, "resourceclaim \"c\" is being deleted");
        let many: Vec<_> = (0..CONSUMERS_MAX)
            .map(|at| json!({ "resource": "pods", "name": "q", "uid": at.to_string() }))
            .collect();
        check(&given, &snapshot(json!({ "/status/reservedFor": many })), IN_USE);
        let template = json!({ "resourceClaimTemplateName": "t" });
        let text = "pod \"n/p\": ResourceClaim not created yet";
        check(&pod(template.clone(), json!([])), &snapshot(json!({})), text);
        let made = json!([{ "name": "gpu", "resourceClaimName": "c" }]);
        let text = "ResourceClaim n/c was not created for pod n/p (pod is not owner)";
        check(&pod(template, made), &snapshot(json!({})), text);
    }

    #[test]
    fn a_pod_is_noted_once() {
        let given = pod(json!({ "resourceClaimName": "c" }), json!([]));
        assert_eq!(unreserved(&given, &snapshot(json!({}))).len(), 1);
        let noted = json!([{ "resource": "pods", "name": "p", "uid": "u" }]);
        assert!(unreserved(&given, &snapshot(json!({ "/status/reservedFor": noted }))).is_empty());
    }
}
