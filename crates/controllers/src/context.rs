//! What every controller is started with.

use std::sync::Arc;

use client::{Client, EventRecorder, WorkQueue, WorkQueueConfig};
use clock::SharedClock;
use meta::ObjectKey;
use prometheus::IntCounterVec;
use prometheus::core::Collector;
use stdx::shutdown::Shutdown;

use crate::cluster::Informers;
use crate::metrics::Metrics;
use crate::queue_metrics::QueueMetrics;
use crate::written::Writes;
use crate::{ClientFor, Config, HostDirectories, SignToken};

/// Keys that a controller handles at once: upstream's usual `--concurrent-*-syncs`.
const WORKERS: usize = 5;

/// The same of those that wait for a pod to end: upstream has as many as there are objects.
const LONG_WORKERS: usize = 30;

/// Cloned into every controller.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    /// The API as the manager of all of them: for those that upstream gives no account.
    pub(crate) manager: Client,
    pub(crate) client_for: ClientFor,
    pub(crate) sign_token: Option<SignToken>,
    pub(crate) directories: Arc<dyn HostDirectories>,
    pub(crate) clock: SharedClock,
    pub(crate) informers: Arc<Informers>,
    pub(crate) queues: QueueMetrics,
    pub(crate) counts: Metrics,
    pub(crate) metrics: telemetry::Registry,
    pub(crate) shutdown: Shutdown,
}

impl Context {
    /// The API as the controller's service account.
    pub(crate) fn client(&self, service_account: &str) -> Client {
        (self.client_for)(service_account)
    }

    /// A recorder of events that name `component` as their source.
    pub(crate) fn recorder(&self, client: &Client, component: &str) -> EventRecorder {
        let clock = Arc::clone(&self.clock);
        EventRecorder::spawn(client.clone(), clock, component, "", &self.shutdown)
    }

    /// Has something counted whenever somebody asks. Without it all else works.
    pub(crate) fn measure<C: Collector + 'static>(&self, collector: Result<C, prometheus::Error>) {
        let registered = collector.and_then(|one| self.metrics.register(Box::new(one)));
        if let Err(error) = registered {
            tracing::warn!(%error, "metrics cannot be registered");
        }
    }

    /// What a controller remembers of its writes, where a gate is open.
    pub(crate) fn writes(&self, gate: &str, skips: &IntCounterVec) -> Arc<Writes> {
        let is_on = self.config.features.is_enabled(gate);
        Arc::new(Writes::new(is_on, Arc::clone(&self.clock), skips.clone()))
    }

    /// A queue of objects.
    pub(crate) fn queue(&self, name: &'static str) -> WorkQueue<ObjectKey> {
        self.queues.queue(WorkQueueConfig::new(name, WORKERS), Arc::clone(&self.clock))
    }

    /// A queue of objects of which each may take minutes.
    pub(crate) fn long_queue(&self, name: &'static str) -> WorkQueue<ObjectKey> {
        self.queues.queue(WorkQueueConfig::new(name, LONG_WORKERS), Arc::clone(&self.clock))
    }
}
