//! The loop that controllers with a queue of keys share.

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
