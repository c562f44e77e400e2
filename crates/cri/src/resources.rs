//! Limits of a container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A limit on huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepageLimit {
    /// As the cgroup file has it, for example `2MB`.
    pub page_size: String,
    /// In bytes.
    pub limit: u64,
}

/// Limits of a container; zero and empty mean not given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxContainerResources {
    /// Length of a CPU period in microseconds.
    pub cpu_period: i64,
    /// CPU time per period in microseconds; −1 means no limit.
    pub cpu_quota: i64,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: i64,
    /// Memory in bytes.
    pub memory_limit_in_bytes: i64,
    /// The adjustment of the out-of-memory score, −1000 to 1000.
    pub oom_score_adj: i64,
    /// The CPUs it may run on, for example `0-1,3`.
    pub cpuset_cpus: String,
    /// The memory nodes it may use.
    pub cpuset_mems: String,
    /// Limits on huge pages.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Files of cgroup v2 and their contents.
    pub unified: BTreeMap<String, String>,
    /// Memory and swap together, in bytes.
    pub memory_swap_limit_in_bytes: i64,
}
