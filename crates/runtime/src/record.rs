//! What the agent writes down about sandboxes and containers.
//!
//! Replaced by rename and not synced: a crash of the agent loses nothing, and after a crash of the
//! node no sandbox runs, so a lost record is the right one.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use cri::{ContainerConfig, PodSandboxConfig};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// `sandbox.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SandboxRecord {
    pub(crate) config: PodSandboxConfig,
    pub(crate) created_at: Timestamp,
    #[serde(default)]
    pub(crate) ips: Vec<IpAddr>,
    /// Whether it was ever ready: one that was not goes when the agent starts.
    #[serde(default)]
    pub(crate) complete: bool,
    /// Whether it was asked to stop.
    #[serde(default)]
    pub(crate) stopped: bool,
    /// Whether its network was taken back.
    #[serde(default)]
    pub(crate) detached: bool,
}

/// `container.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerRecord {
    pub(crate) config: ContainerConfig,
    pub(crate) created_at: Timestamp,
    pub(crate) image_id: String,
    pub(crate) image_ref: String,
    pub(crate) cgroup: String,
    pub(crate) log_path: String,
    pub(crate) stop_signal: String,
    /// Why it could not be started.
    #[serde(default)]
    pub(crate) start_error: Option<StartError>,
}

/// A start that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartError {
    pub(crate) message: String,
    pub(crate) at: Timestamp,
}

/// Writes a record whole or not at all. Environments hold secrets, so it is the agent's alone.
pub(crate) fn save<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let sibling = path.with_extension("tmp");
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&sibling)?.write_all(&serde_json::to_vec(record)?)?;
    fs::rename(&sibling, path)
}

/// Makes a directory with exactly these rights, whatever the process's mask is.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Reads a record; `None` when there is none, or not a whole one.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
