//! The condition `Unused` of claims, behind the gate `PersistentVolumeClaimUnusedSinceTime`: since
//! when no pod that has not ended refers to a claim. Without the gate it stays as it was.
//!
//! Upstream: `updateUnusedCondition` in
//! `pkg/controller/volume/pvcprotection/pvc_protection_controller.go`.

use std::sync::Arc;

use client::{Change, Client, ClientError, ListOptions, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::ObjectKey;
use serde_json::json;

use super::mounts;
use crate::cluster::Informers;
use crate::context::Context;
use crate::in_the_way::InTheWay;
use crate::pod_view::PodView;

const UNUSED: &str = "Unused";

/// Whether claims have the condition.
pub(super) fn is_told(ctx: &Context) -> bool {
    ctx.config.features.is_enabled("PersistentVolumeClaimUnusedSinceTime")
}

/// Looks at claims that do not have it yet, and at those of pods that come, end or go.
pub(super) fn follow(informers: &Informers, queue: &WorkQueue<ObjectKey>) {
    let claims = queue.clone();
    informers.claims.on_change(move |key, change| {
        let (Change::Added(claim) | Change::Updated { new: claim, .. }) = change else { return };
        if condition(claim).is_none() {
            claims.add(key.clone());
        }
    });
    let queue = queue.clone();
    informers.pods.on_change(move |_, change| match change {
        Change::Added(pod) | Change::Deleted(pod) => add_claims(&queue, pod),
        Change::Updated { old, new } if old.is_stopped() == new.is_stopped() => {}
        Change::Updated { new, .. } => add_claims(&queue, new),
    });
}

fn add_claims(queue: &WorkQueue<ObjectKey>, pod: &PodView) {
    for claim in &pod.claims {
        queue.add(ObjectKey::new(&pod.key.namespace, claim));
    }
}

/// Has the condition say what is so; returns who refers to the claim.
pub(super) async fn sync(
    ctx: &Context,
    client: &Client,
    claim: &PersistentVolumeClaim,
) -> Result<InTheWay, ClientError> {
    let users = users(ctx, client, claim).await?;
    let change = change(condition(claim), users != InTheWay::Nothing);
    let Some((status, reason, message)) = change else { return Ok(users) };
    let condition = PersistentVolumeClaimCondition {
        type_: UNUSED.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(ctx.clock.now())),
        last_probe_time: None,
    };
    let known = claim.status.as_ref().and_then(|status| status.conditions.clone());
    let mut conditions = known.unwrap_or_default();
    match conditions.iter_mut().find(|one| one.type_ == UNUSED) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let api = client.api::<PersistentVolumeClaim>(namespace);
    let change = json!({ "status": { "conditions": conditions } });
    match api.merge_known(claim, "status", &change).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(users),
    }
}

fn condition(claim: &PersistentVolumeClaim) -> Option<&PersistentVolumeClaimCondition> {
    let conditions = claim.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == UNUSED)
}

/// Status, reason and message of the condition, if it has to change.
fn change(
    known: Option<&PersistentVolumeClaimCondition>,
    is_used: bool,
) -> Option<(&'static str, &'static str, &'static str)> {
    let known = known.map(|condition| condition.status.as_str());
    match (is_used, known) {
        (true, None | Some("True")) => {
            Some(("False", "PodUsingPVC", "A pod is currently referencing this PVC"))
        }
        (false, None) => Some(NO_POD),
        (false, Some(status)) if status != "True" => Some(NO_POD),
        _ => None,
    }
}

const NO_POD: (&str, &str, &str) =
    ("True", "NoPodsUsingPVC", "No pods are currently referencing this PVC");

/// Which pods that have not ended refer to the claim. Whose claim it is that has the name of a pod's
/// own is believed the server only, too.
async fn users(
    ctx: &Context,
    client: &Client,
    claim: &PersistentVolumeClaim,
) -> Result<InTheWay, ClientError> {
    let key = crate::selection::key_of(&claim.metadata);
    let is_user = |pod: &Arc<PodView>| !pod.is_stopped() && !pod.has_ephemeral;
    if ctx.informers.pod_index.with_claim(&key).iter().any(is_user) {
        return Ok(InTheWay::Known);
    }
    let pods = client.api::<Pod>(&key.namespace).list(&ListOptions::all()).await?;
    let is_user = |pod: &&Pod| mounts(pod, claim) && !PodView::new(Pod::clone(pod)).is_stopped();
    Ok(InTheWay::of_pods(&ctx.informers, pods.iter().filter(is_user)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_changes_with_what_is_so() {
        let changed = |status: &str, is_used| {
            let known = PersistentVolumeClaimCondition {
                status: status.to_owned(),
                ..PersistentVolumeClaimCondition::default()
            };
            change(Some(&known), is_used).map(|(status, ..)| status)
        };
        assert_eq!(change(None, true).map(|(_, reason, _)| reason), Some("PodUsingPVC"));
        assert_eq!(change(None, false).map(|(_, reason, _)| reason), Some("NoPodsUsingPVC"));
        assert_eq!((changed("True", true), changed("True", false)), (Some("False"), None));
        assert_eq!((changed("False", true), changed("False", false)), (None, Some("True")));
        assert_eq!((changed("Unknown", true), changed("Unknown", false)), (None, Some("True")));
    }
}
