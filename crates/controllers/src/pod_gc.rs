//! Removes pods that nobody else will: those of nodes that are gone, those that were deleted before
//! they had a node, and the oldest of too many that have ended.

use std::sync::Arc;
use std::time::Duration;

use client::{Change, Client, ClientError, DeleteOptions, Outcome, Patch};
use k8s_openapi::api::core::v1::{Node, Pod};
use meta::ObjectKey;
use serde_json::json;

use crate::context::Context;
use crate::pod_view::PodView;
use crate::reconcile::reconcile;

/// How long a node is believed to come back: upstream `quarantineTime`.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Pods that have ended and may stay: upstream `--terminated-pod-gc-threshold`.
const ENDED_MAX: usize = 12_500;
/// How often the ended ones are counted: upstream `gcCheckPeriod`.
const COUNT_EVERY: Duration = Duration::from_secs(20);

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("pod-garbage-collector");
    let queue = ctx.queue("pod-garbage-collector-controller");
    let informers = &ctx.informers;
    tokio::join!(informers.nodes.synced(), informers.pods.synced());
    let (this, pods) = (ctx.clone(), queue.clone());
    informers.pods.on_change(move |key, change| {
        let (Change::Added(pod) | Change::Updated { new: pod, .. }) = change else { return };
        if pod.node.is_empty() && pod.deleted.is_some() {
            pods.add(key.clone());
        } else if !pod.node.is_empty() && !has_node(&this, pod) {
            pods.add_after(key.clone(), QUARANTINE);
        }
    });
    let (this, nodes) = (ctx.clone(), queue.clone());
    informers.nodes.on_change(move |key, change| {
        if matches!(change, Change::Deleted(_)) {
            for pod in this.informers.pod_index.on_node(&key.name) {
                nodes.add_after(pod.key.clone(), QUARANTINE);
            }
        }
    });
    let (shutdown, counted) = (ctx.shutdown.clone(), (ctx.clone(), client.clone()));
    let work = reconcile(&queue, shutdown, move |key| {
        let (ctx, client) = (ctx.clone(), client.clone());
        async move { sync(&ctx, &client, &key).await }
    });
    tokio::select! {
        () = work => {}
        () = count_ended(&counted.0, &counted.1) => {}
    }
}

fn has_node(ctx: &Context, pod: &PodView) -> bool {
    ctx.informers.nodes.get(&ObjectKey::cluster(&pod.node)).is_some()
}

async fn sync(ctx: &Context, client: &Client, key: &ObjectKey) -> Result<Outcome, ClientError> {
    let Some(pod) = ctx.informers.pods.get(key) else { return Ok(Outcome::Done) };
    if pod.node.is_empty() {
        if pod.deleted.is_some() {
            remove(ctx, client, &pod, None).await?;
        }
        return Ok(Outcome::Done);
    }
    if has_node(ctx, &pod) || client.api::<Node>("").get_opt(&pod.node).await?.is_some() {
        return Ok(Outcome::Done);
    }
    remove(ctx, client, &pod, Some("PodGC: node no longer exists")).await?;
    Ok(Outcome::Done)
}

/// Nobody is there who could end the pod in order, so it goes at once.
async fn remove(
    ctx: &Context,
    client: &Client,
    pod: &PodView,
    disruption: Option<&str>,
) -> Result<(), ClientError> {
    let api = client.api::<Pod>(&pod.key.namespace);
    if !pod.is_terminal() {
        let mut status = json!({ "phase": "Failed" });
        if let Some(message) = disruption {
            status["conditions"] = json!([{
                "type": api::pod::DISRUPTION_TARGET,
                "status": "True",
                "reason": "DeletionByPodGC",
                "message": message,
                "lastTransitionTime": meta::time::rfc3339(ctx.clock.now()),
            }]);
        }
        let patch = Patch::Strategic(json!({ "metadata": { "uid": pod.uid }, "status": status }));
        match api.patch_subresource(&pod.key.name, "status", &patch).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(()),
            // The server gives up a patch too when many write at once.
            Err(error) => return Err(error),
        }
    }
    let options = DeleteOptions {
        grace_period_secs: Some(0),
        uid: Some(pod.uid.clone()),
        ..DeleteOptions::default()
    };
    match api.delete(&pod.key.name, &options).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn count_ended(ctx: &Context, client: &Client) {
    loop {
        ctx.clock.sleep(COUNT_EVERY).await;
        for pod in superfluous(ctx.informers.pods.list(), ENDED_MAX) {
            if let Err(error) = remove(ctx, client, &pod, None).await {
                tracing::warn!(pod = %pod.key, %error, "ended pod could not be removed");
            }
        }
    }
}

/// The oldest of the pods that have ended, beyond `max`.
fn superfluous(mut pods: Vec<Arc<PodView>>, max: usize) -> Vec<Arc<PodView>> {
    pods.retain(|pod| pod.is_terminal() && pod.deleted.is_none());
    let excess = pods.len().saturating_sub(max);
    if excess > 0 {
        pods.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    }
    pods.truncate(excess);
    pods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ended_pods_go() {
        let pod = |name: &str, phase: &str, created: &str| {
            let pod = json!({
                "metadata": { "name": name, "creationTimestamp": created },
                "status": { "phase": phase },
            });
            Arc::new(PodView::new(serde_json::from_value(pod).unwrap()))
        };
        let pods = vec![
            pod("new", "Failed", "2026-01-03T00:00:00Z"),
            pod("old", "Succeeded", "2026-01-01T00:00:00Z"),
            pod("running", "Running", "2026-01-01T00:00:00Z"),
        ];
        let gone: Vec<_> = superfluous(pods, 1).iter().map(|pod| pod.key.name.clone()).collect();
        assert_eq!(gone, ["old"]);
    }
}
