//! What the server is started with.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// PEM bytes of every key and certificate the server uses.
#[derive(Clone, Default)]
pub struct Pki {
    /// Serving certificate chain.
    pub serving_certificate: Vec<u8>,
    /// Key of the serving certificate.
    pub serving_key: Vec<u8>,
    /// Authorities whose client certificates are accepted.
    pub client_ca: Vec<u8>,
    /// Key that signs service account tokens.
    pub service_account_key: Vec<u8>,
    /// Further public keys whose tokens are accepted.
    pub service_account_public_keys: Vec<Vec<u8>>,
    /// Certificate with which kubelets are called; empty when they are not.
    pub kubelet_client_certificate: Vec<u8>,
    /// Its key.
    pub kubelet_client_key: Vec<u8>,
    /// Authorities that kubelets' serving certificates must come from. When empty they are not
    /// verified, as upstream does without `--kubelet-certificate-authority`.
    pub kubelet_ca: Vec<u8>,
    /// Certificate with which aggregated servers are called; empty when none is shown to them.
    pub proxy_client_certificate: Vec<u8>,
    /// Its key.
    pub proxy_client_key: Vec<u8>,
    /// Authorities of that certificate, for aggregated servers to verify it by. Who has one of
    /// theirs, and an allowed name, may say in headers who asks.
    pub front_proxy_ca: Vec<u8>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys do not belong into logs.
        f.write_str("Pki { .. }")
    }
}

/// How the server behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub bind: Vec<SocketAddr>,
    /// The address others reach the server at, for the `kubernetes` endpoints.
    pub advertise_address: IpAddr,
    /// Range of cluster IPs: address and prefix length.
    pub service_cluster_ip_range: (IpAddr, u8),
    /// Keys and certificates.
    pub pki: Pki,
    /// `iss` of service account tokens, and the audience of the server itself.
    pub issuer: String,
    /// File of static tokens.
    pub token_auth_file: Option<PathBuf>,
    /// Whether those who are about to join may show bootstrap tokens.
    pub enable_bootstrap_token_auth: bool,
    /// The headers in which front proxies say who asks.
    pub request_header: authn::RequestHeader,
    /// Authorizers in order.
    pub authorization_mode: Vec<authz::Mode>,
    /// Whether requests without credentials get as far as authorization.
    pub anonymous: authn::Anonymous,
    /// Reads that are worked on at once. With priority and fairness this and the next one count
    /// together.
    pub max_requests_inflight: u32,
    /// Writes that are worked on at once.
    pub max_mutating_requests_inflight: u32,
    /// Objects that the deletion of a collection works on at once, at least 1.
    pub delete_collection_workers: usize,
    /// Whether requests are told apart by priority levels and flows when there are too many.
    pub enable_priority_and_fairness: bool,
    /// How long a client may take to send a request.
    pub request_timeout: Duration,
    /// How long it may take to send the head of one.
    pub header_timeout: Duration,
    /// Connections at once.
    pub max_connections: usize,
    /// Whether `/debug/pprof` is served to those who may read it.
    pub profiling: bool,
    /// Which requests are recorded, and where to.
    pub audit: audit::Sinks,
    /// Feature gates.
    pub features: features::Features,
}

impl Config {
    /// A configuration with upstream's defaults.
    pub fn new(bind: Vec<SocketAddr>, advertise_address: IpAddr, pki: Pki) -> Self {
        Self {
            bind,
            advertise_address,
            service_cluster_ip_range: (IpAddr::from([10, 96, 0, 0]), 16),
            pki,
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            token_auth_file: None,
            // Upstream's default.
            enable_bootstrap_token_auth: false,
            // What kubeadm configures.
            request_header: authn::RequestHeader::standard(&["front-proxy-client"]),
            authorization_mode: vec![authz::Mode::Node, authz::Mode::Rbac],
            anonymous: authn::Anonymous::Allowed,
            // Upstream's defaults.
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            // Upstream's is 1. Deletions under way together share a commit, and nobody can tell.
            delete_collection_workers: 32,
            enable_priority_and_fairness: true,
            request_timeout: Duration::from_secs(60),
            header_timeout: Duration::from_secs(32),
            max_connections: 10_000,
            // Upstream's default.
            profiling: true,
            audit: audit::Sinks::default(),
            features: features::Features::default(),
        }
    }
}

/// What the server needs from the process.
pub struct Deps {
    /// Where objects are kept.
    pub store: Arc<dyn store::Store>,
    /// Time.
    pub clock: clock::SharedClock,
    /// Where metrics are registered and served from.
    pub metrics: telemetry::Registry,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken.
    #[error("address {address} is already in use")]
    AddressInUse {
        /// Where.
        address: SocketAddr,
    },
    /// The address cannot be bound for another reason.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key is not usable.
    #[error("the {what} is not usable")]
    Pki {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The token file is not usable.
    #[error("the token file is not usable")]
    TokenFile(#[from] authn::TokenFileError),
    /// What is to be recorded cannot be.
    #[error("audit cannot begin")]
    Audit(#[from] audit::StartError),
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[from] store::StoreError),
    /// A bootstrap object cannot be written.
    #[error("a bootstrap object cannot be written: {0}")]
    Bootstrap(Box<meta::Status>),
}
