//! Tells kubelets in an annotation how long they may trust what they know of Secrets and
//! ConfigMaps: the longer, the more nodes there are.
//!
//! Upstream: `pkg/controller/ttl/ttl_controller.go`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::volumes::annotation;
use client::{Change, Client, ClientError, Outcome, Patch};
use k8s_openapi::api::core::v1::Node;
use meta::ObjectKey;
use serde_json::json;

use crate::context::Context;
use crate::reconcile::reconcile;
use crate::selection::key_of;

const TTL: &str = "node.alpha.kubernetes.io/ttl";

/// From and up to how many nodes a time holds, and the seconds. They overlap, so that a few nodes
/// that come and go do not change it.
const STEPS: [(usize, usize, u32); 6] = [
    (0, 100, 0),
    (90, 500, 15),
    (450, 1000, 30),
    (900, 2000, 60),
    (1800, 10_000, 300),
    (9000, usize::MAX, 600),
];

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("ttl-controller");
    let queue = ctx.queue("ttlcontroller");
    let step = Arc::new(AtomicUsize::new(0));
    let informers = ctx.informers.clone();
    informers.nodes.synced().await;
    let (changed, all, current) = (queue.clone(), informers.clone(), Arc::clone(&step));
    informers.nodes.on_change(move |key, change| {
        let before = current.load(Ordering::Relaxed);
        let now = next(before, all.nodes.len());
        current.store(now, Ordering::Relaxed);
        if now != before {
            all.nodes.list().iter().for_each(|node| changed.add(key_of(&node.metadata)));
        }
        if !matches!(change, Change::Deleted(_)) {
            changed.add(key.clone());
        }
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, client, step) = (ctx.clone(), client.clone(), Arc::clone(&step));
        async move { sync(&ctx, &client, &key, STEPS[step.load(Ordering::Relaxed)].2).await }
    })
    .await;
}

async fn sync(
    ctx: &Context,
    client: &Client,
    key: &ObjectKey,
    seconds: u32,
) -> Result<Outcome, ClientError> {
    let Some(node) = ctx.informers.nodes.get(key) else { return Ok(Outcome::Done) };
    let wanted = seconds.to_string();
    if annotation(node.metadata.annotations.as_ref(), TTL) == Some(&*wanted) {
        return Ok(Outcome::Done);
    }
    let patch = json!({ "metadata": { "annotations": { TTL: wanted } } });
    match client.api::<Node>("").patch(&key.name, &Patch::Strategic(patch)).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

/// The step for so many nodes, beginning at the one that held before.
fn next(mut step: usize, nodes: usize) -> usize {
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_overlap() {
        let seconds = |before: usize, nodes: usize| STEPS[next(before, nodes)].2;
        assert_eq!(seconds(0, 1), 0);
        assert_eq!(seconds(0, 100), 0);
        assert_eq!(seconds(0, 101), 15);
        assert_eq!(seconds(1, 90), 15);
        assert_eq!(seconds(1, 89), 0);
        assert_eq!(seconds(0, 20_000), 600);
        assert_eq!(seconds(5, 0), 0);
    }
}
