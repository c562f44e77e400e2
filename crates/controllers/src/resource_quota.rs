//! Keeps `status.used` of quotas what their namespaces really use.
//!
//! The server charges a quota before it writes an object; here what is deleted is given back and
//! what a failed write left charged is repaired, by counting everything anew. A count is written
//! only over the version of the quota that was read before counting, so it never undoes a charge.

mod count;
mod monitors;

use std::sync::Arc;
use std::time::Duration;

use client::{Change, Client, ClientError, ListOptions, Outcome, ResourcePath, WorkQueue};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use meta::{GroupResource, ObjectKey};
use serde_json::Value;

use self::count::Count;
use self::monitors::Monitors;
use crate::context::Context;
use crate::discovery::Discovered;

/// After this time everything is counted without a reason: upstream's default.
const RESYNC: Duration = Duration::from_secs(300);
/// When to look whether a resource that is not served has come.
const REDISCOVER: Duration = Duration::from_secs(30);

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("resourcequota-controller");
    let controller = Arc::new(Controller {
        queue: ctx.queue("resourcequota_primary"),
        monitors: Monitors::default(),
        client,
        ctx,
    });
    let quotas = &controller.ctx.informers.resource_quotas;
    quotas.synced().await;
    let queue = controller.queue.clone();
    quotas.on_change(move |key, change| match change {
        Change::Added(_) => queue.add(key.clone()),
        Change::Updated { old, new } if old.spec != new.spec || !is_hard_current(new) => {
            queue.add(key.clone());
        }
        Change::Updated { .. } | Change::Deleted(_) => {}
    });
    let (queue, shutdown) = (controller.queue.clone(), controller.ctx.shutdown.clone());
    queue
        .run(shutdown, move |key| {
            let controller = Arc::clone(&controller);
            async move {
                match controller.sync(&key).await {
                    Err(error) if error.is_conflict() => Ok(Outcome::Requeue),
                    Err(error) if error.is_not_found() => Ok(Outcome::Done),
                    result => result,
                }
            }
        })
        .await;
}

struct Controller {
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
    client: Client,
    monitors: Monitors,
}

impl Controller {
    async fn sync(self: &Arc<Self>, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(quota) = self.ctx.informers.resource_quotas.get(key) else {
            return Ok(Outcome::Done);
        };
        let (resources, is_complete) = monitors::counted(self, &quota).await?;
        let mut count = Count::new(&quota, self.ctx.clock.now());
        for resource in &resources {
            self.add(&mut count, &key.namespace, resource).await?;
        }
        if let Some((hard, used)) = count.change() {
            let mut changed = ResourceQuota::clone(&quota);
            changed.status = Some(ResourceQuotaStatus { hard: Some(hard), used: Some(used) });
            let api = self.client.api::<ResourceQuota>(&key.namespace);
            api.update_status(&changed).await?;
        }
        Ok(Outcome::RequeueAfter(if is_complete { RESYNC } else { REDISCOVER }))
    }

    /// Counts the objects of a resource, page by page, as the server has them now.
    async fn add(
        &self,
        count: &mut Count,
        namespace: &str,
        resource: &Discovered,
    ) -> Result<(), ClientError> {
        let (name, has_amounts) = (group_resource(resource), has_amounts(resource));
        count.begin(&name);
        let api = self.client.dynamic::<Value>(ResourcePath::new(resource.gvr()), namespace);
        let mut options = ListOptions::all();
        loop {
            let page = api.list_objects(&options).await?;
            for object in &page.items {
                let value = if has_amounts {
                    object.decode().map_err(ClientError::decode)?
                } else {
                    Value::Null
                };
                count.add(&name, &value);
            }
            if page.continue_token.is_empty() {
                return Ok(());
            }
            options.continue_token = page.continue_token;
        }
    }
}

/// Whether the status has the limits of the spec.
fn is_hard_current(quota: &ResourceQuota) -> bool {
    let wanted = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let hard = quota.status.as_ref().and_then(|status| status.hard.clone());
    hard.is_some_and(|hard| hard == wanted)
}

fn group_resource(resource: &Discovered) -> GroupResource {
    GroupResource { group: resource.group.clone(), resource: resource.resource.clone() }
}

/// Whether what an object uses depends on what is in it.
fn has_amounts(resource: &Discovered) -> bool {
    matches!(
        (resource.group.as_str(), resource.resource.as_str()),
        ("", "pods" | "services" | "persistentvolumeclaims")
            | ("resource.k8s.io", "resourceclaims")
    )
}
