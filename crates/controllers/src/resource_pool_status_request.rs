//! Answers ResourcePoolStatusRequests: how many devices the pools of a driver have, and how many of
//! them are given away. A request is answered once, and goes after a while.
//!
//! Upstream: `pkg/controller/resourcepoolstatusrequest`.

mod answer;

use std::sync::Arc;
use std::time::Duration;

use api::Typed;
use client::{
    Change, Client, ClientError, DeleteOptions, Informer, InformerConfig, Lister, Outcome,
    WorkQueue,
};
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::api::resource::v1alpha3::ResourcePoolStatusRequest;
use meta::ObjectKey;

use self::answer::{PoolSlice, answer, is_whole, left};
use crate::context::Context;
use crate::reconcile::work;
use crate::selection::key_of;

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let all = InformerConfig::all::<ResourcePoolStatusRequest>();
    let requests = Informer::spawn(&ctx.manager, &ctx.clock, all, &ctx.shutdown, |object| {
        ResourcePoolStatusRequest::of(object)
    });
    let all = InformerConfig::all::<ResourceSlice>();
    let slices = Informer::spawn(&ctx.manager, &ctx.clock, all, &ctx.shutdown, |object| {
        Ok(PoolSlice::of(&ResourceSlice::of(object)?))
    });
    let controller = Arc::new(Controller {
        client: ctx.client("resourcepoolstatusrequest-controller"),
        // Upstream's has no name.
        answers: ctx.queue("resourcepoolstatusrequest"),
        ends: ctx.queue("resourcepoolstatusrequest_expired"),
        requests,
        slices,
        ctx,
    });
    tokio::join!(
        controller.requests.synced(),
        controller.slices.synced(),
        controller.ctx.informers.device_claims.synced()
    );
    let this = Arc::clone(&controller);
    controller.requests.on_change(move |key, change| {
        if !matches!(change, Change::Deleted(_)) {
            this.answers.add(key.clone());
            this.ends.add(key.clone());
        }
    });
    let this = Arc::clone(&controller);
    controller.slices.on_change(move |_, change| {
        let (Change::Added(slice) | Change::Updated { new: slice, .. } | Change::Deleted(slice)) =
            change;
        for request in this.requests.list() {
            if request.status.is_none() && request.spec.driver == slice.driver {
                this.answers.add(key_of(&request.metadata));
            }
        }
    });
    let shutdown = controller.ctx.shutdown.clone();
    tokio::join!(
        work(&controller, &controller.answers, &shutdown, |this, key| async move {
            this.answer(&key).await
        }),
        work(
            &controller,
            &controller.ends,
            &shutdown,
            |this, key| async move { this.end(&key).await }
        ),
    );
}

struct Controller {
    ctx: Context,
    client: Client,
    answers: WorkQueue<ObjectKey>,
    /// Requests that go when their time is over.
    ends: WorkQueue<ObjectKey>,
    requests: Lister<ResourcePoolStatusRequest>,
    slices: Lister<PoolSlice>,
}

impl Controller {
    async fn answer(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let request = self.requests.get(key).filter(|request| request.status.is_none());
        let Some(request) = request else { return Ok(Outcome::Done) };
        let counts = &self.ctx.counts.pool_requests;
        let driver = [request.spec.driver.as_str()];
        let begun = self.ctx.clock.monotonic();
        let claims = self.ctx.informers.device_claims.list();
        let status = answer(&request.spec, &self.slices.list(), &claims, self.ctx.clock.now());
        if !is_whole(&status) {
            // The rest brings the request back. Upstream tries five times and no more.
            return Ok(Outcome::Done);
        }
        let mut answered = ResourcePoolStatusRequest::clone(&request);
        answered.status = Some(status);
        let api = self.client.api::<ResourcePoolStatusRequest>("");
        let result = api.update_status(&answered).await;
        let took = self.ctx.clock.monotonic().duration_since(begun);
        counts.seconds.with_label_values(&driver).observe(took.as_secs_f64());
        counts.processed.with_label_values(&driver).inc();
        match result {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            Err(error) => {
                counts.errors.with_label_values(&driver).inc();
                Err(error)
            }
        }
    }

    async fn end(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(request) = self.requests.get(key) else { return Ok(Outcome::Done) };
        let left = Duration::try_from(left(&request, self.ctx.clock.now())).unwrap_or_default();
        if !left.is_zero() {
            return Ok(Outcome::RequeueAfter(left));
        }
        let uid = request.metadata.uid.clone();
        let options = DeleteOptions { uid, ..DeleteOptions::default() };
        let api = self.client.api::<ResourcePoolStatusRequest>("");
        match api.delete(&key.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Outcome::Done),
        }
    }
}
