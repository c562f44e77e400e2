//! `ironclad kubelet`: the node agent with network and runtime, against an API server elsewhere.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use ::kubelet::EvictionHard;
use anyhow::Context;
use clock::{SharedClock, SystemClock};
use stdx::shutdown::Shutdown;

use crate::agent::{Agent, MAX_PODS, POD_MAX_PIDS};
use crate::command::alone::Alone;
use crate::command::gates::Gates;
use crate::command::images::Images;
use crate::command::joining::{Joiner, Joining};
use crate::command::static_pods::StaticPods;
use crate::supervisor::{self, Supervisor};
use crate::{control_plane, node_address};

/// Arguments, with upstream's names where upstream has them.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How to reach the API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Where images, pods and the network's record are kept.
    #[arg(long, default_value = "/var/lib/ironclad")]
    data_dir: PathBuf,
    /// The node's name, when it is not the host's.
    #[arg(long)]
    hostname_override: Option<String>,
    /// The node's address; default: that of the default route's device.
    #[arg(long)]
    node_ip: Option<Ipv4Addr>,
    /// The network of all pods.
    #[arg(long, default_value = "10.42.0.0/16")]
    cluster_cidr: ipnet::Ipv4Net,
    /// The address of cluster DNS.
    #[arg(long, default_value = "10.43.0.10")]
    cluster_dns: Ipv4Addr,
    /// The cluster's domain.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// The cgroup below which those of pods are made.
    #[arg(long, default_value = "/")]
    cgroup_root: String,
    /// Kernel parameters, or prefixes that end with `*`, which pods may set though others may feel
    /// it; separated by commas.
    #[arg(long, value_delimiter = ',')]
    allowed_unsafe_sysctls: Vec<String>,
    /// What must be left of the node, such as `memory.available<100Mi,nodefs.available<10%`; below
    /// it the node says that it is under pressure.
    #[arg(
        long,
        default_value = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%"
    )]
    eviction_hard: EvictionHard,
    /// The most processes and threads of one pod; -1 for no limit.
    #[arg(long, default_value_t = POD_MAX_PIDS, value_parser = clap::value_parser!(i64).range(-1..),
          allow_negative_numbers = true)]
    pod_max_pids: i64,
    /// How many pods the node takes.
    #[arg(long, default_value_t = MAX_PODS)]
    max_pods: u32,
    /// Certificate to serve with; default: one of its own, signed by nobody else.
    #[arg(long, requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Authorities whose client certificates are accepted; without any, clients need tokens.
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// Endpoint of another container runtime.
    #[arg(long)]
    container_runtime_endpoint: Option<String>,
    #[command(flatten)]
    joining: Joining,
    #[command(flatten)]
    images: Images,
    #[command(flatten)]
    static_pods: StaticPods,
    #[command(flatten)]
    gates: Gates,
}

/// Runs it until it is told to stop. Pods go on running.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let features = args.gates.read()?;
    let images = args.images.read(&args.data_dir)?;
    let static_pods = args.static_pods.read()?;
    anyhow::ensure!(
        args.container_runtime_endpoint.is_none(),
        "--container-runtime-endpoint: other container runtimes are not supported; the embedded \
         one is used"
    );
    super::doctor::require()?;
    control_plane::private_directory(&args.data_dir)?;
    let read = |path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let node_name = args.hostname_override.unwrap_or_else(node_address::host_name);
    let (clock, shutdown): (SharedClock, _) = (Arc::new(SystemClock), Shutdown::new());
    supervisor::stop_on_signals(&shutdown)?;
    let joiner = Joiner {
        kubeconfig: &args.kubeconfig,
        data_dir: &args.data_dir,
        node_name: &node_name,
        clock: &clock,
        shutdown: &shutdown,
    };
    if !args.joining.join(&joiner).await? {
        return Ok(());
    }
    let alone = Alone::with(&args.kubeconfig, "kubelet", Some(&features), clock, shutdown)?;
    let node_ip = match args.node_ip {
        Some(address) => address,
        None => node_address::choose()?,
    };
    let (certificate_pem, key_pem) = match (&args.tls_cert_file, &args.tls_private_key_file) {
        (Some(certificate), Some(key)) => (read(certificate)?, read(key)?),
        _ => {
            let directory = args.data_dir.join("kubelet/pki");
            let now = alone.clock.now();
            let own = setup::self_signed_kubelet(&directory, &node_name, &[node_ip.into()], now)?;
            (own.certificate.into_bytes(), own.key.into_bytes())
        }
    };
    let client_ca_pem = args.client_ca_file.as_ref().map(read).transpose()?.unwrap_or_default();
    let tls = ::kubelet::ServingTls { certificate_pem, key_pem, client_ca_pem };
    let agent = Agent {
        data_dir: args.data_dir,
        node_name,
        node_ip,
        cluster_cidr: args.cluster_cidr,
        cluster_domain: args.cluster_domain,
        cluster_dns: args.cluster_dns,
        cgroup_root: args.cgroup_root,
        images,
        allowed_unsafe_sysctls: args.allowed_unsafe_sysctls,
        pod_max_pids: args.pod_max_pids,
        max_pods: args.max_pods,
        eviction_hard: args.eviction_hard,
        static_pods,
    };
    let foundation = agent.open(&alone.clock).await?;
    let mut supervisor = Supervisor::new(alone.shutdown.clone());
    let Alone { client, clock, metrics, .. } = &alone;
    let client = client.clone();
    drop(agent.start_kubelet(&mut supervisor, &foundation, client, tls, clock, metrics));
    supervisor.run().await
}
