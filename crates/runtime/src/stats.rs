//! What containers use.

use cri::{ContainerState, ContainerStats, CpuUsage, FilesystemUsage, MemoryUsage};

use crate::container::Container;
use crate::runtime::Inner;

/// What one container uses now. Walks its writable layer, so it belongs on a thread that may wait.
pub(crate) fn of(inner: &Inner, container: &Container) -> ContainerStats {
    let record = container.record();
    let now = inner.deps.clock.now();
    let running = container.status().state == ContainerState::Running;
    let counters = running.then(|| inner.cgroups.counters(&record.cgroup)).flatten();
    let mut stats = ContainerStats {
        id: container.id.clone(),
        metadata: record.config.metadata.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        cpu: None,
        memory: None,
        writable_layer: image::measure(&container.directory.join("upper")).ok().map(|usage| {
            FilesystemUsage {
                timestamp: now,
                mountpoint: inner.config.root_dir.clone(),
                used_bytes: usage.bytes,
                inodes_used: usage.inodes,
            }
        }),
        pids: None,
    };
    let Some(counters) = counters else { return stats };
    let working_set = counters.memory_usage.saturating_sub(counters.memory_inactive_file);
    stats.cpu =
        Some(CpuUsage { timestamp: now, usage_core_nano_seconds: counters.cpu_nanoseconds });
    stats.memory = Some(MemoryUsage {
        timestamp: now,
        working_set_bytes: working_set,
        available_bytes: counters.memory_limit.map(|limit| limit.saturating_sub(working_set)),
        usage_bytes: counters.memory_usage,
        rss_bytes: counters.memory_rss,
        page_faults: counters.page_faults,
        major_page_faults: counters.major_page_faults,
    });
    stats.pids = counters.pids;
    stats
}
