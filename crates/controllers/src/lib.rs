//! Reconcilers, one per file: what makes the cluster be what its objects say.
//!
//! Start reading at [`run`], which starts every controller that [`Config`] names; then at
//! `service_account`, the smallest one, and at `cluster`, the informers that all of them share.
//!
//! Invariants: a controller knows the cluster only through the shared informers and its own
//! client; a reconciler is given a key, reads the state and acts so that doing it again changes
//! nothing; nothing is polled. What a watch event could not say, a resync repairs.
//!
//! It does not elect a leader (the binary does) or serve metrics. All that it does outside the API is
//! to make and remove directories of its host, as upstream, where the operator or a volume's maker
//! says so: through [`HostDirectories`].
//!
//! Tested by tables over the pure cores, and by component tests on an API in memory.

#![forbid(unsafe_code)]

mod attach_detach;
mod autoscaler;
mod bootstrap_secret;
mod bootstrap_signer;
mod certificates;
mod cluster;
mod cluster_role_aggregation;
mod context;
mod cron_job;
mod daemon_set;
mod deployment;
mod device_claims;
mod device_taint_eviction;
mod discovery;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod ephemeral_volume;
mod expectations;
mod garbage_collector;
mod in_the_way;
mod job;
mod legacy_token_cleaner;
mod local_path;
mod metrics;
mod names;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod node_ttl;
mod pod_control;
mod pod_devices;
mod pod_gc;
mod pod_group_protection;
mod pod_view;
mod queue_metrics;
mod reconcile;
mod replica_set;
mod resource_pool_status_request;
mod resource_quota;
mod revisions;
mod root_ca_publisher;
mod scale_target;
mod selection;
mod selinux_warning;
mod service_account;
mod service_account_token;
mod service_cidr;
mod service_lb;
mod service_pods;
mod stateful_set;
mod storage_version_garbage_collector;
mod storage_version_migrator;
mod taint_eviction;
mod trust_bundle_publisher;
mod ttl_after_finished;
mod validating_admission_policy_status;
mod volume_binder;
mod volume_expand;
mod volume_metrics;
mod volume_protection;
mod written;

use std::sync::Arc;
use std::time::Duration;

use client::Client;
use clock::SharedClock;
use features::Features;
use futures::future::BoxFuture;
use ipnet::IpNet;
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use prometheus::{IntGaugeVec, Opts};
use stdx::ready::Ready;
use stdx::shutdown::Shutdown;

use crate::cluster::Informers;
use crate::context::Context;
use crate::metrics::Metrics;
use crate::queue_metrics::QueueMetrics;
use crate::volume_metrics::VolumeMetrics;

pub use crate::names::{UnknownController, choose};
pub use crate::volume_binder::{
    HostDirectories, Recycler, TemplateError, VolumeSettings, read_template,
};

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which controllers run, as upstream's `--controllers`: `*` for all that are not off unless they
    /// are named, `name`, `-name` to leave one out. The names are those of [`controllers`]; [`choose`]
    /// makes them of what a user writes.
    pub controllers: Vec<String>,
    /// Pod ranges of the cluster, at most one per address family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Prefix length of a node's range for IPv4 (upstream: 24).
    pub node_cidr_mask_size_v4: u8,
    /// Prefix length of a node's range for IPv6 (upstream: 64).
    pub node_cidr_mask_size_v6: u8,
    /// PEM of the authorities that pods should trust for the API server.
    pub root_ca: String,
    /// What approved signing requests are signed with; without it none is signed.
    pub signing: Option<Authority>,
    /// How long a token that was made for an account may be unused before it is marked invalid,
    /// and then before it is removed.
    pub unused_tokens: SignedDuration,
    /// Whether a volume is taken from a node that has not been ready for minutes (upstream
    /// `--disable-force-detach-on-timeout` says no).
    pub force_detach_on_timeout: bool,
    /// How volumes are made and reclaimed.
    pub volumes: VolumeSettings,
    /// When nodes are given up, and how fast.
    pub nodes: NodeHealth,
    /// The gates. With `DRADeviceTaintRules` DeviceTaintRules are followed, and the API server has
    /// to serve `resource.k8s.io/v1beta2`; others have controllers of their own.
    pub features: Features,
}

/// When a node counts as dead, and how fast pods are driven off the nodes of a zone. The default is
/// upstream's.
#[derive(Clone, Copy, Debug)]
pub struct NodeHealth {
    /// Silence after which a node counts as unknown (upstream `--node-monitor-grace-period`).
    pub grace: Duration,
    /// The same for a node that has never said anything (upstream `--node-startup-grace-period`).
    pub startup_grace: Duration,
    /// Nodes of a zone that are given up in a second (upstream `--node-eviction-rate`).
    pub eviction_rate: f64,
    /// The same in a large zone that is disrupted (upstream `--secondary-node-eviction-rate`).
    pub secondary_eviction_rate: f64,
    /// The part of a zone's nodes with which it is disrupted when they are not ready (upstream
    /// `--unhealthy-zone-threshold`).
    pub unhealthy_zone_threshold: f64,
    /// A zone with more nodes is large; in a smaller one that is disrupted none is given up
    /// (upstream `--large-cluster-size-threshold`).
    pub large_cluster_size_threshold: u32,
}

impl Default for NodeHealth {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(50),
            startup_grace: Duration::from_secs(60),
            eviction_rate: 0.1,
            secondary_eviction_rate: 0.01,
            unhealthy_zone_threshold: 0.55,
            large_cluster_size_threshold: 50,
        }
    }
}

/// Upstream's default for [`Config::unused_tokens`].
pub const UNUSED_TOKENS: SignedDuration = SignedDuration::from_hours(365 * 24);

/// A certificate authority.
#[derive(Clone)]
pub struct Authority {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
    /// The longest time that what it signs is valid.
    pub lifetime: SignedDuration,
}

impl Authority {
    /// Upstream's default for the longest time.
    pub const LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority { .. }")
    }
}

/// Gives the client of a controller by the name of its service account, such as
/// `deployment-controller`: upstream's bootstrap roles `system:controller:<name>` go by it.
pub type ClientFor = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// Whose token it is that lies in a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSubject {
    /// Namespace of the Secret and the account.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// The account.
    pub account: String,
    /// Its uid.
    pub account_uid: String,
}

/// Signs a token, or says why not.
pub type SignToken = Arc<dyn Fn(&TokenSubject) -> Result<String, String> + Send + Sync>;

/// What the controllers work with.
pub struct Deps {
    /// The API as `system:kube-controller-manager`: for the shared informers, and for controllers
    /// that have no service account of their own.
    pub client: Client,
    /// The API as a single controller.
    pub client_for: ClientFor,
    /// Signs the tokens that are put into Secrets; without it none is.
    pub sign_token: Option<SignToken>,
    /// Directories of this host.
    pub directories: Arc<dyn HostDirectories>,
    /// Time.
    pub clock: SharedClock,
    /// Where metrics are registered.
    pub metrics: telemetry::Registry,
}

type Start = fn(Context) -> BoxFuture<'static, ()>;

/// Every controller by upstream's name, and how it starts.
const STARTS: &[(&str, Start)] = &[
    ("serviceaccount-controller", |ctx| Box::pin(service_account::run(ctx))),
    ("serviceaccount-token-controller", |ctx| Box::pin(service_account_token::run(ctx))),
    ("legacy-serviceaccount-token-cleaner-controller", |ctx| {
        Box::pin(legacy_token_cleaner::run(ctx))
    }),
    ("root-ca-certificate-publisher-controller", |ctx| Box::pin(root_ca_publisher::run(ctx))),
    ("node-ipam-controller", |ctx| Box::pin(node_ipam::run(ctx))),
    ("replicaset-controller", |ctx| Box::pin(replica_set::run::<ReplicaSet>(ctx))),
    ("replicationcontroller-controller", |ctx| {
        Box::pin(replica_set::run::<ReplicationController>(ctx))
    }),
    ("deployment-controller", |ctx| Box::pin(deployment::run(ctx))),
    ("daemonset-controller", |ctx| Box::pin(daemon_set::run(ctx))),
    ("statefulset-controller", |ctx| Box::pin(stateful_set::run(ctx))),
    ("horizontal-pod-autoscaler-controller", |ctx| Box::pin(autoscaler::run(ctx))),
    ("disruption-controller", |ctx| Box::pin(disruption::run(ctx))),
    ("node-lifecycle-controller", |ctx| Box::pin(node_lifecycle::run(ctx))),
    ("taint-eviction-controller", |ctx| Box::pin(taint_eviction::run(ctx))),
    ("pod-garbage-collector-controller", |ctx| Box::pin(pod_gc::run(ctx))),
    ("endpointslice-mirroring-controller", |ctx| Box::pin(endpoint_slice_mirroring::run(ctx))),
    ("ttl-after-finished-controller", |ctx| Box::pin(ttl_after_finished::run(ctx))),
    ("cronjob-controller", |ctx| Box::pin(cron_job::run(ctx))),
    ("job-controller", |ctx| Box::pin(job::run(ctx))),
    ("namespace-controller", |ctx| Box::pin(namespace::run(ctx))),
    ("garbage-collector-controller", |ctx| Box::pin(garbage_collector::run(ctx))),
    ("resourcequota-controller", |ctx| Box::pin(resource_quota::run(ctx))),
    ("service-cidr-controller", |ctx| Box::pin(service_cidr::run(ctx))),
    ("service-lb-controller", |ctx| Box::pin(service_lb::run(ctx))),
    ("validatingadmissionpolicy-status-controller", |ctx| {
        Box::pin(validating_admission_policy_status::run(ctx))
    }),
    ("persistentvolume-binder-controller", |ctx| Box::pin(volume_binder::run(ctx))),
    ("certificatesigningrequest-approving-controller", |ctx| {
        Box::pin(certificates::run_approver(ctx))
    }),
    ("certificatesigningrequest-signing-controller", |ctx| Box::pin(certificates::run_signer(ctx))),
    ("certificatesigningrequest-cleaner-controller", |ctx| {
        Box::pin(certificates::run_cleaner(ctx))
    }),
    ("ephemeral-volume-controller", |ctx| Box::pin(ephemeral_volume::run(ctx))),
    ("resourceclaim-controller", |ctx| Box::pin(device_claims::run(ctx))),
    ("device-taint-eviction-controller", |ctx| Box::pin(device_taint_eviction::run(ctx))),
    ("clusterrole-aggregation-controller", |ctx| Box::pin(cluster_role_aggregation::run(ctx))),
    ("ttl-controller", |ctx| Box::pin(node_ttl::run(ctx))),
    ("persistentvolume-attach-detach-controller", |ctx| Box::pin(attach_detach::run(ctx))),
    ("persistentvolume-expander-controller", |ctx| Box::pin(volume_expand::run(ctx))),
    ("local-path-provisioner", |ctx| Box::pin(local_path::run(ctx))),
    ("persistentvolumeclaim-protection-controller", |ctx| {
        Box::pin(volume_protection::run_claims(ctx))
    }),
    ("persistentvolume-protection-controller", |ctx| Box::pin(volume_protection::run_volumes(ctx))),
    ("volumeattributesclass-protection-controller", |ctx| {
        Box::pin(volume_protection::run_attributes_classes(ctx))
    }),
    ("endpoints-controller", |ctx| Box::pin(endpoints::run(ctx))),
    ("endpointslice-controller", |ctx| Box::pin(endpoint_slice::run(ctx))),
    ("bootstrap-signer-controller", |ctx| Box::pin(bootstrap_signer::run(ctx))),
    ("token-cleaner-controller", |ctx| Box::pin(bootstrap_secret::run(ctx))),
    ("podcertificaterequest-cleaner-controller", |ctx| {
        Box::pin(certificates::run_pod_cleaner(ctx))
    }),
    ("kube-apiserver-serving-clustertrustbundle-publisher-controller", |ctx| {
        Box::pin(trust_bundle_publisher::run(ctx))
    }),
    ("podgroup-protection-controller", |ctx| Box::pin(pod_group_protection::run(ctx))),
    ("storage-version-migrator-controller", |ctx| Box::pin(storage_version_migrator::run(ctx))),
    ("storageversion-garbage-collector-controller", |ctx| {
        Box::pin(storage_version_garbage_collector::run(ctx))
    }),
    ("resourcepoolstatusrequest-controller", |ctx| {
        Box::pin(resource_pool_status_request::run(ctx))
    }),
    ("selinux-warning-controller", |ctx| Box::pin(selinux_warning::run(ctx))),
];

/// Those that run only where a gate is open, as upstream's: the API server does not serve what they
/// work on otherwise.
const GATED: [(&str, &[&str]); 6] = [
    ("kube-apiserver-serving-clustertrustbundle-publisher-controller", &["ClusterTrustBundle"]),
    ("podcertificaterequest-cleaner-controller", &["PodCertificateRequest"]),
    ("podgroup-protection-controller", &["GenericWorkload"]),
    ("resourcepoolstatusrequest-controller", &["DRAResourcePoolStatus"]),
    ("storage-version-migrator-controller", &["StorageVersionMigrator"]),
    ("storageversion-garbage-collector-controller", &["APIServerIdentity", "StorageVersionAPI"]),
];

/// The gate that a controller waits for, if it is closed.
fn closed_gate(name: &str, features: &Features) -> Option<&'static str> {
    let gates = GATED.iter().find(|(gated, _)| *gated == name).map(|(_, gates)| *gates);
    gates.into_iter().flatten().copied().find(|gate| !features.is_enabled(gate))
}

/// Those that `*` does not stand for, as upstream's.
const OFF: [&str; 3] =
    ["bootstrap-signer-controller", "selinux-warning-controller", "token-cleaner-controller"];

/// The names of all controllers.
pub fn controllers() -> impl Iterator<Item = &'static str> {
    STARTS.iter().map(|(name, _)| *name)
}

/// The controllers could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Their metrics are registered already.
    #[error("metrics cannot be registered")]
    Metrics(#[source] prometheus::Error),
}

/// Runs the controllers until `shutdown`; `ready` is given when they have been started.
///
/// # Errors
/// When they cannot start.
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
    let running = running_metric(&deps.metrics).map_err(RunError::Metrics)?;
    let queues = QueueMetrics::new(&deps.metrics).map_err(RunError::Metrics)?;
    let informers = Arc::new(Informers::spawn(&config, &deps.client, &deps.clock, &shutdown));
    let volumes = VolumeMetrics::new(Arc::clone(&informers)).map_err(RunError::Metrics)?;
    deps.metrics.register(Box::new(volumes)).map_err(RunError::Metrics)?;
    let ctx = Context {
        config: Arc::new(config),
        manager: deps.client,
        client_for: deps.client_for,
        sign_token: deps.sign_token,
        directories: deps.directories,
        clock: deps.clock,
        informers,
        queues,
        counts: Metrics::new(&deps.metrics).map_err(RunError::Metrics)?,
        metrics: deps.metrics,
        shutdown,
    };
    let (shutdown, clock) = (ctx.shutdown.clone(), Arc::clone(&ctx.clock));
    let overdue = async move {
        shutdown.begun().await;
        clock.sleep(SHUTDOWN_TIMEOUT).await;
    };
    let enabled = STARTS.iter().filter(|(name, _)| {
        is_enabled(&ctx.config.controllers, name)
            && closed_gate(name, &ctx.config.features).is_none()
    });
    let tasks: Vec<_> = enabled
        .map(|(name, start)| {
            let gauge = running.with_label_values(&[MANAGER, name]);
            let controller = start(ctx.clone());
            stdx::task::spawn(name, async move {
                gauge.set(1);
                controller.await;
                gauge.set(0);
            })
        })
        .collect();
    ready.set();
    tokio::select! {
        _ = futures::future::join_all(tasks) => {}
        () = overdue => {}
    }
    Ok(())
}

/// How long controllers may take to end: one that still waits for its first list would wait for
/// ever. More than a leader waits before it leaves its lease to expire: it must not take this for
/// an end of all work.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// Upstream's name for the whole, in metrics.
const MANAGER: &str = "kube-controller-manager";

fn running_metric(registry: &telemetry::Registry) -> Result<IntGaugeVec, prometheus::Error> {
    let opts = Opts::new("running_managed_controllers", "Controllers that are at work.");
    let running = IntGaugeVec::new(opts, &["manager", "name"])?;
    registry.register(Box::new(running.clone()))?;
    Ok(running)
}

/// Upstream `IsControllerEnabled`: a mention decides, `*` stands for the rest but those in
/// [`OFF`].
fn is_enabled(list: &[String], name: &str) -> bool {
    if list.iter().any(|entry| entry == name) {
        return true;
    }
    if list.iter().any(|entry| entry.strip_prefix('-') == Some(name)) {
        return false;
    }
    list.iter().any(|entry| entry == "*") && !OFF.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_chosen_by_name() {
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        assert!(is_enabled(&list("*"), "a"));
        assert!(!is_enabled(&list("*,-a"), "a"));
        assert!(is_enabled(&list("a"), "a"));
        assert!(!is_enabled(&list("a"), "b"));
        assert!(!is_enabled(&list("*"), OFF[0]));
        assert!(is_enabled(&list(&format!("*,{}", OFF[0])), OFF[0]));
    }
}
