//! `ironclad apiserver`: the API server alone, with its store embedded.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clock::{SharedClock, SystemClock};
use stdx::shutdown::Shutdown;

use crate::command::auditing::Auditing;
use crate::command::gates::{Gates, Versions};
use crate::control_plane::{self, ControlPlane};
use crate::{node_address, output, supervisor};

/// Arguments: upstream's names and meanings, and the data directory.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Where the store and, unless given, keys and certificates are kept.
    #[arg(long, default_value = "/var/lib/ironclad")]
    data_dir: PathBuf,
    /// The address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// The port to listen on.
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// The address others reach this server at; default: the host's.
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    /// Range of cluster addresses of services.
    #[arg(long, default_value = "10.43.0.0/16")]
    service_cluster_ip_range: ipnet::Ipv4Net,
    /// The cluster's domain, part of the issuer's name.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// Authorizers in order: Node, RBAC, AlwaysAllow, AlwaysDeny.
    #[arg(long, value_delimiter = ',', default_value = "Node,RBAC")]
    authorization_mode: Vec<String>,
    /// Whether requests without credentials are system:anonymous instead of refused.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    anonymous_auth: bool,
    /// File of static tokens: token,user,uid,"group1,group2".
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    /// Whether those who are about to join the cluster may show tokens of Secrets in kube-system.
    #[arg(long)]
    enable_bootstrap_token_auth: bool,
    /// Issuer of service account tokens.
    #[arg(long)]
    service_account_issuer: Option<String>,
    /// Certificate to serve with.
    #[arg(long, requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Authorities whose client certificates are accepted.
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// Key that signs service account tokens.
    #[arg(long)]
    service_account_signing_key_file: Option<PathBuf>,
    /// Further keys whose service account tokens are accepted.
    #[arg(long)]
    service_account_key_file: Vec<PathBuf>,
    /// Authorities that kubelets' serving certificates must come from; default: not verified.
    #[arg(long)]
    kubelet_certificate_authority: Option<PathBuf>,
    /// Certificate with which aggregated servers are called.
    #[arg(long, requires = "proxy_client_key_file", requires = "requestheader_client_ca_file")]
    proxy_client_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "proxy_client_cert_file")]
    proxy_client_key_file: Option<PathBuf>,
    /// Authorities of that certificate, for aggregated servers to verify it by. Who has one of
    /// theirs may say in headers who asks.
    #[arg(long)]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of certificates that may say who asks; default: any, and front-proxy-client
    /// alone without --requestheader-client-ca-file.
    #[arg(long, value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-User")]
    requestheader_username_headers: Vec<String>,
    /// Headers with the user's uid.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Uid")]
    requestheader_uid_headers: Vec<String>,
    /// Headers with the user's groups.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Group")]
    requestheader_group_headers: Vec<String>,
    /// What headers begin with that tell more of the user.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Extra-")]
    requestheader_extra_headers_prefix: Vec<String>,
    /// Reads worked on at once; with priority and fairness, a part of the seats of all.
    #[arg(long, default_value_t = 400)]
    max_requests_inflight: u32,
    /// Writes worked on at once; with priority and fairness, the other part.
    #[arg(long, default_value_t = 200)]
    max_mutating_requests_inflight: u32,
    /// Objects that the deletion of a collection works on at once.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    delete_collection_workers: u16,
    /// How long a client may take to send a request, such as 1m0s.
    #[arg(long, default_value = "1m0s", value_parser = super::duration)]
    request_timeout: Duration,
    /// Whether flow schemas and priority levels decide when there are too many requests.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    enable_priority_and_fairness: bool,
    /// Whether profiles are served under /debug/pprof.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    profiling: bool,
    /// Servers of an external etcd.
    #[arg(long)]
    etcd_servers: Option<String>,
    /// Where to write an administrator's kubeconfig.
    #[arg(long)]
    write_kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    auditing: Auditing,
    #[command(flatten)]
    gates: Gates,
    #[command(flatten)]
    versions: Versions,
}

/// Runs it until it is told to stop.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.etcd_servers.is_none(),
        "--etcd-servers: an external etcd is not supported; the embedded store in --data-dir is used"
    );
    let audit = args.auditing.read()?;
    let features = args.gates.read()?;
    args.versions.apply(&features)?;
    let clock: SharedClock = Arc::new(SystemClock);
    let advertise_address = match args.advertise_address {
        Some(address) => address,
        None if !args.bind_address.is_unspecified() => args.bind_address,
        None => node_address::choose()?.into(),
    };
    let plane = ControlPlane {
        data_dir: args.data_dir.clone(),
        bind: vec![SocketAddr::new(args.bind_address, args.secure_port)],
        advertise_address,
        service_cidr: args.service_cluster_ip_range,
        cluster_domain: args.cluster_domain.clone(),
        node_name: node_address::host_name(),
    };
    control_plane::private_directory(&args.data_dir)?;
    let shutdown = Shutdown::new();
    supervisor::stop_on_signals(&shutdown)?;
    let metrics = telemetry::Registry::new();
    let store = plane.open_store(&clock, &metrics)?;
    let pki = plane.pki(&*clock)?;
    let config = ::apiserver::Config { features, audit, ..configure(&args, &plane, &pki)? };
    let running = control_plane::start(config, store, &clock, &metrics, &shutdown).await?;
    let host =
        if args.bind_address.is_unspecified() { advertise_address } else { args.bind_address };
    let port = running.handle.addresses().first().map_or(args.secure_port, SocketAddr::port);
    let server = format!("https://{}", SocketAddr::new(host, port));
    if let Some(path) = &args.write_kubeconfig {
        let client = pki.client("kubernetes-admin", Some("system:masters"))?;
        let access = setup::kubeconfig::Access {
            server: &server,
            authority: pki.authority(),
            client: &client,
        };
        setup::kubeconfig::write(path, "ironclad", &access)?;
    }
    output::line(&format!("serving {server}"));
    running.task.await?;
    Ok(())
}

fn request_header(args: &Args) -> anyhow::Result<authn::RequestHeader> {
    let mut allowed_names = args.requestheader_allowed_names.clone();
    if allowed_names.is_empty() && args.requestheader_client_ca_file.is_none() {
        allowed_names = authn::RequestHeader::standard(&["front-proxy-client"]).allowed_names;
    }
    let header = authn::RequestHeader {
        username_headers: args.requestheader_username_headers.clone(),
        uid_headers: args.requestheader_uid_headers.clone(),
        group_headers: args.requestheader_group_headers.clone(),
        extra_headers_prefixes: args.requestheader_extra_headers_prefix.clone(),
        allowed_names,
    };
    header.check()?;
    Ok(header)
}

fn configure(
    args: &Args,
    plane: &ControlPlane,
    pki: &setup::Pki,
) -> anyhow::Result<::apiserver::Config> {
    let read = |path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut keys = plane.server_pki(pki)?;
    if let (Some(certificate), Some(key)) = (&args.tls_cert_file, &args.tls_private_key_file) {
        keys.serving_certificate = read(certificate)?;
        keys.serving_key = read(key)?;
    }
    if let Some(path) = &args.client_ca_file {
        keys.client_ca = read(path)?;
    }
    // Upstream's default: a kubelet that was given no certificate has one that nobody knows.
    keys.kubelet_ca =
        args.kubelet_certificate_authority.as_ref().map(read).transpose()?.unwrap_or_default();
    if let (Some(certificate), Some(key)) =
        (&args.proxy_client_cert_file, &args.proxy_client_key_file)
    {
        keys.proxy_client_certificate = read(certificate)?;
        keys.proxy_client_key = read(key)?;
    }
    if let Some(path) = &args.requestheader_client_ca_file {
        keys.front_proxy_ca = read(path)?;
    }
    if let Some(path) = &args.service_account_signing_key_file {
        keys.service_account_key = read(path)?;
    }
    if !args.service_account_key_file.is_empty() {
        let read_all: anyhow::Result<_> = args.service_account_key_file.iter().map(read).collect();
        keys.service_account_public_keys = read_all?;
    }
    let mut config = plane.config(keys);
    config.token_auth_file.clone_from(&args.token_auth_file);
    config.enable_bootstrap_token_auth = args.enable_bootstrap_token_auth;
    config.request_header = request_header(args)?;
    config.max_requests_inflight = args.max_requests_inflight;
    config.max_mutating_requests_inflight = args.max_mutating_requests_inflight;
    config.delete_collection_workers = args.delete_collection_workers.into();
    config.request_timeout = args.request_timeout;
    config.enable_priority_and_fairness = args.enable_priority_and_fairness;
    config.profiling = args.profiling;
    if let Some(issuer) = &args.service_account_issuer {
        config.issuer.clone_from(issuer);
    }
    if !args.anonymous_auth {
        config.anonymous = authn::Anonymous::Refused;
    }
    config.authorization_mode = args
        .authorization_mode
        .iter()
        .map(|word| {
            authz::Mode::parse(word)
                .with_context(|| format!("--authorization-mode: {word:?} is not a valid mode"))
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(config)
}
