//! What components share that run in a process of their own.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use client::{Client, KubeConfig, Remote, RestMetrics};
use clock::{SharedClock, SystemClock};
use prometheus::{IntGaugeVec, Opts};
use stdx::shutdown::Shutdown;

use crate::command::election::Election;
use crate::{node_address, supervisor};

/// What a component of its own process works with.
pub(crate) struct Alone {
    /// The API, as the kubeconfig says.
    pub(crate) client: Client,
    /// Time.
    pub(crate) clock: SharedClock,
    /// Given when the process should end.
    pub(crate) shutdown: Shutdown,
    /// Where metrics are registered.
    pub(crate) metrics: telemetry::Registry,
    /// What counts requests to the API server.
    pub(crate) requests: RestMetrics,
}

impl Alone {
    /// Connects with a kubeconfig; signals end the component.
    pub(crate) fn new(kubeconfig: &Path, component: &str) -> anyhow::Result<Self> {
        let shutdown = Shutdown::new();
        supervisor::stop_on_signals(&shutdown)?;
        Self::with(kubeconfig, component, Arc::new(SystemClock), shutdown)
    }

    /// The same for one that listens to signals already.
    pub(crate) fn with(
        kubeconfig: &Path,
        component: &str,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let config = KubeConfig::load(kubeconfig)?;
        let agent = format!("{component}/v1.36.0");
        let remote = Remote::new(&config, &agent, Arc::clone(&clock))
            .with_context(|| format!("{} cannot be used", kubeconfig.display()))?;
        let metrics = telemetry::Registry::new();
        let requests = RestMetrics::new(&metrics)?;
        let client = Client::new(Arc::new(remote.measured(&requests)));
        Ok(Self { client, clock, shutdown, metrics, requests })
    }

    /// Runs `work` when this process is the leader, or at once when there is no election.
    pub(crate) async fn lead(
        &self,
        election: &Election,
        component: &str,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        // The process id tells two copies on one host apart.
        let identity = format!("{}_{}", node_address::host_name(), std::process::id());
        let Some(election) = election.of(component, identity)? else { return work.await };
        let opts = Opts::new("leader_election_master_status", "Whether this process leads.");
        let status = IntGaugeVec::new(opts, &["name"])?;
        self.metrics.register(Box::new(status.clone()))?;
        let status = status.with_label_values(&[&election.name]);
        let mut outcome = Ok(());
        let led = async {
            status.set(1);
            outcome = work.await;
        };
        client::lead(&election, &self.client, &self.clock, &self.shutdown, led).await;
        // The work may have been dropped with the lease.
        status.set(0);
        outcome
    }
}
