//! What containers use.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{ContainerId, ContainerMetadata, FilesystemUsage};

/// CPU time used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// Nanoseconds of all cores since the container started.
    pub usage_core_nano_seconds: u64,
}

/// Memory used, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// What cannot be reclaimed easily: usage less inactive file pages.
    pub working_set_bytes: u64,
    /// What is left until the limit; `None` without a limit.
    pub available_bytes: Option<u64>,
    /// Everything, caches too.
    pub usage_bytes: u64,
    /// Anonymous memory and swap cache.
    pub rss_bytes: u64,
    /// Minor page faults.
    pub page_faults: u64,
    /// Major page faults.
    pub major_page_faults: u64,
}

/// What one container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStats {
    /// The container.
    pub id: ContainerId,
    /// Which container of the pod.
    pub metadata: ContainerMetadata,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given.
    pub annotations: BTreeMap<String, String>,
    /// CPU; `None` when it is not running.
    pub cpu: Option<CpuUsage>,
    /// Memory; `None` when it is not running.
    pub memory: Option<MemoryUsage>,
    /// Its writable layer.
    pub writable_layer: Option<FilesystemUsage>,
    /// Processes in it.
    pub pids: Option<u64>,
}
