//! Named tasks whose panics are caught where they happen.

use std::future::Future;
use std::pin::Pin;

use futures::FutureExt;
use tokio::task::JoinHandle;

/// Starts a task. A panic in it is logged with the task's name and ends this task alone.
///
/// The handle yields `None` when the task panicked. Dropping the handle detaches the task.
#[expect(clippy::disallowed_methods, reason = "this is the wrapper that the ban points to")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    // Boxed, so that the runtime's task machinery is compiled once per output and not per task.
    tokio::spawn(guarded(name, Box::pin(future)))
}

/// Like [`spawn`], in a runtime that need not be the current one.
pub fn spawn_on<F>(
    runtime: &tokio::runtime::Handle,
    name: &'static str,
    future: F,
) -> JoinHandle<Option<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    runtime.spawn(guarded(name, Box::pin(future)))
}

async fn guarded<T>(
    name: &'static str,
    future: Pin<Box<dyn Future<Output = T> + Send>>,
) -> Option<T> {
    match std::panic::AssertUnwindSafe(future).catch_unwind().await {
        Ok(output) => Some(output),
        Err(panic) => {
            tracing::error!(task = name, panic = panic_text(&*panic), "task panicked");
            None
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic without a message")
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_panic_ends_its_own_task_only() {
        let failed = super::spawn("failing", async { panic!("as expected") });
        let fine = super::spawn("fine", async { 7 });
        assert!(failed.await.unwrap().is_none());
        assert_eq!(fine.await.unwrap(), Some(7));
    }
}
