//! Tells who has to grow a volume whose claim asks for more than it has.
//!
//! Upstream grows volumes of plugins that are part of it, of which there are none any more that
//! could; all others are grown by the resizers of their drivers, which follow the claims.
//!
//! Upstream: `pkg/controller/volume/expand/expand_controller.go`.

use api::volumes;
use client::{Change, ClientError, EventType, Outcome, Regarding};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use meta::{ObjectKey, Quantity};

use crate::context::Context;
use crate::reconcile::reconcile;

const WAITING: &str = "waiting for an external controller to expand this PVC";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("expand-controller");
    let recorder = ctx.recorder(&client, "volume_expand");
    let queue = ctx.queue("volume_expand");
    let informers = ctx.informers.clone();
    tokio::join!(informers.claims.synced(), informers.volumes.synced());
    let changed = queue.clone();
    informers.claims.on_change(move |key, change| {
        // A claim that is found grown already was told of before.
        let Change::Updated { old, new } = change else { return };
        if volumes::request(new) > volumes::request(old) {
            changed.add(key.clone());
        }
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, recorder) = (ctx.clone(), recorder.clone());
        async move {
            let informers = &ctx.informers;
            let Some(claim) = informers.claims.get(&key) else { return Ok(Outcome::Done) };
            let volume = ObjectKey::new("", volumes::volume_name(&claim));
            if informers.volumes.get(&volume).is_some() && is_short(&claim) {
                let regarding = Regarding::object(&*claim);
                recorder.record(&regarding, EventType::Normal, "ExternalExpanding", WAITING);
            }
            Ok::<_, ClientError>(Outcome::Done)
        }
    })
    .await;
}

/// Whether a bound claim asks for more than it has.
fn is_short(claim: &PersistentVolumeClaim) -> bool {
    let status = claim.status.as_ref();
    let capacity = status.and_then(|status| status.capacity.as_ref()?.get("storage"));
    let capacity = capacity.and_then(|size| size.0.parse::<Quantity>().ok()).unwrap_or_default();
    let is_bound = status.and_then(|status| status.phase.as_deref()) == Some("Bound");
    is_bound && claim.metadata.deletion_timestamp.is_none() && volumes::request(claim) > capacity
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_bound_claim_that_asks_for_more_is_short() {
        let short = |asked: &str, has: &str, phase: &str| {
            let claim = json!({ "metadata": {},
                "spec": { "resources": { "requests": { "storage": asked } } },
                "status": { "phase": phase, "capacity": { "storage": has } } });
            is_short(&serde_json::from_value(claim).unwrap())
        };
        assert!(short("2Gi", "1Gi", "Bound"));
        assert!(!short("1Gi", "2Gi", "Bound"));
        assert!(!short("2Gi", "1Gi", "Pending"));
    }
}
