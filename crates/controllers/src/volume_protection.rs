//! Keeps volumes and claims that are deleted as long as they are in use: a claim by a pod that has a
//! node, a volume by the claim it is bound to; `attributes_class` keeps the classes of their
//! attributes. `unused` says in a claim since when no pod refers to it.
//!
//! Upstream: `pkg/controller/volume/pvcprotection`, `pkg/controller/volume/pvprotection`.

mod attributes_class;
mod unused;

pub(crate) use attributes_class::run as run_attributes_classes;

use api::finalizers::{PV_PROTECTION, PVC_PROTECTION};
use client::{Change, Client, ClientError, ListOptions, Lister, Outcome, WorkQueue};
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::ObjectKey;

use crate::context::Context;
use crate::in_the_way::InTheWay;
use crate::reconcile::reconcile;
use crate::selection::key_of;

/// What is to be done about a finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Nothing.
    Settled,
    /// The finalizer is missing.
    Missing,
    /// The object goes as soon as nobody uses it.
    Ending,
}

impl Protection {
    pub(crate) fn of(metadata: &ObjectMeta, finalizer: &str) -> Self {
        let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
        let is_there = finalizers.iter().any(|name| name == finalizer);
        match (is_there, metadata.deletion_timestamp.is_some()) {
            (true, true) => Self::Ending,
            (false, false) => Self::Missing,
            _ => Self::Settled,
        }
    }
}

/// Looks at everything that is not as it should be.
pub(crate) fn follow<K>(
    protected: &Lister<K>,
    finalizer: &'static str,
    queue: &WorkQueue<ObjectKey>,
) where
    K: Metadata<Ty = ObjectMeta> + Send + Sync + 'static,
{
    let queue = queue.clone();
    protected.on_change(move |key, change| {
        let (Change::Added(found) | Change::Updated { new: found, .. }) = change else { return };
        if Protection::of(found.metadata(), finalizer) != Protection::Settled {
            queue.add(key.clone());
        }
    });
}

/// Protects claims until shutdown.
pub(crate) async fn run_claims(ctx: Context) {
    let client = ctx.client("pvc-protection-controller");
    let queue = ctx.queue("pvcprotection");
    let informers = ctx.informers.clone();
    informers.claims.synced().await;
    follow(&informers.claims, PVC_PROTECTION, &queue);
    if unused::is_told(&ctx) {
        informers.pods.synced().await;
        unused::follow(&informers, &queue);
    }
    // Who was in the way may be gone.
    informers.pods.on_change({
        let (queue, informers) = (queue.clone(), informers.clone());
        move |key, change| {
            let may_free = match change {
                Change::Added(_) => false,
                Change::Deleted(_) => true,
                // Claims of its own need not wait until it is gone.
                Change::Updated { new, .. } => !new.claims.is_empty() && new.deleted.is_some(),
            };
            if !may_free {
                return;
            }
            let claims = informers.claims.list_namespace(&key.namespace);
            for claim in claims.iter().filter(|claim| is_unsettled(claim)) {
                queue.add(key_of(&claim.metadata));
            }
        }
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, client) = (ctx.clone(), client.clone());
        async move { sync_claim(&ctx, &client, &key).await }
    })
    .await;
}

fn is_unsettled(claim: &PersistentVolumeClaim) -> bool {
    Protection::of(&claim.metadata, PVC_PROTECTION) != Protection::Settled
}

async fn sync_claim(
    ctx: &Context,
    client: &Client,
    key: &ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(known) = ctx.informers.claims.get(key) else { return Ok(Outcome::Done) };
    let mut used = InTheWay::Nothing;
    if unused::is_told(ctx) && known.metadata.deletion_timestamp.is_none() {
        used = unused::sync(ctx, client, &known).await?;
    }
    if !is_unsettled(&known) {
        return Ok(used.outcome());
    }
    let api = client.api::<PersistentVolumeClaim>(&key.namespace);
    let Some(mut claim) = api.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
    match Protection::of(&claim.metadata, PVC_PROTECTION) {
        Protection::Settled => return Ok(used.outcome()),
        Protection::Missing => add(&mut claim.metadata, PVC_PROTECTION),
        Protection::Ending => {
            let pods = client.api::<Pod>(&key.namespace).list(&ListOptions::all()).await?;
            let users = pods.iter().filter(|pod| uses(pod, &claim));
            let in_the_way = InTheWay::of_pods(&ctx.informers, users);
            if in_the_way != InTheWay::Nothing {
                return Ok(in_the_way.outcome());
            }
            remove(&mut claim.metadata, PVC_PROTECTION);
        }
    }
    written(api.update(&claim).await)?;
    Ok(used.outcome())
}

/// Protects volumes until shutdown.
pub(crate) async fn run_volumes(ctx: Context) {
    let client = ctx.client("pv-protection-controller");
    let queue = ctx.queue("pvprotection");
    ctx.informers.volumes.synced().await;
    follow(&ctx.informers.volumes, PV_PROTECTION, &queue);
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let client = client.clone();
        async move { sync_volume(&client, &key).await }
    })
    .await;
}

async fn sync_volume(client: &Client, key: &ObjectKey) -> Result<Outcome, ClientError> {
    let api = client.api::<PersistentVolume>("");
    let Some(mut volume) = api.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
    match Protection::of(&volume.metadata, PV_PROTECTION) {
        Protection::Settled => return Ok(Outcome::Done),
        Protection::Missing => add(&mut volume.metadata, PV_PROTECTION),
        // Its next event comes when it is released.
        Protection::Ending if is_bound(&volume) => return Ok(Outcome::Done),
        Protection::Ending => remove(&mut volume.metadata, PV_PROTECTION),
    }
    written(api.update(&volume).await)
}

pub(crate) fn written<K>(result: Result<K, ClientError>) -> Result<Outcome, ClientError> {
    match result {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if error.is_not_found() => Ok(Outcome::Done),
        Err(error) => Err(error),
    }
}

pub(crate) fn add(metadata: &mut ObjectMeta, finalizer: &str) {
    metadata.finalizers.get_or_insert_default().push(finalizer.to_owned());
}

pub(crate) fn remove(metadata: &mut ObjectMeta, finalizer: &str) {
    if let Some(finalizers) = &mut metadata.finalizers {
        finalizers.retain(|name| name != finalizer);
    }
}

/// Whether a pod that has a node mounts the claim. Kubelets start no pod whose claim is being
/// deleted, so that others need not be waited for.
///
/// A pod that has ended and only waits to be removed does not use claims of its own: it may be
/// these that it waits for. Upstream's `podUsesPVC` says so of ephemeral volumes only; a claim that
/// goes with a pod of a StatefulSet keeps a deletion in the foreground waiting as well.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|node| !node.is_empty())
        && !(is_its_own(pod, claim) && has_ended(pod))
        && mounts(pod, claim)
}

/// Whether a claim goes with a pod.
fn is_its_own(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref())
}

/// Whether a pod names the claim, or it was made for one of its volumes.
fn mounts(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.into_iter().any(|volume| {
        let named = volume.persistent_volume_claim.as_ref();
        named.is_some_and(|named| named.claim_name == name)
            || (volume.ephemeral.is_some()
                && format!("{pod_name}-{}", volume.name) == name
                && is_its_own(pod, claim))
    })
}

/// Whether the kubelet is done with a pod, or was not asked.
fn has_ended(pod: &Pod) -> bool {
    let metadata = &pod.metadata;
    metadata.deletion_timestamp.is_some() && metadata.deletion_grace_period_seconds == Some(0)
}

fn is_bound(volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Bound")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A pod with two volumes: a claim `c`, and an ephemeral one with the claim `p-e`.
    fn pod(node: &str, metadata: serde_json::Value) -> Pod {
        let mut pod = json!({ "metadata": metadata, "spec": { "nodeName": node, "containers": [],
            "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } },
                { "name": "e", "ephemeral": {} }] } });
        pod["metadata"]["name"] = "p".into();
        pod["metadata"]["uid"] = "u".into();
        serde_json::from_value(pod).unwrap()
    }

    fn claim(name: &str, owner: Option<&str>) -> PersistentVolumeClaim {
        let owner =
            owner.map(|uid| json!({ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid }));
        let owners: Vec<_> = owner.into_iter().collect();
        serde_json::from_value(json!({ "metadata": { "name": name, "ownerReferences": owners } }))
            .unwrap()
    }

    #[test]
    fn a_pod_without_a_node_uses_no_claim() {
        let on = |node: &str| pod(node, json!({}));
        assert!(uses(&on("n"), &claim("c", None)) && uses(&on("n"), &claim("p-e", Some("u"))));
        assert!(!uses(&on("n"), &claim("other", None)) && !uses(&on(""), &claim("c", None)));
    }

    /// Deleted in the foreground it waits for its claims, and they waited for it.
    #[test]
    fn a_pod_that_has_ended_does_not_use_its_own_claims() {
        let ending = |grace: i64| {
            pod(
                "n",
                json!({ "deletionTimestamp": "2026-01-01T00:00:00Z",
                "deletionGracePeriodSeconds": grace }),
            )
        };
        for own in [claim("p-e", Some("u")), claim("c", Some("u"))] {
            assert!(uses(&ending(30), &own));
            assert!(!uses(&ending(0), &own));
        }
        assert!(uses(&ending(0), &claim("c", Some("other"))), "others' stay until it is gone");
    }

    #[test]
    fn a_finalizer_is_added_and_taken_in_time() {
        let of = |metadata| {
            let metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
            Protection::of(&metadata, PVC_PROTECTION)
        };
        let gone = "2026-01-01T00:00:00Z";
        assert_eq!(of(json!({})), Protection::Missing);
        assert_eq!(of(json!({ "finalizers": [PVC_PROTECTION] })), Protection::Settled);
        let ending = json!({ "finalizers": [PVC_PROTECTION], "deletionTimestamp": gone });
        assert_eq!(of(ending), Protection::Ending);
        assert_eq!(of(json!({ "deletionTimestamp": gone })), Protection::Settled);
    }
}
