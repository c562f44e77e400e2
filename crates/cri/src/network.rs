//! How a runtime gets a sandbox onto the pod network.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::{PortMapping, SandboxId};

/// The sandbox that is to be connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodNetworkRequest {
    /// The sandbox, by which a repeated or later call is recognised.
    pub sandbox_id: SandboxId,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// A path by which the network namespace can be opened.
    pub netns: PathBuf,
    /// Ports of the node that lead to the pod.
    pub port_mappings: Vec<PortMapping>,
    /// The pod's annotations, where bandwidth limits are found.
    pub annotations: BTreeMap<String, String>,
}

/// Why a sandbox could not be connected or disconnected.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation} network for sandbox \"{sandbox_id}\"")]
pub struct PodNetworkError {
    /// `setup` or `teardown`.
    pub operation: &'static str,
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// What went wrong.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Connects sandboxes to the pod network.
///
/// Both calls are idempotent per sandbox, and may be repeated after a crash of the agent.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Gives the sandbox its interfaces, loopback too, and answers its addresses, primary first.
    ///
    /// When it fails or is dropped, the runtime calls `detach`.
    async fn attach(&self, request: &PodNetworkRequest) -> Result<Vec<IpAddr>, PodNetworkError>;

    /// Takes back what `attach` gave. The namespace may be gone already, and `attach` may never
    /// have been called: both succeed.
    async fn detach(&self, request: &PodNetworkRequest) -> Result<(), PodNetworkError>;

    /// Whether sandboxes can be connected now; `Err` says why not, for the node's `Ready`
    /// condition.
    fn ready(&self) -> Result<(), String>;
}
