//! Pod sandboxes: what a pod's containers share.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{LinuxContainerResources, LinuxSandboxSecurityContext, NamespaceOption, SandboxId};

/// Which pod, and which attempt at its sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodSandboxMetadata {
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// How often a sandbox was made for this pod before.
    pub attempt: u32,
}

/// What goes into `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the node that leads to a port of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The protocol.
    pub protocol: Protocol,
    /// The port in the pod.
    pub container_port: u16,
    /// The port on the node.
    pub host_port: u16,
    /// The node's address to listen on; empty means all.
    pub host_ip: String,
}

/// The Linux part of a sandbox's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxPodSandboxConfig {
    /// The pod's cgroup, below which the runtime makes those of its containers.
    pub cgroup_parent: String,
    /// The sandbox's security context.
    pub security_context: LinuxSandboxSecurityContext,
    /// Kernel parameters of the pod's namespaces, by their dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// What the pod's own overhead is allowed to use.
    pub overhead: Option<LinuxContainerResources>,
    /// The sum of the containers' resources.
    pub resources: Option<LinuxContainerResources>,
}

/// What a sandbox is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxConfig {
    /// Which pod.
    pub metadata: PodSandboxMetadata,
    /// The pod's hostname; empty on the node's network.
    pub hostname: String,
    /// Where the containers' logs go.
    pub log_directory: String,
    /// The pod's resolver; `None` means the node's.
    pub dns_config: Option<DnsConfig>,
    /// Ports of the node.
    pub port_mappings: Vec<PortMapping>,
    /// Labels, answered as they were given.
    pub labels: BTreeMap<String, String>,
    /// Annotations, answered as they were given.
    pub annotations: BTreeMap<String, String>,
    /// The Linux part.
    pub linux: LinuxPodSandboxConfig,
    /// The runtime handler; empty means the default.
    #[serde(default)]
    pub runtime_handler: String,
}

/// Whether the sandbox can hold running containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PodSandboxState {
    /// Its namespaces exist.
    #[default]
    Ready,
    /// It was stopped, or its namespaces are gone; it can only be removed.
    NotReady,
}

/// A sandbox in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSandbox {
    /// The identifier.
    pub id: SandboxId,
    /// Which pod.
    pub metadata: PodSandboxMetadata,
    /// The state.
    pub state: PodSandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given.
    pub annotations: BTreeMap<String, String>,
    /// The runtime handler; empty means the default.
    pub runtime_handler: String,
}

/// The status of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSandboxStatus {
    /// The identifier.
    pub id: SandboxId,
    /// Which pod.
    pub metadata: PodSandboxMetadata,
    /// The state.
    pub state: PodSandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// The pod's addresses, the primary one first; empty on the node's network.
    pub ips: Vec<IpAddr>,
    /// The namespaces.
    pub namespace_options: NamespaceOption,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given.
    pub annotations: BTreeMap<String, String>,
    /// The runtime handler; empty means the default.
    pub runtime_handler: String,
}

/// Which sandboxes to list; every given field must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSandboxFilter {
    /// This one.
    pub id: Option<SandboxId>,
    /// In this state.
    pub state: Option<PodSandboxState>,
    /// With all of these labels.
    pub label_selector: BTreeMap<String, String>,
}

impl PodSandboxFilter {
    /// Whether `sandbox` is selected.
    pub fn matches(&self, sandbox: &PodSandbox) -> bool {
        self.id.as_ref().is_none_or(|id| *id == sandbox.id)
            && self.state.is_none_or(|state| state == sandbox.state)
            && self.label_selector.iter().all(|(key, value)| sandbox.labels.get(key) == Some(value))
    }
}
