//! `ironclad controller-manager`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::{AccountTokens, Client, Credentials, KubeConfig, Remote};
use jiff::SignedDuration;

use crate::command::alone::Alone;
use crate::command::election::Election;
use crate::command::gates::Gates;
use crate::command::own_port;
use crate::host_directories::ThisHost;
use crate::token_signer;

/// Where health and metrics are served: upstream's default.
const PORT: u16 = 10257;

/// Arguments, with upstream's names.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How to reach the API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Controllers to run: "*" for all but bootstrap-signer-controller, selinux-warning-controller and
    /// token-cleaner-controller, "name", "-name" to leave one out.
    #[arg(long, value_delimiter = ',', default_value = "*")]
    controllers: Vec<String>,
    /// Ranges of pods, of which every node gets a part.
    #[arg(long, value_delimiter = ',', default_value = "10.42.0.0/16")]
    cluster_cidr: Vec<ipnet::IpNet>,
    /// Prefix length of a node's IPv4 range.
    #[arg(long, default_value_t = 24)]
    node_cidr_mask_size_ipv4: u8,
    /// Prefix length of a node's IPv6 range.
    #[arg(long, default_value_t = 64)]
    node_cidr_mask_size_ipv6: u8,
    /// Certificates that pods should trust for the API server; default: those of the kubeconfig.
    #[arg(long)]
    root_ca_file: Option<PathBuf>,
    /// Certificate of the authority that approved signing requests are signed with.
    #[arg(long, requires = "cluster_signing_key_file")]
    cluster_signing_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "cluster_signing_cert_file")]
    cluster_signing_key_file: Option<PathBuf>,
    /// The longest time that what is signed is valid.
    #[arg(long, default_value = "8760h0m0s")]
    cluster_signing_duration: SignedDuration,
    /// Key that tokens in Secrets are signed with; without it none is made.
    #[arg(long)]
    service_account_private_key_file: Option<PathBuf>,
    /// How long a token that was made for a service account may be unused before it is marked
    /// invalid, and then before it is removed.
    #[arg(long, default_value = "8760h0m0s")]
    legacy_service_account_token_clean_up_period: SignedDuration,
    /// Let every controller act as a service account of its own, in kube-system, with a token that is
    /// asked for; otherwise all act as whoever the kubeconfig names.
    #[arg(long)]
    use_service_account_credentials: bool,
    /// Never take a volume from a node because it has not been ready for minutes.
    #[arg(long)]
    disable_force_detach_on_timeout: bool,
    #[command(flatten)]
    volumes: Volumes,
    #[command(flatten)]
    nodes: Nodes,
    #[command(flatten)]
    port: own_port::Place,
    #[command(flatten)]
    election: Election,
    #[command(flatten)]
    gates: Gates,
}

/// As whom controllers act.
fn client_for(args: &Args, alone: &Alone) -> anyhow::Result<controllers::ClientFor> {
    let manager = alone.client.clone();
    if !args.use_service_account_credentials {
        return Ok(Arc::new(move |_account| manager.clone()));
    }
    // Connections of their own: a certificate would count for more than a token.
    let mut config = KubeConfig::load(&args.kubeconfig)?;
    config.credentials = Credentials::Anonymous;
    let clock = Arc::clone(&alone.clock);
    let agent = format!("kube-controller-manager/{}", telemetry::VERSION);
    let remote = Remote::new(&config, &agent, Arc::clone(&clock))?.measured(&alone.requests);
    Ok(Arc::new(move |account| {
        let clock = Arc::clone(&clock);
        let tokens = AccountTokens::new(manager.clone(), clock, "kube-system", account);
        Client::new(Arc::new(remote.with_tokens(Arc::new(tokens))))
    }))
}

/// When nodes are given up.
#[derive(clap::Args)]
struct Nodes {
    /// How long a node may be silent before it counts as unknown.
    #[arg(long, default_value = "50s")]
    node_monitor_grace_period: SignedDuration,
    /// The same for a node that has never said anything.
    #[arg(long, default_value = "1m0s")]
    node_startup_grace_period: SignedDuration,
    /// Nodes of a zone whose pods are made to leave in a second, when nodes fail.
    #[arg(long, default_value_t = 0.1)]
    node_eviction_rate: f64,
    /// The same in a zone that is unhealthy and large; none in one that is not large.
    #[arg(long, default_value_t = 0.01)]
    secondary_node_eviction_rate: f64,
    /// The part of a zone's nodes, at least three, with which it is unhealthy when they fail.
    #[arg(long, default_value_t = 0.55)]
    unhealthy_zone_threshold: f64,
    /// The number of nodes beyond which a zone is large.
    #[arg(long, default_value_t = 50)]
    large_cluster_size_threshold: u32,
}

impl Nodes {
    fn read(&self) -> anyhow::Result<controllers::NodeHealth> {
        let positive = |name: &str, time: SignedDuration| {
            Duration::try_from(time).with_context(|| format!("--{name} is negative"))
        };
        Ok(controllers::NodeHealth {
            grace: positive("node-monitor-grace-period", self.node_monitor_grace_period)?,
            startup_grace: positive("node-startup-grace-period", self.node_startup_grace_period)?,
            eviction_rate: self.node_eviction_rate,
            secondary_eviction_rate: self.secondary_node_eviction_rate,
            unhealthy_zone_threshold: self.unhealthy_zone_threshold,
            large_cluster_size_threshold: self.large_cluster_size_threshold,
        })
    }
}

/// How volumes are made and reclaimed.
#[derive(clap::Args)]
struct Volumes {
    /// Have volumes made for claims.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    enable_dynamic_provisioning: bool,
    /// Make directories of this host, below /tmp/hostpath_pv, for claims of classes of
    /// kubernetes.io/host-path. For trying things out on one node.
    #[arg(long)]
    enable_hostpath_provisioner: bool,
    /// How soon it is tried again to scrub or delete a volume.
    #[arg(long, default_value = "15s", value_parser = super::duration)]
    pvclaimbinder_sync_period: Duration,
    /// Pod of which those that scrub directories of nodes are made (YAML or JSON).
    #[arg(long)]
    pv_recycler_pod_template_filepath_hostpath: Option<PathBuf>,
    /// Seconds that such a pod has at least.
    #[arg(long, default_value_t = 60)]
    pv_recycler_minimum_timeout_hostpath: i32,
    /// Seconds that it has for each GiB.
    #[arg(long, default_value_t = 30)]
    pv_recycler_timeout_increment_hostpath: i32,
    /// Pod of which those that scrub NFS shares are made (YAML or JSON).
    #[arg(long)]
    pv_recycler_pod_template_filepath_nfs: Option<PathBuf>,
    /// Seconds that such a pod has at least.
    #[arg(long, default_value_t = 300)]
    pv_recycler_minimum_timeout_nfs: i32,
    /// Seconds that it has for each GiB.
    #[arg(long, default_value_t = 30)]
    pv_recycler_increment_timeout_nfs: i32,
}

impl Volumes {
    fn read(&self) -> anyhow::Result<controllers::VolumeSettings> {
        Ok(controllers::VolumeSettings {
            provisioning: self.enable_dynamic_provisioning,
            host_path_provisioning: self.enable_hostpath_provisioner,
            retry: self.pvclaimbinder_sync_period,
            host_path_recycler: recycler(
                self.pv_recycler_pod_template_filepath_hostpath.as_deref(),
                self.pv_recycler_minimum_timeout_hostpath,
                self.pv_recycler_timeout_increment_hostpath,
            )?,
            nfs_recycler: recycler(
                self.pv_recycler_pod_template_filepath_nfs.as_deref(),
                self.pv_recycler_minimum_timeout_nfs,
                self.pv_recycler_increment_timeout_nfs,
            )?,
        })
    }
}

fn recycler(
    template: Option<&Path>,
    timeout_secs_min: i32,
    timeout_secs_per_gib: i32,
) -> anyhow::Result<controllers::Recycler> {
    let mut recycler = controllers::Recycler::new(timeout_secs_min, timeout_secs_per_gib);
    if let Some(path) = template {
        let path_shown = path.display();
        let bytes = std::fs::read(path)
            .with_context(|| format!("failed to read file path {path_shown}"))?;
        recycler.template = controllers::read_template(&bytes)
            .with_context(|| format!("pod specification ({path_shown})"))?;
    }
    Ok(recycler)
}

/// Runs it until it is told to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let features = args.gates.read()?;
    let controllers = controllers::choose(&args.controllers, &features).context("--controllers")?;
    let volumes = args.volumes.read()?;
    let alone = Alone::new(&args.kubeconfig, "kube-controller-manager", Some(&features))?;
    let root_ca = match &args.root_ca_file {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?,
        None => {
            let authority = KubeConfig::load(&args.kubeconfig)?.certificate_authority;
            String::from_utf8(authority).context("the kubeconfig's authority is not PEM")?
        }
    };
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let signing = match (&args.cluster_signing_cert_file, &args.cluster_signing_key_file) {
        (Some(certificate), Some(key)) => Some(controllers::Authority {
            certificate: read(certificate)?,
            key: read(key)?,
            lifetime: args.cluster_signing_duration,
        }),
        _ => None,
    };
    let sign_token = args.service_account_private_key_file.as_ref();
    let sign_token = sign_token.map(|path| token_signer::of(&read(path)?)).transpose()?;
    let client_for = client_for(&args, &alone)?;
    own_port::start(&args.port, &alone, "kube-controller-manager", PORT).await?;
    let config = controllers::Config {
        controllers,
        cluster_cidrs: args.cluster_cidr,
        node_cidr_mask_size_v4: args.node_cidr_mask_size_ipv4,
        node_cidr_mask_size_v6: args.node_cidr_mask_size_ipv6,
        root_ca,
        signing,
        unused_tokens: args.legacy_service_account_token_clean_up_period,
        force_detach_on_timeout: !args.disable_force_detach_on_timeout,
        volumes,
        nodes: args.nodes.read()?,
        features,
    };
    let deps = controllers::Deps {
        client: alone.client.clone(),
        client_for,
        sign_token,
        directories: Arc::new(ThisHost),
        clock: Arc::clone(&alone.clock),
        metrics: alone.metrics.clone(),
    };
    let (ready, _readiness) = stdx::ready::signal();
    let shutdown = alone.shutdown.clone();
    let work = async { Ok(controllers::run(config, deps, ready, shutdown).await?) };
    alone.lead(&args.election, "kube-controller-manager", work).await
}
