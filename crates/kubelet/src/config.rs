//! What a kubelet is told, and what it works with.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use clock::SharedClock;
use cri::{ImageService, PodNetwork, RuntimeService};
use k8s_openapi::api::core::v1::Taint;

use crate::eviction::EvictionHard;
use crate::image::ImagesConfig;

/// Certificates of the HTTPS endpoint, in PEM.
#[derive(Clone)]
pub struct ServingTls {
    /// The serving certificate and its chain.
    pub certificate_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
    /// Who signs the certificates of clients; empty admits none by certificate.
    pub client_ca_pem: Vec<u8>,
}

impl std::fmt::Debug for ServingTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("ServingTls").finish_non_exhaustive()
    }
}

/// What a kubelet is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name.
    pub node_name: String,
    /// The node's address, which the API server connects to.
    pub node_ip: IpAddr,
    /// Where pods' volumes are kept.
    pub root_dir: PathBuf,
    /// Where containers' logs are kept.
    pub pod_logs_dir: PathBuf,
    /// Name servers of pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// The resolver configuration of the node.
    pub resolv_conf: PathBuf,
    /// The cgroup below which `kubepods` is made.
    pub cgroup_root: String,
    /// Where cgroups are mounted.
    pub cgroup_mount: PathBuf,
    /// The most processes and threads of one pod; −1 for no limit.
    pub pod_pids_limit: i64,
    /// The address of the HTTPS endpoint.
    pub address: IpAddr,
    /// The port of the HTTPS endpoint.
    pub port: u16,
    /// Its certificates; without them there is no endpoint.
    pub tls: Option<ServingTls>,
    /// Where `/healthz` is served without TLS.
    pub healthz_address: Option<SocketAddr>,
    /// A port for reading without authentication; 0 means none.
    pub read_only_port: u16,
    /// The most pods of the node.
    pub max_pods: u32,
    /// Whether the node object is made when it is absent.
    pub register_node: bool,
    /// Labels of the node beside the well-known ones.
    pub node_labels: BTreeMap<String, String>,
    /// Taints that the node object is made with.
    pub register_with_taints: Vec<Taint>,
    /// How often the node's status is computed.
    pub node_status_update_frequency: Duration,
    /// How often it is written although nothing changed.
    pub node_status_report_frequency: Duration,
    /// How long the node's lease holds; it is renewed after a quarter of it.
    pub node_lease_duration: Duration,
    /// When the node is under pressure.
    pub eviction_hard: EvictionHard,
    /// Kernel parameters, or prefixes that end with `*`, which pods may set though others may feel
    /// it.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// The size at which a container's log is rotated.
    pub container_log_max_bytes: u64,
    /// How many files a container's log has.
    pub container_log_max_files: usize,
    /// A file with the manifest of a static pod, or a directory of such files.
    pub pod_manifest_path: Option<PathBuf>,
    /// How often these are looked at although the kernel told of no change.
    pub file_check_frequency: Duration,
    /// Where else static pods are described.
    pub manifest_url: Option<ManifestUrl>,
    /// How images are pulled and removed.
    pub images: ImagesConfig,
}

impl Config {
    /// Upstream's defaults for a node, without a cluster DNS and without certificates.
    pub fn new(node_name: &str, node_ip: IpAddr, root_dir: &Path) -> Self {
        Self {
            node_name: node_name.to_owned(),
            node_ip,
            root_dir: root_dir.to_path_buf(),
            pod_logs_dir: root_dir.parent().unwrap_or(root_dir).join("logs/pods"),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            cgroup_root: "/".to_owned(),
            cgroup_mount: PathBuf::from("/sys/fs/cgroup"),
            pod_pids_limit: -1,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 10250,
            tls: None,
            healthz_address: Some(SocketAddr::from(([127, 0, 0, 1], 10248))),
            read_only_port: 0,
            max_pods: 110,
            register_node: true,
            node_labels: BTreeMap::new(),
            register_with_taints: Vec::new(),
            node_status_update_frequency: Duration::from_secs(10),
            node_status_report_frequency: Duration::from_secs(300),
            node_lease_duration: Duration::from_secs(40),
            eviction_hard: EvictionHard::default(),
            allowed_unsafe_sysctls: Vec::new(),
            container_log_max_bytes: 10 << 20,
            container_log_max_files: 5,
            pod_manifest_path: None,
            file_check_frequency: Duration::from_secs(20),
            manifest_url: None,
            images: ImagesConfig::default(),
        }
    }
}

/// An address with the manifest of a static pod, or of a list of them.
#[derive(Clone, Debug)]
pub struct ManifestUrl {
    /// The address, of scheme `http` or `https`.
    pub url: String,
    /// Sent with each request.
    pub headers: Vec<(String, String)>,
    /// How often it is looked at.
    pub check_frequency: Duration,
}

/// Called with the node's `spec.podCIDR` when it is first seen and when it changes. It may block
/// for some milliseconds; when it fails it is called again.
pub type OnPodCidr =
    Arc<dyn Fn(&str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + Sync>;

/// What a kubelet works with.
#[derive(Clone)]
pub struct Deps {
    /// The API, as `system:node:<name>`.
    pub client: Client,
    /// The time.
    pub clock: SharedClock,
    /// Runs containers.
    pub runtime: Arc<dyn RuntimeService>,
    /// Keeps images.
    pub images: Arc<dyn ImageService>,
    /// The pod network, asked whether it is ready.
    pub network: Arc<dyn PodNetwork>,
    /// Gives the pod network its range.
    pub on_pod_cidr: OnPodCidr,
    /// Where metrics are registered.
    pub metrics: telemetry::Registry,
}

/// Why the kubelet could not run.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// A directory cannot be used.
    #[error("failed to use {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A port cannot be listened on.
    #[error("failed to listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The cgroups of pods cannot be made.
    #[error("failed to make the cgroups of pods")]
    Cgroups(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Metrics cannot be registered.
    #[error("failed to register metrics")]
    Metrics(#[source] prometheus::Error),
    /// The certificates cannot be used.
    #[error("failed to use the serving certificate")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
}
