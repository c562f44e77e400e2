//! The scheduler: finds a node for every pod that has none.
//!
//! Start reading at [`decision::decide`], the pure core `(snapshot, pod) → decision`; then
//! [`framework`], the points at which [`plugins`] take part, [`queue`], which pod is tried when,
//! and [`run`], which follows the API and carries decisions out.
//!
//! Invariants: a pod is tried by one decision at a time; a pod that a decision placed takes room
//! in the next decision, before the server has confirmed it; every watch event that may help a
//! rejected pod has it tried again, without polling.
//!
//! It does not run several profiles, extenders or gangs, and does not allocate devices.
//!
//! Tested by tables over the core and the plugins, and by component tests of the driver.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod decision;
pub mod framework;
pub mod metrics;
pub mod node_info;
pub mod node_labels;
pub mod plugins;
pub mod pod_info;
pub mod queue;
pub mod resources;
mod scheduler;
pub mod snapshot;
mod verdicts;
mod volume_binder;
pub mod volumes;
mod watches;

use std::sync::Arc;

use client::{Client, EventRecorder};
use clock::SharedClock;
use futures::future::BoxFuture;
use stdx::ready::Ready;
use stdx::shutdown::Shutdown;

use crate::metrics::Metrics;
use crate::scheduler::Scheduler;

/// What the operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are scheduled; upstream's is `default-scheduler`.
    pub scheduler_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler".to_owned() }
    }
}

/// What the scheduler works with.
pub struct Deps {
    /// The API as `system:kube-scheduler`.
    pub client: Client,
    /// Time.
    pub clock: SharedClock,
    /// Where metrics are registered.
    pub metrics: telemetry::Registry,
}

/// The scheduler could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its metrics are registered already.
    #[error("metrics cannot be registered")]
    Metrics(#[source] prometheus::Error),
}

/// Schedules until `shutdown`; `ready` is given when the first lists are in.
///
/// # Errors
/// When it cannot start.
pub fn run(
    config: Config,
    deps: Deps,
    ready: Ready,
    shutdown: Shutdown,
) -> BoxFuture<'static, Result<(), RunError>> {
    // Boxed here: otherwise the binary would compile the whole component once more.
    Box::pin(work(config, deps, ready, shutdown))
}

async fn work(
    config: Config,
    deps: Deps,
    ready: Ready,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let metrics = Metrics::new(&deps.metrics).map_err(RunError::Metrics)?;
    let Deps { client, clock, .. } = deps;
    let recorder = EventRecorder::spawn(
        client.clone(),
        Arc::clone(&clock),
        &config.scheduler_name,
        "",
        &shutdown,
    );
    let scheduler = Scheduler::new(config.scheduler_name, client, clock, recorder, metrics);
    tokio::select! {
        () = watches::follow(&scheduler, &shutdown) => {}
        () = shutdown.begun() => return Ok(()),
    }
    ready.set();
    scheduler.run(&shutdown).await;
    Ok(())
}
