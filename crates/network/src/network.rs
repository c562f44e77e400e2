//! Connecting sandboxes.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cri::{PodNetwork, PodNetworkError, PodNetworkRequest, SandboxId};
use ipnet::Ipv4Net;
use netlink::nft::{Family, Transaction, table_names};
use netlink::{Connection, Route, VethPeer, netns};

use crate::lease::{HostPort, Lease, Leases, Protocol};
use crate::{NetworkError, host_ports, sysctl};

/// Shape of a node's pod network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Where leases and the record of kernel settings are kept.
    pub state_dir: PathBuf,
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// The network of all pods of the cluster: traffic inside it keeps its source address.
    pub cluster_cidr: Ipv4Net,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
}

impl NetworkConfig {
    /// The default shape, kept below a node's state directory.
    pub fn new(state_dir: &Path, cluster_cidr: Ipv4Net) -> Self {
        Self {
            state_dir: state_dir.join("network"),
            bridge: "ironclad0".to_owned(),
            cluster_cidr,
            mtu: 1500,
        }
    }
}

/// The pod network of this node. Clones share it.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    config: NetworkConfig,
    state: Mutex<State>,
}

struct State {
    leases: Leases,
    ready: Option<Ready>,
}

#[derive(Clone, Copy)]
struct Ready {
    pod_cidr: Ipv4Net,
    bridge: u32,
    gateway: Ipv4Addr,
}

impl Network {
    /// Reads the leases. Nothing in the kernel changes before [`Network::set_pod_cidr`].
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        let leases = Leases::open(&config.state_dir.join("leases"))?;
        let state = Mutex::new(State { leases, ready: None });
        Ok(Self { inner: Arc::new(Inner { config, state }) })
    }

    /// Makes the bridge with the first address of the node's pod CIDR, and the nftables table.
    ///
    /// Repeating it, also after a restart, repairs what is missing. It blocks for some
    /// milliseconds.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_pod_cidr(&self, pod_cidr: Ipv4Net) -> Result<(), NetworkError> {
        let config = &self.inner.config;
        let mut state = self.inner.lock();
        let gateway = Ipv4Addr::from_bits(pod_cidr.network().to_bits() + 1);
        let mut host = Connection::open()?;
        match host.add_bridge(&config.bridge, config.mtu) {
            Err(error) if !error.is_exists() => return Err(error.into()),
            _ => {}
        }
        let bridge = device(&mut host, &config.bridge)?;
        host.add_address(bridge, IpAddr::V4(gateway), pod_cidr.prefix_len())?;
        host.set_up(bridge)?;
        let of_bridge = |name: &str| format!("net/ipv4/conf/{}/{name}", config.bridge);
        let settings = [
            ("net/ipv4/ip_forward".to_owned(), "1"),
            // Pods reach their neighbours through the gateway and must not be told otherwise.
            (of_bridge("send_redirects"), "0"),
            ("net/ipv4/conf/all/send_redirects".to_owned(), "0"),
            // Host ports on the node's loopback address.
            (of_bridge("route_localnet"), "1"),
        ];
        sysctl::set(&config.state_dir.join("sysctls.json"), &settings)?;
        let leases = state.leases.iter();
        host_ports::rebuild(&config.bridge, pod_cidr, config.cluster_cidr, leases)?;
        state.ready = Some(Ready { pod_cidr, bridge, gateway });
        Ok(())
    }

    /// Disconnects every sandbox but these: what a crash between the runtime and us left over.
    ///
    /// # Errors
    /// When the kernel or the record refuses.
    pub fn retain(&self, sandboxes: &[SandboxId]) -> Result<(), NetworkError> {
        let leaked: Vec<String> = {
            let state = self.inner.lock();
            let known = |lease: &&Lease| {
                !sandboxes.iter().any(|sandbox| sandbox.as_str() == lease.sandbox_id)
            };
            state.leases.iter().filter(known).map(|lease| lease.sandbox_id.clone()).collect()
        };
        for sandbox in leaked {
            self.inner.disconnect(&sandbox)?;
        }
        Ok(())
    }
}

#[async_trait]
impl PodNetwork for Network {
    async fn attach(&self, request: &PodNetworkRequest) -> Result<Vec<IpAddr>, PodNetworkError> {
        let (inner, owned) = (Arc::clone(&self.inner), request.clone());
        run_blocking(move || inner.connect(&owned))
            .await
            .map(|address| vec![IpAddr::V4(address)])
            .map_err(|error| failed("setup", request, error))
    }

    async fn detach(&self, request: &PodNetworkRequest) -> Result<(), PodNetworkError> {
        let (inner, id) = (Arc::clone(&self.inner), request.sandbox_id.clone());
        run_blocking(move || inner.disconnect(id.as_str()))
            .await
            .map_err(|error| failed("teardown", request, error))
    }

    fn ready(&self) -> Result<(), String> {
        match self.inner.lock().ready {
            Some(_) => Ok(()),
            None => Err(NetworkError::NoPodCidr.to_string()),
        }
    }
}

/// Removes the bridge, the table and the leases, and puts kernel settings back.
///
/// # Errors
/// When the kernel refuses. What is absent is fine.
pub fn reset(config: &NetworkConfig) -> Result<(), NetworkError> {
    if table_names(Family::Ip)?.iter().any(|name| name == host_ports::TABLE) {
        let mut transaction = Transaction::new(Family::Ip, host_ports::TABLE);
        transaction.delete_table();
        transaction.commit()?;
    }
    sysctl::restore(&config.state_dir.join("sysctls.json"));
    Connection::open()?.delete_link(&config.bridge)?;
    match std::fs::remove_dir_all(&config.state_dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(NetworkError::Record { path: config.state_dir.clone(), source })
        }
        _ => Ok(()),
    }
}

impl Inner {
    fn connect(&self, request: &PodNetworkRequest) -> Result<Ipv4Addr, NetworkError> {
        let id = request.sandbox_id.as_str();
        let (lease, ready) = {
            let mut state = self.lock();
            let ready = state.ready.ok_or(NetworkError::NoPodCidr)?;
            let ports = request.port_mappings.iter().filter_map(host_port).collect();
            (state.leases.acquire(ready.pod_cidr, id, ports)?, ready)
        };
        let namespace = |source| NetworkError::Namespace { path: request.netns.clone(), source };
        let netns = netns::open(&request.netns).map_err(namespace)?;
        self.make_veth(&veth_name(id), &netns, ready)?;
        let sandbox = || configure_sandbox(lease.address, ready.gateway);
        netns::inside(&netns, sandbox).map_err(namespace)??;
        if !lease.host_ports.is_empty() {
            host_ports::open(&lease)?;
        }
        Ok(lease.address)
    }

    fn make_veth(&self, name: &str, netns: &File, ready: Ready) -> Result<(), NetworkError> {
        let mut host = Connection::open()?;
        let peer = VethPeer { name: "eth0", netns: netns.as_fd() };
        match host.add_veth(name, self.config.mtu, &peer) {
            // Left by an attempt that was cut short: begin again.
            Err(error) if error.is_exists() => {
                host.delete_link(name)?;
                host.add_veth(name, self.config.mtu, &peer)?;
            }
            result => result?,
        }
        let index = device(&mut host, name)?;
        host.set_controller(index, ready.bridge)?;
        // Where bridged traffic passes the IP hooks (bridge-nf-call-iptables), a pod that reaches
        // itself through a service is answered through its own port.
        host.set_hairpin(index)?;
        host.set_up(index)?;
        Ok(())
    }

    fn disconnect(&self, sandbox_id: &str) -> Result<(), NetworkError> {
        let lease = self.lock().leases.of(sandbox_id).cloned();
        if let Some(lease) = lease.filter(|lease| !lease.host_ports.is_empty()) {
            host_ports::close(&lease)?;
        }
        Connection::open()?.delete_link(&veth_name(sandbox_id))?;
        self.lock().leases.release(sandbox_id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs inside the sandbox's namespace.
fn configure_sandbox(address: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), NetworkError> {
    let mut sandbox = Connection::open()?;
    let lo = device(&mut sandbox, "lo")?;
    sandbox.set_up(lo)?;
    let eth0 = device(&mut sandbox, "eth0")?;
    sandbox.add_address(eth0, IpAddr::V4(address), 32)?;
    sandbox.set_up(eth0)?;
    let gateway = IpAddr::V4(gateway);
    sandbox.set_route(&Route { destination: (gateway, 32), gateway: None, index: eth0 })?;
    let everything = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    sandbox.set_route(&Route { destination: everything, gateway: Some(gateway), index: eth0 })?;
    Ok(())
}

fn device(connection: &mut Connection, name: &str) -> Result<u32, NetworkError> {
    let link = connection.link(name)?.ok_or_else(|| NetworkError::DeviceGone(name.to_owned()))?;
    Ok(link.index)
}

/// The node's end of a sandbox's veth pair. Device names have at most 15 bytes; ids are random, so
/// eleven characters of one tell it from the few hundred others of a node.
fn veth_name(sandbox_id: &str) -> String {
    let short: String = sandbox_id.chars().filter(char::is_ascii_alphanumeric).take(11).collect();
    format!("veth{short}")
}

fn host_port(mapping: &cri::PortMapping) -> Option<HostPort> {
    if mapping.host_port == 0 {
        return None;
    }
    let protocol = match mapping.protocol {
        cri::Protocol::Tcp => Protocol::Tcp,
        cri::Protocol::Udp => Protocol::Udp,
        cri::Protocol::Sctp => Protocol::Sctp,
    };
    let host_address = mapping.host_ip.parse().ok().filter(|ip: &Ipv4Addr| !ip.is_unspecified());
    let (host_port, port) = (mapping.host_port, mapping.container_port);
    Some(HostPort { host_address, host_port, port, protocol })
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| NetworkError::Task)?
}

fn failed(
    operation: &'static str,
    request: &PodNetworkRequest,
    error: NetworkError,
) -> PodNetworkError {
    let sandbox_id = request.sandbox_id.clone();
    PodNetworkError { operation, sandbox_id, source: Box::new(error) }
}
