//! `ironclad reset`: removes every trace of a cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clock::{SharedClock, SystemClock};
use cri::RuntimeService;
use ipnet::Ipv4Net;

use crate::agent::{self, Agent};
use crate::command::up;
use crate::output;

/// Arguments of `ironclad reset`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The directory of the cluster that is removed.
    #[arg(long, default_value = "/var/lib/ironclad")]
    data_dir: PathBuf,
    /// The kubeconfig that `ironclad up` wrote, if it was told where; it is removed.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The cgroup that `ironclad up` was given.
    #[arg(long, default_value = "/")]
    cgroup_root: String,
}

/// Stops all pods, then removes rules, devices, cgroups, files and the kubeconfig's context.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(rustix::process::geteuid().is_root(), "run it as root, for example with sudo");
    let store = args.data_dir.join("store");
    // A node's directory has none.
    let is_ours = store.is_dir() || agent::runtime_dir(&args.data_dir).is_dir();
    anyhow::ensure!(
        is_ours || !args.data_dir.exists(),
        "{} is not the data directory of a cluster, so it is left alone",
        args.data_dir.display()
    );
    let clock: SharedClock = Arc::new(SystemClock);
    if is_ours {
        // Held until the end, so that no server can start meanwhile.
        let _lock = if store.is_dir() { lock(&store, &clock)? } else { None };
        stop_pods(&args, &clock).await?;
        unmount_below(&args.data_dir)?;
        proxy::dataplane::reset().context("service rules cannot be removed")?;
        let any: Ipv4Net = Ipv4Net::default();
        network::reset(&agent::network_config(&args.data_dir, any))
            .context("the pod network cannot be removed")?;
        std::fs::remove_dir_all(&args.data_dir)
            .with_context(|| format!("cannot remove {}", args.data_dir.display()))?;
    }
    match &args.kubeconfig {
        Some(path) => match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(format!("cannot remove {}", path.display()));
            }
            _ => {}
        },
        None => setup::kubeconfig::remove_from(&up::default_kubeconfig()?, up::CONTEXT)?,
    }
    output::line("removed");
    Ok(())
}

fn lock(store: &Path, clock: &SharedClock) -> anyhow::Result<Option<store::LogStore>> {
    let (options, metrics) = (store::Options::default(), telemetry::Registry::new());
    match store::LogStore::open(store, &options, Arc::clone(clock), &metrics) {
        Ok(store) => Ok(Some(store)),
        Err(error @ store::OpenError::InUse { .. }) => {
            Err(anyhow::Error::new(error).context("stop the cluster first"))
        }
        // A damaged store is removed like any other.
        Err(_) => Ok(None),
    }
}

async fn stop_pods(args: &Args, clock: &SharedClock) -> anyhow::Result<()> {
    let agent = Agent {
        data_dir: args.data_dir.clone(),
        node_name: String::new(),
        node_ip: std::net::Ipv4Addr::LOCALHOST,
        cluster_cidr: Ipv4Net::default(),
        cluster_domain: String::new(),
        cluster_dns: std::net::Ipv4Addr::LOCALHOST,
        cgroup_root: args.cgroup_root.clone(),
        images: agent::Images::default(),
        allowed_unsafe_sysctls: Vec::new(),
        pod_max_pids: agent::POD_MAX_PIDS,
        max_pods: agent::MAX_PODS,
        eviction_hard: kubelet::EvictionHard::default(),
        static_pods: agent::StaticPods::default(),
    };
    let foundation = agent.open(clock).await?;
    for sandbox in foundation.runtime.list_pod_sandbox(&cri::PodSandboxFilter::default()).await? {
        foundation.runtime.stop_pod_sandbox(&sandbox.id).await?;
        foundation.runtime.remove_pod_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

/// Unmounts what pods' volumes left below the data directory, the deepest first.
fn unmount_below(directory: &Path) -> anyhow::Result<()> {
    let directory = directory.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(&directory)).collect();
    below.sort();
    for point in below.iter().rev() {
        rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}
