//! The node's part of a process: pod network, container runtime, service proxy and DNS.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::Client;
use clock::SharedClock;
use cri::{PodSandboxFilter, RuntimeService, SandboxId};
use ipnet::Ipv4Net;
use kubelet::EvictionHard;
use network::{Network, NetworkConfig};
use registry::Registry;
use runtime::Runtime;
use stdx::ready::Readiness;
use tokio::sync::watch;

use crate::supervisor::Supervisor;

/// The node's shape.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: Ipv4Addr,
    /// The network of all pods.
    pub cluster_cidr: Ipv4Net,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// The address of cluster DNS.
    pub cluster_dns: Ipv4Addr,
    /// The cgroup below which those of pods are made.
    pub cgroup_root: String,
    /// Kernel parameters that pods may set though others may feel it.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// What must be left of the node.
    pub eviction_hard: EvictionHard,
    /// The most processes and threads of one pod; −1 for no limit.
    pub pod_max_pids: i64,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// How images are pulled and removed.
    pub images: Images,
    /// Where static pods are described.
    pub static_pods: StaticPods,
}

/// The most processes and threads of a pod, unless it is told otherwise. Upstream has no limit, and
/// a pod that forks without end takes what all others need, this process too: the kernel has 32,768
/// by default. So one pod gets an eighth, which is more than servers with a thread for every client
/// use.
pub(crate) const POD_MAX_PIDS: i64 = 4096;

/// How many pods a node takes, unless it is told otherwise (upstream: the same).
pub(crate) const MAX_PODS: u32 = 110;

/// Where static pods are described.
#[derive(Clone, Debug, Default)]
pub(crate) struct StaticPods {
    /// A file, or a directory of files.
    pub path: Option<PathBuf>,
    /// How often it is looked at.
    pub check_frequency: Duration,
    /// An address that is asked for them.
    pub url: Option<kubelet::ManifestUrl>,
}

/// How images are pulled and removed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Images {
    /// Where the hosts of registries are configured.
    pub registry_config_dir: PathBuf,
    /// What is the kubelet's.
    pub kubelet: kubelet::ImagesConfig,
}

/// Where images are kept.
pub(crate) fn images_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("images")
}

/// What brings images into the store, through the proxies of the environment.
pub(crate) fn registry(
    config_dir: &Path,
    store: &image::Store,
    clock: &SharedClock,
) -> anyhow::Result<Registry> {
    let hosts = registry::HostsDirectory::new(config_dir);
    let proxies = Arc::new(registry::Proxies::new(|name| std::env::var(name).ok())?);
    let config = registry::Config { hosts, proxies, ..registry::Config::default() };
    Ok(Registry::new(config, store.clone(), Arc::clone(clock)))
}

/// Where sandboxes and containers are recorded.
pub(crate) fn runtime_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("runtime")
}

/// Shape of the pod network of a data directory.
pub(crate) fn network_config(data_dir: &Path, cluster_cidr: Ipv4Net) -> NetworkConfig {
    NetworkConfig::new(&data_dir.join("node"), cluster_cidr)
}

/// Network and runtime, and how the rest of the node learns the gateway's address.
pub(crate) struct Foundation {
    /// The pod network.
    pub network: Network,
    /// The container runtime.
    pub runtime: Runtime,
    gateway: watch::Sender<Option<Ipv4Addr>>,
}

impl Agent {
    /// Opens network and runtime, and adopts the sandboxes that still run.
    pub(crate) async fn open(&self, clock: &SharedClock) -> anyhow::Result<Foundation> {
        let network = Network::open(network_config(&self.data_dir, self.cluster_cidr))
            .context("the pod network cannot be opened")?;
        let images = image::Store::open(images_dir(&self.data_dir))
            .context("the image store cannot be opened")?;
        let registry = registry(&self.images.registry_config_dir, &images, clock)?;
        let directory = runtime_dir(&self.data_dir);
        let config = runtime::Config {
            root_dir: directory.clone(),
            state_dir: directory.join("run"),
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            cgroup_default: format!(
                "{}/kubepods/besteffort",
                self.cgroup_root.trim_end_matches('/')
            ),
            shim: runtime::ShimCommand::default(),
        };
        let network_dep = Arc::new(network.clone());
        let clock = Arc::clone(clock);
        let deps = runtime::Deps { images, registry, network: network_dep, clock };
        let runtime =
            Runtime::open(config, deps).await.context("the container runtime cannot be opened")?;
        release_addresses(&network, &runtime).await?;
        Ok(Foundation { network, runtime, gateway: watch::Sender::new(None) })
    }

    /// Starts the kubelet and what belongs to it.
    pub(crate) fn start_kubelet(
        &self,
        supervisor: &mut Supervisor,
        foundation: &Foundation,
        client: Client,
        tls: kubelet::ServingTls,
        clock: &SharedClock,
        metrics: &telemetry::Registry,
    ) -> Readiness {
        self.start_volumes(supervisor, client.clone(), clock);
        let root_dir = self.data_dir.join("kubelet");
        let mut config = kubelet::Config::new(&self.node_name, self.node_ip.into(), &root_dir);
        config.cluster_dns = vec![self.cluster_dns.into()];
        config.cluster_domain.clone_from(&self.cluster_domain);
        config.cgroup_root.clone_from(&self.cgroup_root);
        config.allowed_unsafe_sysctls.clone_from(&self.allowed_unsafe_sysctls);
        config.pod_pids_limit = self.pod_max_pids;
        config.max_pods = self.max_pods;
        config.eviction_hard = self.eviction_hard;
        config.tls = Some(tls);
        config.images = self.images.kubelet.clone();
        config.pod_manifest_path.clone_from(&self.static_pods.path);
        config.file_check_frequency = self.static_pods.check_frequency;
        config.manifest_url.clone_from(&self.static_pods.url);
        let deps = kubelet::Deps {
            client,
            clock: Arc::clone(clock),
            runtime: Arc::new(foundation.runtime.clone()),
            images: Arc::new(foundation.runtime.clone()),
            network: Arc::new(foundation.network.clone()),
            on_pod_cidr: foundation.on_pod_cidr(),
            metrics: metrics.clone(),
        };
        supervisor.start("kubelet", |ready, shutdown| kubelet::run(config, deps, ready, shutdown))
    }

    /// Starts what keeps the node's local volumes.
    fn start_volumes(&self, supervisor: &mut Supervisor, client: Client, clock: &SharedClock) {
        let config = volumes::Config {
            node_name: self.node_name.clone(),
            directory: self.data_dir.join("storage"),
        };
        let deps = volumes::Deps { client, clock: Arc::clone(clock) };
        // Nothing waits for it: the provisioner sees in the node's object that it works.
        drop(
            supervisor
                .start("volumes", |ready, shutdown| volumes::run(config, deps, ready, shutdown)),
        );
    }

    /// The kubelet's certificates.
    pub(crate) fn kubelet_tls(&self, pki: &setup::Pki) -> anyhow::Result<kubelet::ServingTls> {
        let serving = pki.kubelet(&self.node_name, &[self.node_ip.into()])?;
        Ok(kubelet::ServingTls {
            certificate_pem: serving.certificate.into_bytes(),
            key_pem: serving.key.into_bytes(),
            client_ca_pem: pki.authority().as_bytes().to_vec(),
        })
    }

    /// Starts the service proxy.
    pub(crate) fn start_proxy(
        &self,
        supervisor: &mut Supervisor,
        client: Client,
        clock: &SharedClock,
        metrics: &telemetry::Registry,
    ) -> Readiness {
        let config = proxy::Config {
            node_name: self.node_name.clone(),
            cluster_cidr: self.cluster_cidr,
            healthz_bind_address: Some(SocketAddr::from(([127, 0, 0, 1], 10256))),
        };
        let deps = proxy::Deps { client, clock: Arc::clone(clock), metrics: metrics.clone() };
        supervisor.start("proxy", |ready, shutdown| proxy::run(config, deps, ready, shutdown))
    }

    /// Starts DNS on the gateway's address as soon as there is one; `publish` is called with it.
    pub(crate) fn start_dns<F>(
        &self,
        supervisor: &mut Supervisor,
        foundation: &Foundation,
        client: Client,
        clock: &SharedClock,
        metrics: &telemetry::Registry,
        publish: impl FnOnce(Ipv4Addr) -> F + Send + 'static,
    ) -> Readiness
    where
        F: Future<Output = anyhow::Result<()>> + Send,
    {
        let mut gateway = foundation.gateway.subscribe();
        let (clock, metrics) = (Arc::clone(clock), metrics.clone());
        let (domain, dns_address) = (self.cluster_domain.clone(), self.cluster_dns);
        supervisor.start("dns", move |ready, shutdown| async move {
            let address = tokio::select! {
                address = gateway.wait_for(Option::is_some) => address.ok().and_then(|a| *a),
                () = shutdown.begun() => None,
            };
            let Some(address) = address else { return Ok(()) };
            publish(address).await?;
            let upstreams =
                dns::Upstreams::from_resolv_conf(Path::new("/etc/resolv.conf"), dns_address.into());
            let config = dns::Config {
                bind_address: SocketAddr::from((address, 53)),
                cluster_domain: domain,
                upstreams,
            };
            let deps = dns::Deps { client, clock, metrics };
            dns::run(config, deps, ready, shutdown).await.map_err(anyhow::Error::from)
        })
    }
}

/// Takes back the addresses of sandboxes that the runtime does not know, such as those whose
/// record a power loss has destroyed.
async fn release_addresses(network: &Network, runtime: &Runtime) -> anyhow::Result<()> {
    let sandboxes = runtime.list_pod_sandbox(&PodSandboxFilter::default()).await?;
    let known: Vec<SandboxId> = sandboxes.into_iter().map(|sandbox| sandbox.id).collect();
    let network = network.clone();
    let released = tokio::task::spawn_blocking(move || network.retain(&known)).await?;
    released.context("addresses of pods that are gone cannot be released")
}

impl Foundation {
    /// What the kubelet calls when the node's pod CIDR is known.
    fn on_pod_cidr(&self) -> kubelet::OnPodCidr {
        let (network, gateway) = (self.network.clone(), self.gateway.clone());
        Arc::new(move |text| {
            let cidr: Ipv4Net = text.parse()?;
            network.set_pod_cidr(cidr)?;
            gateway.send_replace(Some(crate::control_plane::first_address(cidr)));
            Ok(())
        })
    }
}
