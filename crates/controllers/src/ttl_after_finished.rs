//! Deletes Jobs some time after they have ended.

use std::time::Duration;

use client::{Change, Client, ClientError, DeleteOptions, Outcome, Propagation};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use meta::ObjectKey;

use crate::context::Context;

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("ttl-after-finished-controller");
    let queue = ctx.queue("ttl_jobs_to_delete");
    ctx.informers.jobs.synced().await;
    let changed = queue.clone();
    ctx.informers.jobs.on_change(move |key, change| {
        let (Change::Added(job) | Change::Updated { new: job, .. }) = change else { return };
        if expiry(job).is_some() {
            changed.add(key.clone());
        }
    });
    let shutdown = ctx.shutdown.clone();
    queue
        .run(shutdown, move |key| {
            let (ctx, client) = (ctx.clone(), client.clone());
            async move { sync(&ctx, &client, &key).await }
        })
        .await;
}

async fn sync(ctx: &Context, client: &Client, key: &ObjectKey) -> Result<Outcome, ClientError> {
    let Some(job) = ctx.informers.jobs.get(key) else { return Ok(Outcome::Done) };
    let Some(at) = expiry(&job) else { return Ok(Outcome::Done) };
    let left = at.duration_since(ctx.clock.now());
    if left.is_positive() {
        return Ok(Outcome::RequeueAfter(Duration::try_from(left).unwrap_or_default()));
    }
    // The time to live may have been changed a moment ago.
    let api = client.api::<Job>(&key.namespace);
    let Some(fresh) = api.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
    if expiry(&fresh).is_none_or(|at| at > ctx.clock.now()) {
        return Ok(Outcome::Requeue);
    }
    let options = DeleteOptions {
        uid: fresh.metadata.uid,
        propagation: Some(Propagation::Foreground),
        ..DeleteOptions::default()
    };
    match api.delete(&key.name, &options).await {
        Ok(()) => {
            let late = ctx.clock.now().duration_since(at).as_secs_f64();
            ctx.counts.job_ttl.observe(late.max(0.0));
            Ok(Outcome::Done)
        }
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(Outcome::Done),
        Err(error) => Err(error),
    }
}

/// When the Job has to go, if it has ended and does not stay.
fn expiry(job: &Job) -> Option<Timestamp> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let ended = conditions.iter().find(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    })?;
    let since = ended.last_transition_time.as_ref()?.0;
    since.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_jobs_that_have_ended_expire() {
        let job = |kind: &str| -> Job {
            serde_json::from_value(json!({
                "spec": { "ttlSecondsAfterFinished": 60, "template": {} },
                "status": { "conditions": [{ "type": kind, "status": "True",
                    "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
            }))
            .unwrap()
        };
        assert_eq!(expiry(&job("Failed")).unwrap().to_string(), "2026-01-01T00:01:00Z");
        assert_eq!(expiry(&job("Suspended")), None);
    }
}
