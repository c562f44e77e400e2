//! What components share that run in a process of their own.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use client::{Client, KubeConfig, Remote, RestMetrics};
use clock::{SharedClock, SystemClock};
use features::Features;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};
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
    /// Whether this process leads, by the Lease.
    leads: IntGaugeVec,
    /// Renewals before which the Lease had to be read.
    slow_renewals: IntCounterVec,
    /// The API for the Lease alone, over connections on which nothing else is waited for.
    election: Client,
}

impl Alone {
    /// Connects with a kubeconfig; signals end the component. Its gates are told in its metrics, if
    /// it has any.
    pub(crate) fn new(
        kubeconfig: &Path,
        component: &str,
        features: Option<&Features>,
    ) -> anyhow::Result<Self> {
        let shutdown = Shutdown::new();
        supervisor::stop_on_signals(&shutdown)?;
        Self::with(kubeconfig, component, features, Arc::new(SystemClock), shutdown)
    }

    /// The same for one that listens to signals already.
    pub(crate) fn with(
        kubeconfig: &Path,
        component: &str,
        features: Option<&Features>,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let config = KubeConfig::load(kubeconfig)?;
        let agent = format!("{component}/{}", telemetry::VERSION);
        let remote = Remote::new(&config, &agent, Arc::clone(&clock))
            .with_context(|| format!("{} cannot be used", kubeconfig.display()))?;
        let metrics = telemetry::Registry::new();
        let Registered { requests, leads, slow_renewals } = register(&metrics, features)?;
        let client = Client::new(Arc::new(remote.measured(&requests)));
        let remote = Remote::new(&config, &format!("{agent}/leader-election"), Arc::clone(&clock))?;
        let election = Client::new(Arc::new(remote.measured(&requests)));
        Ok(Self { client, clock, shutdown, metrics, requests, leads, slow_renewals, election })
    }

    /// Runs `work` when this process is the leader, or at once when there is no election. That the
    /// lease was lost is an error.
    pub(crate) async fn lead(
        &self,
        election: &Election,
        component: &str,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        // The process id tells two copies on one host apart.
        let identity = format!("{}_{}", node_address::host_name(), std::process::id());
        let Some(mut election) = election.of(component, identity)? else { return work.await };
        let name = [election.name.as_str()];
        election.slow_renewals = Some(self.slow_renewals.with_label_values(&name));
        let status = self.leads.with_label_values(&name);
        let mut outcome = Ok(());
        let led = async {
            status.set(1);
            outcome = work.await;
        };
        let led = client::lead(&election, &self.election, &self.clock, &self.shutdown, led).await;
        // The work may have been dropped with the lease.
        status.set(0);
        led?;
        outcome
    }
}

/// Metrics that are still to be fed.
struct Registered {
    requests: RestMetrics,
    leads: IntGaugeVec,
    slow_renewals: IntCounterVec,
}

/// Registers what every component has.
fn register(
    metrics: &telemetry::Registry,
    features: Option<&Features>,
) -> Result<Registered, prometheus::Error> {
    let gates = features.into_iter().flat_map(Features::all);
    let gates = gates.map(|(gate, is_open)| (gate.name, gate.stage.as_str(), is_open));
    telemetry::describe(metrics, gates)?;
    let opts = Opts::new("leader_election_master_status", "Whether this process leads.");
    let leads = IntGaugeVec::new(opts, &["name"])?;
    metrics.register(Box::new(leads.clone()))?;
    let text = "Renewals of a lease by its holder for which it had to be read first.";
    let slow_renewals =
        IntCounterVec::new(Opts::new("leader_election_slowpath_total", text), &["name"])?;
    metrics.register(Box::new(slow_renewals.clone()))?;
    Ok(Registered { requests: RestMetrics::new(metrics)?, leads, slow_renewals })
}

#[cfg(test)]
mod tests {
    use prometheus::IntGauge;

    use super::*;

    /// The metrics of 1.36 that all of upstream's components have, but for those of Go's runtime.
    const UPSTREAMS: &str = include_str!("alone/metrics.txt");

    /// Those that are not here, by how they begin, and why.
    const ABSENT: &[(&str, &str)] = &[
        ("disabled_metrics_total", "no flag disables metrics"),
        ("hidden_metrics_total", "no metric is hidden"),
        ("registered_metrics_total", "metrics are told whatever their stability is"),
        ("informer_", "an event is in the cache when it has been read: nothing waits in between"),
        ("rest_client_dns_resolution_", "the machine resolves names, as a connection is made"),
        ("rest_client_exec_plugin_", "no program is run for credentials"),
        ("rest_client_rate_limiter_", "a client waits for nothing before it asks"),
        ("rest_client_request_retries_total", "who has asked decides whether to ask again"),
        ("rest_client_transport_", "a client has one transport as long as it lives"),
    ];

    /// Whether something of this name is registered: nothing else can be then.
    fn is_registered(registry: &telemetry::Registry, name: &str) -> bool {
        let probe = IntGauge::new(name, "A probe.").unwrap();
        let registered = registry.register(Box::new(probe.clone()));
        if registered.is_ok() {
            registry.unregister(Box::new(probe)).unwrap();
        }
        registered.is_err()
    }

    #[test]
    fn what_all_components_count_is_here_or_named_as_absent() {
        let registry = telemetry::Registry::new();
        register(&registry, Some(&Features::default())).unwrap();
        let names: Vec<_> = UPSTREAMS.lines().filter(|line| !line.starts_with('#')).collect();
        for name in &names {
            let is_absent = ABSENT.iter().any(|(absent, _)| name.starts_with(absent));
            assert_ne!(is_registered(&registry, name), is_absent, "{name}");
        }
        for (absent, _) in ABSENT {
            assert!(names.iter().any(|name| name.starts_with(absent)), "{absent}");
        }
    }
}
