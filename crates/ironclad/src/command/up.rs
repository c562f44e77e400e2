//! `ironclad up`: a one-node cluster in the foreground.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use api::Typed;
use apiserver::Handle;
use authn::UserInfo;
use client::{ListOptions, ResourcePath};
use clock::{Clock, SharedClock, SystemClock};
use futures::StreamExt;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use meta::WatchEvent;
use setup::kubeconfig::{self, Access};
use stdx::ready::Readiness;
use stdx::shutdown::Shutdown;

use kubelet::EvictionHard;

use crate::agent::{self, Agent, MAX_PODS, POD_MAX_PIDS};
use crate::command::auditing::Auditing;
use crate::command::gates::{Gates, Versions};
use crate::command::images::Images;
use crate::command::static_pods::StaticPods;
use crate::control_plane::{self, ControlPlane};
use crate::host_directories::ThisHost;
use crate::in_process::InProcess;
use crate::supervisor::{self, Supervisor};
use crate::{addons, command, node_address, output, token_signer};

/// The name of the context in a user's kubeconfig.
pub(super) const CONTEXT: &str = "ironclad";

/// Arguments of `ironclad up`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Where everything is kept.
    #[arg(long, default_value = "/var/lib/ironclad")]
    data_dir: PathBuf,
    /// Where to write the administrator's kubeconfig; default: merged into ~/.kube/config as
    /// context "ironclad".
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Addresses to serve the API on; default: loopback and the node's address.
    #[arg(long, value_delimiter = ',')]
    bind_address: Vec<IpAddr>,
    /// The port to serve the API on.
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// The node's name; default: the host's.
    #[arg(long)]
    node_name: Option<String>,
    /// The node's address; default: that of the default route's device.
    #[arg(long)]
    node_ip: Option<Ipv4Addr>,
    /// The network of all pods.
    #[arg(long, default_value = "10.42.0.0/16")]
    cluster_cidr: Ipv4Net,
    /// Length of the prefix of the range that the node's pods have of it.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u8).range(1..=30))]
    node_cidr_mask_size_ipv4: u8,
    /// Range of cluster addresses of services: .1 is the API, .10 is DNS.
    #[arg(long, default_value = "10.43.0.0/16")]
    service_cidr: Ipv4Net,
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
    #[command(flatten)]
    auditing: Auditing,
    #[command(flatten)]
    images: Images,
    #[command(flatten)]
    static_pods: StaticPods,
    #[command(flatten)]
    gates: Gates,
    #[command(flatten)]
    versions: Versions,
}

/// Runs the cluster until it is told to stop. Pods go on running then.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let audit = args.auditing.read()?;
    let features = args.gates.read()?;
    args.versions.apply(&features)?;
    let images = args.images.read(&args.data_dir)?;
    let static_pods = args.static_pods.read()?;
    anyhow::ensure!(
        args.node_cidr_mask_size_ipv4 >= args.cluster_cidr.prefix_len(),
        "--node-cidr-mask-size-ipv4: a node's range of /{} is larger than --cluster-cidr {}",
        args.node_cidr_mask_size_ipv4,
        args.cluster_cidr,
    );
    let clock: SharedClock = Arc::new(SystemClock);
    let mut progress = Progress::new(&clock);
    command::doctor::require()?;
    let node_name = args.node_name.clone().unwrap_or_else(node_address::host_name);
    let node_ip = match args.node_ip {
        Some(address) => address,
        None => node_address::choose()?,
    };
    let plane = control_plane(&args, &node_name, node_ip);
    control_plane::private_directory(&args.data_dir)?;
    progress.step("host checked");

    let shutdown = Shutdown::new();
    supervisor::stop_on_signals(&shutdown)?;
    let metrics = telemetry::Registry::new();
    let store = plane.open_store(&clock, &metrics)?;
    progress.step("store opened");
    let pki = plane.pki(&*clock)?;
    let gates = features.clone();
    // As in clusters that kubeadm makes: others may join by tokens.
    let config = apiserver::Config {
        features,
        audit,
        enable_bootstrap_token_auth: true,
        ..plane.config(plane.server_pki(&pki)?)
    };
    progress.step("certificates ready");
    let running = control_plane::start(config, store, &clock, &metrics, &shutdown).await?;
    progress.step(&format!("API server on port {}", args.secure_port));

    let client = pki.client("kubernetes-admin", Some("system:masters"))?;
    let server = format!("https://{}", SocketAddr::new(plane.bind[0].ip(), args.secure_port));
    let access = Access { server: &server, authority: pki.authority(), client: &client };
    let kubeconfig = write_kubeconfig(args.kubeconfig.as_ref(), &access)?;
    progress.step(&format!("kubeconfig {}", kubeconfig.path.display()));

    let agent = agent(&args, images, static_pods, node_name, node_ip);
    let cluster = Cluster {
        agent,
        pki: &pki,
        clock: &clock,
        metrics: &metrics,
        features: gates,
        node_cidr_mask_size: args.node_cidr_mask_size_ipv4,
    };
    let mut supervisor = Supervisor::new(shutdown.clone());
    let waiting = cluster.start(&mut supervisor, &running.handle).await?;
    let wait = async {
        for (what, mut readiness) in waiting {
            if readiness.wait().await {
                progress.step(what);
            }
        }
        progress.done(&kubeconfig);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = wait => Ok(()),
        ended = supervisor.run() => ended,
    }?;
    running.task.await?;
    output::line(
        "stopped; pods go on running, `ironclad up` adopts them, `ironclad reset` removes them",
    );
    Ok(())
}

fn control_plane(args: &Args, node_name: &str, node_ip: Ipv4Addr) -> ControlPlane {
    let mut addresses = args.bind_address.clone();
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
        if !node_ip.is_loopback() {
            addresses.push(node_ip.into());
        }
    }
    ControlPlane {
        data_dir: args.data_dir.clone(),
        bind: addresses.iter().map(|ip| SocketAddr::new(*ip, args.secure_port)).collect(),
        advertise_address: node_ip.into(),
        service_cidr: args.service_cidr,
        cluster_domain: args.cluster_domain.clone(),
        node_name: node_name.to_owned(),
    }
}

fn agent(
    args: &Args,
    images: agent::Images,
    static_pods: agent::StaticPods,
    node_name: String,
    node_ip: Ipv4Addr,
) -> Agent {
    Agent {
        data_dir: args.data_dir.clone(),
        node_name,
        node_ip,
        cluster_cidr: args.cluster_cidr,
        cluster_domain: args.cluster_domain.clone(),
        cluster_dns: control_plane::dns_address(args.service_cidr),
        cgroup_root: args.cgroup_root.clone(),
        images,
        allowed_unsafe_sysctls: args.allowed_unsafe_sysctls.clone(),
        pod_max_pids: args.pod_max_pids,
        max_pods: args.max_pods,
        eviction_hard: args.eviction_hard,
        static_pods,
    }
}

/// Everything that runs against the API server of this process.
struct Cluster<'a> {
    agent: Agent,
    pki: &'a setup::Pki,
    clock: &'a SharedClock,
    metrics: &'a telemetry::Registry,
    features: features::Features,
    /// Length of the prefix of the node's range of pods.
    node_cidr_mask_size: u8,
}

impl Cluster<'_> {
    /// Starts all components; what to wait for, in the order in which to report it.
    async fn start(
        &self,
        supervisor: &mut Supervisor,
        server: &Handle,
    ) -> anyhow::Result<Vec<(&'static str, Readiness)>> {
        let Self { agent, clock, metrics, .. } = self;
        let admin = InProcess::client(
            server,
            UserInfo::new("kubernetes-admin", &[UserInfo::MASTERS, UserInfo::AUTHENTICATED]),
        );
        addons::install(&admin, agent.cluster_dns)
            .await
            .context("the DNS service cannot be made")?;
        let foundation = agent.open(clock).await?;
        let admin_for_node = admin.clone();
        self.start_control(supervisor, server)?;
        let node = format!("system:node:{}", agent.node_name);
        let groups = ["system:nodes", UserInfo::AUTHENTICATED];
        let kubelet = InProcess::client(server, UserInfo::new(node, &groups));
        let tls = agent.kubelet_tls(self.pki)?;
        let kubelet = agent.start_kubelet(supervisor, &foundation, kubelet, tls, clock, metrics);
        let proxy = InProcess::client(server, UserInfo::component("system:kube-proxy"));
        let proxy = agent.start_proxy(supervisor, proxy, clock, metrics);
        let dns = InProcess::client(server, UserInfo::service_account("kube-system", "coredns"));
        let node_name = agent.node_name.clone();
        let publish = move |address| async move {
            Ok(addons::publish_dns(&admin, &node_name, address).await?)
        };
        let dns = agent.start_dns(supervisor, &foundation, dns, clock, metrics, publish);
        let node_ready = node_ready(admin_for_node, agent.node_name.clone(), kubelet);
        Ok(vec![
            ("node is Ready", node_ready),
            ("service rules in place", proxy),
            ("cluster DNS answers", dns),
        ])
    }

    /// Starts controllers and scheduler, each under its own identity.
    fn start_control(&self, supervisor: &mut Supervisor, server: &Handle) -> anyhow::Result<()> {
        let config = controllers::Config {
            controllers: ["*", "bootstrap-signer-controller", "token-cleaner-controller"]
                .map(str::to_owned)
                .to_vec(),
            cluster_cidrs: vec![self.agent.cluster_cidr.into()],
            node_cidr_mask_size_v4: self.node_cidr_mask_size,
            node_cidr_mask_size_v6: 64,
            root_ca: self.pki.authority().to_owned(),
            signing: Some(controllers::Authority {
                certificate: self.pki.authority().to_owned(),
                key: self.pki.authority_key().to_owned(),
                lifetime: controllers::Authority::LIFETIME,
            }),
            unused_tokens: controllers::UNUSED_TOKENS,
            force_detach_on_timeout: true,
            volumes: controllers::VolumeSettings::default(),
            nodes: controllers::NodeHealth::default(),
            features: self.features.clone(),
        };
        let handle = server.clone();
        let manager = UserInfo::component("system:kube-controller-manager");
        let deps = controllers::Deps {
            client: InProcess::client(server, manager),
            client_for: Arc::new(move |account| {
                InProcess::client(&handle, UserInfo::service_account("kube-system", account))
            }),
            sign_token: Some(token_signer::of(&self.pki.token_keys()?.0)?),
            directories: Arc::new(ThisHost),
            clock: Arc::clone(self.clock),
            metrics: self.metrics.clone(),
        };
        drop(supervisor.start("controllers", |ready, shutdown| {
            controllers::run(config, deps, ready, shutdown)
        }));
        let deps = scheduler::Deps {
            client: InProcess::client(server, UserInfo::component("system:kube-scheduler")),
            clock: Arc::clone(self.clock),
            metrics: self.metrics.clone(),
        };
        let config = scheduler::Config::default();
        drop(
            supervisor.start("scheduler", |ready, shutdown| {
                scheduler::run(config, deps, ready, shutdown)
            }),
        );
        Ok(())
    }
}

/// Ready when the kubelet runs and the node's object says so.
fn node_ready(client: client::Client, node: String, mut kubelet: Readiness) -> Readiness {
    let (ready, readiness) = stdx::ready::signal();
    drop(stdx::task::spawn("node-ready", async move {
        if kubelet.wait().await && wait_for_node(&client, &node).await.is_ok() {
            ready.set();
        }
    }));
    readiness
}

async fn wait_for_node(client: &client::Client, name: &str) -> anyhow::Result<()> {
    let path = ResourcePath::of::<Node>();
    let only = ListOptions::fields(format!("metadata.name={name}"));
    let is_ready = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let listed = client.list_page(&path, "", &only).await?;
    if listed.items.iter().any(|node| Node::of(node).is_ok_and(|node| is_ready(&node))) {
        return Ok(());
    }
    let mut events = client.watch(&path, "", &only, listed.resource_version, 600).await?;
    while let Some(event) = events.next().await {
        if let WatchEvent::Added(node) | WatchEvent::Modified(node) = event?
            && Node::of(&node).is_ok_and(|node| is_ready(&node))
        {
            return Ok(());
        }
    }
    anyhow::bail!("the watch ended before the node was Ready")
}

/// Where the administrator's credentials went.
struct Written {
    path: PathBuf,
    merged: bool,
}

fn write_kubeconfig(path: Option<&PathBuf>, access: &Access<'_>) -> anyhow::Result<Written> {
    match path {
        Some(path) => {
            kubeconfig::write(path, CONTEXT, access)?;
            Ok(Written { path: path.clone(), merged: false })
        }
        None => {
            let path = default_kubeconfig()?;
            kubeconfig::merge_into(&path, CONTEXT, access)?;
            Ok(Written { path, merged: true })
        }
    }
}

/// `~/.kube/config`
pub(super) fn default_kubeconfig() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.context("HOME is not set; say where to write with --kubeconfig")?;
    Ok(PathBuf::from(home).join(".kube/config"))
}

/// Prints a line per step with its time.
struct Progress<'a> {
    clock: &'a dyn Clock,
    begun: Instant,
    last: Instant,
}

impl<'a> Progress<'a> {
    fn new(clock: &'a SharedClock) -> Self {
        let now = clock.monotonic();
        output::line(&format!(
            "ironclad {} (Kubernetes {})",
            env!("CARGO_PKG_VERSION"),
            telemetry::VERSION
        ));
        Self { clock: &**clock, begun: now, last: now }
    }

    fn step(&mut self, text: &str) {
        let now = self.clock.monotonic();
        output::step(text, now.saturating_duration_since(self.last));
        self.last = now;
    }

    fn done(&self, kubeconfig: &Written) {
        let total = self.clock.monotonic().saturating_duration_since(self.begun);
        output::line(&format!("ready in {} ms. Next:", total.as_millis()));
        let select = if kubeconfig.merged {
            format!("kubectl config use-context {CONTEXT}")
        } else {
            format!("export KUBECONFIG={}", kubeconfig.path.display())
        };
        output::line(&format!("  {select}"));
        output::line("  kubectl get nodes,pods -A");
    }
}
