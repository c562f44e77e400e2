//! Store and API server of this process.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use apiserver::{ApiServer, Handle, StartError};
use clock::{Clock, SharedClock};
use setup::{Pki, ServingNames};
use stdx::shutdown::Shutdown;

/// The cluster's shape, as far as the control plane needs it.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the API is served.
    pub bind: Vec<SocketAddr>,
    /// The address others reach the API at.
    pub advertise_address: IpAddr,
    /// Range of cluster addresses.
    pub service_cidr: ipnet::Ipv4Net,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// This host's name.
    pub node_name: String,
}

/// What is running.
pub(crate) struct Running {
    /// A way into the server.
    pub handle: Handle,
    /// Its task, which ends after shutdown.
    pub task: tokio::task::JoinHandle<Option<()>>,
}

impl ControlPlane {
    /// Keys and certificates, made where they are absent.
    pub(crate) fn pki(&self, clock: &dyn Clock) -> anyhow::Result<Pki> {
        Ok(Pki::open(&self.data_dir.join("pki"), clock.now())?)
    }

    /// The server's part of them.
    pub(crate) fn server_pki(&self, pki: &Pki) -> anyhow::Result<apiserver::Pki> {
        let mut addresses = vec![self.advertise_address, IpAddr::from([127, 0, 0, 1])];
        addresses.extend(self.bind.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()));
        addresses.push(first_address(self.service_cidr).into());
        let serving = pki.api_server(&ServingNames {
            cluster_domain: self.cluster_domain.clone(),
            node_name: self.node_name.clone(),
            addresses,
        })?;
        let kubelet_client = pki.api_server_kubelet_client()?;
        let proxy_client = pki.front_proxy_client()?;
        let (token_key, token_public) = pki.token_keys()?;
        Ok(apiserver::Pki {
            serving_certificate: serving.certificate.into_bytes(),
            serving_key: serving.key.into_bytes(),
            client_ca: pki.authority().as_bytes().to_vec(),
            service_account_key: token_key.into_bytes(),
            service_account_public_keys: vec![token_public.into_bytes()],
            kubelet_client_certificate: kubelet_client.certificate.into_bytes(),
            kubelet_client_key: kubelet_client.key.into_bytes(),
            kubelet_ca: pki.authority().as_bytes().to_vec(),
            proxy_client_certificate: proxy_client.certificate.into_bytes(),
            proxy_client_key: proxy_client.key.into_bytes(),
            front_proxy_ca: pki.front_proxy_authority().as_bytes().to_vec(),
        })
    }

    /// Opens the store; the second process on a data directory is refused here.
    pub(crate) fn open_store(
        &self,
        clock: &SharedClock,
        metrics: &telemetry::Registry,
    ) -> anyhow::Result<Arc<dyn store::Store>> {
        let directory = self.data_dir.join("store");
        let options = store::Options::default();
        let opened = store::LogStore::open(&directory, &options, Arc::clone(clock), metrics);
        match opened {
            Ok(store) => Ok(Arc::new(store)),
            Err(store::OpenError::InUse { holder, .. }) => {
                let holder = holder.map(|pid| format!(" (process {pid})")).unwrap_or_default();
                anyhow::bail!(
                    "{} is in use by another ironclad{holder}; stop it, or choose another \
                     directory with --data-dir",
                    self.data_dir.display()
                );
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Configuration of the API server.
    pub(crate) fn config(&self, pki: apiserver::Pki) -> apiserver::Config {
        let mut config = apiserver::Config::new(self.bind.clone(), self.advertise_address, pki);
        let range = self.service_cidr;
        config.service_cluster_ip_range = (range.network().into(), range.prefix_len());
        config.issuer = format!("https://kubernetes.default.svc.{}", self.cluster_domain);
        config
    }
}

/// Starts the server.
pub(crate) async fn start(
    config: apiserver::Config,
    store: Arc<dyn store::Store>,
    clock: &SharedClock,
    metrics: &telemetry::Registry,
    shutdown: &Shutdown,
) -> anyhow::Result<Running> {
    let deps = apiserver::Deps { store, clock: Arc::clone(clock), metrics: metrics.clone() };
    match ApiServer::start(config, deps, shutdown.clone()).await {
        Ok((handle, task)) => Ok(Running { handle, task }),
        Err(StartError::AddressInUse { address }) => anyhow::bail!(
            "port {} is already in use on {}; stop what uses it, or choose another with \
             --secure-port",
            address.port(),
            address.ip()
        ),
        Err(error) => Err(anyhow::Error::new(error).context("the API server cannot start")),
    }
}

/// The first address of a range: the API server's own service.
pub(crate) fn first_address(range: ipnet::Ipv4Net) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from_bits(range.network().to_bits() + 1)
}

/// The tenth address of a range: cluster DNS, by kubeadm's convention.
pub(crate) fn dns_address(range: ipnet::Ipv4Net) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from_bits(range.network().to_bits() + 10)
}

/// Makes a directory that only we read.
pub(crate) fn private_directory(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make directory {}", path.display()))
}
