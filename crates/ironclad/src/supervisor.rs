//! Runs the components of a process and ends them together.

use std::future::Future;
use std::time::Duration;

use stdx::ready::{Readiness, Ready};
use stdx::shutdown::Shutdown;
use tokio::task::JoinSet;

/// How long components may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// The components of this process. When one fails, all are told to end.
pub(crate) struct Supervisor {
    components: JoinSet<(&'static str, anyhow::Result<()>)>,
    shutdown: Shutdown,
}

impl Supervisor {
    /// A supervisor whose components end at `shutdown`.
    pub(crate) fn new(shutdown: Shutdown) -> Self {
        Self { components: JoinSet::new(), shutdown }
    }

    /// Starts a component; answers when it is ready.
    pub(crate) fn start<F, E>(
        &mut self,
        name: &'static str,
        component: impl FnOnce(Ready, Shutdown) -> F,
    ) -> Readiness
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<anyhow::Error>,
    {
        let (ready, readiness) = stdx::ready::signal();
        let work = component(ready, self.shutdown.clone());
        self.components.spawn(async move { (name, work.await.map_err(Into::into)) });
        readiness
    }

    /// Waits for the end: a signal to stop, or a component that fails. Then ends all others.
    ///
    /// # Errors
    /// The failure of the component that ended first, if it failed.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let outcome = tokio::select! {
            () = self.shutdown.begun() => Ok(()),
            ended = self.components.join_next() => match ended {
                None => Ok(()),
                Some(Ok((name, Ok(())))) => Err(anyhow::anyhow!("{name} ended unexpectedly")),
                Some(Ok((name, Err(error)))) => Err(error.context(format!("{name} failed"))),
                Some(Err(error)) => Err(anyhow::Error::new(error).context("a component panicked")),
            },
        };
        self.shutdown.begin();
        let drain = async { while self.components.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, drain).await.is_err() {
            tracing::warn!("components did not end in time");
        }
        outcome
    }
}

/// Begins `shutdown` at SIGINT or SIGTERM; a second one ends the process at once.
///
/// # Errors
/// When signals cannot be handled.
pub(crate) fn stop_on_signals(shutdown: &Shutdown) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = shutdown.clone();
    drop(stdx::task::spawn("signals", async move {
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first {
                shutdown.begin();
            } else {
                std::process::exit(130);
            }
        }
    }));
    Ok(())
}
