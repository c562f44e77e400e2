//! Keeps PodGroups that are deleted as long as pods of them run.
//!
//! Upstream: `pkg/controller/podgroupprotection`.

use api::Typed;
use client::{Change, Client, ClientError, Informer, InformerConfig, ListOptions, Lister, Outcome};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use meta::ObjectKey;

use crate::context::Context;
use crate::in_the_way::InTheWay;
use crate::reconcile::reconcile;
use crate::selection::key_of;
use crate::volume_protection::{Protection, add, follow, remove, written};

const FINALIZER: &str = "scheduling.k8s.io/podgroup-protection";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("podgroup-protection-controller");
    let queue = ctx.queue("podgroup-protection-controller");
    let all = InformerConfig::all::<PodGroup>();
    let groups = Informer::spawn(&ctx.manager, &ctx.clock, all, &ctx.shutdown, PodGroup::of);
    tokio::join!(groups.synced(), ctx.informers.pods.synced());
    follow(&groups, FINALIZER, &queue);
    // Who was in the way may be gone, or has ended.
    ctx.informers.pods.on_change({
        let (queue, groups) = (queue.clone(), groups.clone());
        move |key, change| {
            let has_ended = match &change {
                Change::Deleted(_) => true,
                Change::Updated { old, new } => !old.is_terminal() && new.is_terminal(),
                Change::Added(_) => false,
            };
            let groups = groups.list_namespace(&key.namespace);
            for group in groups.iter().filter(|group| has_ended && !is_settled(group)) {
                queue.add(key_of(&group.metadata));
            }
        }
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, client, groups) = (ctx.clone(), client.clone(), groups.clone());
        async move { sync(&ctx, &client, &groups, &key).await }
    })
    .await;
}

fn is_settled(group: &PodGroup) -> bool {
    Protection::of(&group.metadata, FINALIZER) == Protection::Settled
}

async fn sync(
    ctx: &Context,
    client: &Client,
    groups: &Lister<PodGroup>,
    key: &ObjectKey,
) -> Result<Outcome, ClientError> {
    if groups.get(key).is_none_or(|group| is_settled(&group)) {
        return Ok(Outcome::Done);
    }
    let api = client.api::<PodGroup>(&key.namespace);
    let Some(mut group) = api.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
    match Protection::of(&group.metadata, FINALIZER) {
        Protection::Settled => return Ok(Outcome::Done),
        Protection::Missing => add(&mut group.metadata, FINALIZER),
        Protection::Ending => {
            let pods = client.api::<Pod>(&key.namespace).list(&ListOptions::all()).await?;
            let holding = pods.iter().filter(|pod| holds(pod, &key.name));
            let in_the_way = InTheWay::of_pods(&ctx.informers, holding);
            if in_the_way != InTheWay::Nothing {
                return Ok(in_the_way.outcome());
            }
            remove(&mut group.metadata, FINALIZER);
        }
    }
    written(api.update(&group).await)
}

/// Whether a pod is of the group and has not ended.
fn holds(pod: &Pod, group: &str) -> bool {
    let of = pod.spec.as_ref().and_then(|spec| spec.scheduling_group.as_ref());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    of.is_some_and(|of| of.pod_group_name.as_deref() == Some(group))
        && !matches!(phase, Some("Succeeded" | "Failed"))
}
