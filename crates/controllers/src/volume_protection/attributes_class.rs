//! Keeps classes of attributes that are deleted as long as a claim or volume has one, or is on its
//! way to it.
//!
//! Upstream: `pkg/controller/volume/vacprotection`.

use api::finalizers::VAC_PROTECTION;
use client::{Change, Client, ClientError, ListOptions, Outcome, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use meta::ObjectKey;

use super::{Protection, add, follow, remove, written};
use crate::context::Context;
use crate::in_the_way::InTheWay;
use crate::reconcile::reconcile;

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("volumeattributesclass-protection-controller");
    let queue = ctx.queue("vacprotection");
    let informers = ctx.informers.clone();
    tokio::join!(
        informers.attributes_classes.synced(),
        informers.claims.synced(),
        informers.volumes.synced()
    );
    follow(&informers.attributes_classes, VAC_PROTECTION, &queue);
    let left = queue.clone();
    informers.claims.on_change(move |_, change| match change {
        Change::Updated { old, new } => requeue(&left, &of_claim(old), &of_claim(new)),
        Change::Deleted(claim) => requeue(&left, &of_claim(claim), &[]),
        Change::Added(_) => {}
    });
    let left = queue.clone();
    informers.volumes.on_change(move |_, change| match change {
        Change::Updated { old, new } => requeue(&left, &of_volume(old), &of_volume(new)),
        Change::Deleted(volume) => requeue(&left, &of_volume(volume), &[]),
        Change::Added(_) => {}
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, client) = (ctx.clone(), client.clone());
        async move { sync(&ctx, &client, &key).await }
    })
    .await;
}

/// Looks at the classes that somebody no longer has.
fn requeue(queue: &WorkQueue<ObjectKey>, before: &[&str], now: &[&str]) {
    for class in before.iter().filter(|class| !now.contains(class)) {
        queue.add(ObjectKey::cluster(*class));
    }
}

async fn sync(ctx: &Context, client: &Client, key: &ObjectKey) -> Result<Outcome, ClientError> {
    let known = ctx.informers.attributes_classes.get(key);
    let state = |class: &VolumeAttributesClass| Protection::of(&class.metadata, VAC_PROTECTION);
    if known.is_none_or(|class| state(&class) == Protection::Settled) {
        return Ok(Outcome::Done);
    }
    let api = client.api::<VolumeAttributesClass>("");
    let Some(mut class) = api.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
    match state(&class) {
        Protection::Settled => return Ok(Outcome::Done),
        Protection::Missing => add(&mut class.metadata, VAC_PROTECTION),
        Protection::Ending => match users(ctx, client, &key.name).await? {
            InTheWay::Nothing => remove(&mut class.metadata, VAC_PROTECTION),
            users => return Ok(users.outcome()),
        },
    }
    written(api.update(&class).await)
}

/// Who has the class.
async fn users(ctx: &Context, client: &Client, class: &str) -> Result<InTheWay, ClientError> {
    let informers = &ctx.informers;
    if informers.claims.list().iter().any(|claim| of_claim(claim).contains(&class))
        || informers.volumes.list().iter().any(|volume| of_volume(volume).contains(&class))
    {
        return Ok(InTheWay::Known);
    }
    let claims = client.api::<PersistentVolumeClaim>("").list(&ListOptions::all()).await?;
    if claims.iter().any(|claim| of_claim(claim).contains(&class)) {
        return Ok(InTheWay::Unseen);
    }
    let volumes = client.api::<PersistentVolume>("").list(&ListOptions::all()).await?;
    let is_used = volumes.iter().any(|volume| of_volume(volume).contains(&class));
    Ok(if is_used { InTheWay::Unseen } else { InTheWay::Nothing })
}

/// The classes that a claim wants, has, or is on its way to.
fn of_claim(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let wants = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let has = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let target = status
        .and_then(|status| status.modify_volume_status.as_ref())
        .and_then(|modify| modify.target_volume_attributes_class_name.as_deref());
    [wants, has, target].into_iter().flatten().filter(|class| !class.is_empty()).collect()
}

fn of_volume(volume: &PersistentVolume) -> Vec<&str> {
    let has = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    has.into_iter().filter(|class| !class.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_has_the_class_it_wants_the_one_it_has_and_the_one_it_goes_to() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "spec": { "volumeAttributesClassName": "gold" },
            "status": { "currentVolumeAttributesClassName": "silver",
                "modifyVolumeStatus": { "status": "InProgress",
                    "targetVolumeAttributesClassName": "bronze" } } }))
        .unwrap();
        assert_eq!(of_claim(&claim), ["gold", "silver", "bronze"]);
        assert!(of_claim(&PersistentVolumeClaim::default()).is_empty());
    }
}
