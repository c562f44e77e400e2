//! Well-known taints and their effects.

/// The node is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The node does not answer.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The node is cordoned.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The node is short of memory.
pub const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
/// The node is short of disk.
pub const DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";
/// The node is short of process ids.
pub const PID_PRESSURE: &str = "node.kubernetes.io/pid-pressure";
/// The node is off, and nothing of it runs any more: somebody said so.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The node has no network.
pub const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";

/// New pods are not scheduled.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// New pods are scheduled elsewhere if possible.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// Running pods are evicted.
pub const NO_EXECUTE: &str = "NoExecute";
