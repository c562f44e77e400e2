//! The loop that controllers with a queue of keys share.

use std::sync::Arc;

use client::{ClientError, Outcome, WorkQueue};
use meta::ObjectKey;
use stdx::shutdown::Shutdown;

/// Works off a queue until `shutdown`. A conflict is no failure: the cache is behind, and the event
/// that makes it current brings the key back.
pub(crate) async fn reconcile<Fut>(
    queue: &WorkQueue<ObjectKey>,
    shutdown: Shutdown,
    sync: impl Fn(ObjectKey) -> Fut + Send + Sync + 'static,
) where
    Fut: Future<Output = Result<Outcome, ClientError>> + Send + 'static,
{
    queue
        .run(shutdown, move |key| {
            let synced = sync(key);
            async move {
                match synced.await {
                    Err(error) if error.is_conflict() => Ok(Outcome::Requeue),
                    result => result,
                }
            }
        })
        .await;
}

/// The same for a queue of a controller that all its workers share.
pub(crate) async fn work<C, Fut>(
    controller: &Arc<C>,
    queue: &WorkQueue<ObjectKey>,
    shutdown: &Shutdown,
    sync: impl Fn(Arc<C>, ObjectKey) -> Fut + Send + Sync + 'static,
) where
    C: Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, ClientError>> + Send + 'static,
{
    let controller = Arc::clone(controller);
    reconcile(queue, shutdown.clone(), move |key| sync(Arc::clone(&controller), key)).await;
}
