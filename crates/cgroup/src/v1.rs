//! Version 1: a hierarchy per controller.

use std::fs;
use std::io;
use std::path::Path;

use cri::LinuxContainerResources;

use crate::{Counters, Setting, keyed, number};

/// The controllers that containers join. Joining one costs the kernel a grace period at worst, so
/// those that limit and count nothing for Kubernetes are left alone.
pub(crate) const CONTROLLERS: [&str; 7] =
    ["cpu", "cpuacct", "cpuset", "devices", "hugetlb", "memory", "pids"];

/// The kernel's way to say that memory has no limit, a page less than the largest number.
const UNLIMITED: u64 = 0x7FFF_FFFF_FFFF_F000;

/// The files to write, in this order.
pub(crate) fn settings(resources: &LinuxContainerResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |controller, file: &str, value: i64| {
        if value != 0 {
            settings.push((controller, file.to_owned(), value.to_string()));
        }
    };
    set("memory", "memory.limit_in_bytes", resources.memory_limit_in_bytes);
    set("memory", "memory.memsw.limit_in_bytes", resources.memory_swap_limit_in_bytes);
    set("cpu", "cpu.shares", resources.cpu_shares);
    set("cpu", "cpu.cfs_period_us", resources.cpu_period);
    set("cpu", "cpu.cfs_quota_us", resources.cpu_quota);
    for (file, value) in
        [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)]
    {
        if !value.is_empty() {
            settings.push(("cpuset", file.to_owned(), value.clone()));
        }
    }
    for limit in &resources.hugepage_limits {
        let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size);
        settings.push(("hugetlb", file, limit.limit.to_string()));
    }
    settings
}

/// The files to write for the rules of devices.
pub(crate) fn device_settings(rules: &[String]) -> Vec<(&'static str, &str)> {
    let allowed = rules.iter().map(|rule| ("devices.allow", rule.as_str()));
    std::iter::once(("devices.deny", "a")).chain(allowed).collect()
}

/// A new cpuset holds nothing, and nobody can join it until it does.
pub(crate) fn inherit_cpuset(directory: &Path) -> io::Result<()> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(directory.join(file))?.trim().is_empty() {
            fs::write(directory.join(file), fs::read_to_string(parent.join(file))?.trim())?;
        }
    }
    Ok(())
}

/// What was counted. `read` answers the contents of a controller's file.
pub(crate) fn counters(read: impl Fn(&str, &str) -> Option<String>) -> Option<Counters> {
    let stat = read("memory", "memory.stat")?;
    let limit = number(read("memory", "memory.limit_in_bytes"));
    Some(Counters {
        cpu_nanoseconds: number(read("cpuacct", "cpuacct.usage")).unwrap_or(0),
        memory_usage: number(read("memory", "memory.usage_in_bytes")).unwrap_or(0),
        memory_inactive_file: keyed(&stat, "total_inactive_file"),
        memory_rss: keyed(&stat, "total_rss"),
        memory_limit: limit.filter(|limit| *limit < UNLIMITED),
        page_faults: keyed(&stat, "total_pgfault"),
        major_page_faults: keyed(&stat, "total_pgmajfault"),
        pids: number(read("pids", "pids.current")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files_of_their_controllers() {
        let resources = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 512,
            memory_limit_in_bytes: 1 << 20,
            cpuset_cpus: "0-1".into(),
            ..LinuxContainerResources::default()
        };
        let settings: Vec<String> =
            settings(&resources).into_iter().map(|(c, f, v)| format!("{c}/{f}={v}")).collect();
        assert_eq!(
            settings,
            [
                "memory/memory.limit_in_bytes=1048576",
                "cpu/cpu.shares=512",
                "cpu/cpu.cfs_period_us=100000",
                "cpu/cpu.cfs_quota_us=50000",
                "cpuset/cpuset.cpus=0-1",
            ]
        );
    }

    #[test]
    fn devices_are_denied_before_some_are_allowed() {
        let rules = ["c 10:200 rw".to_owned()];
        let settings = device_settings(&rules);
        assert_eq!(settings, [("devices.deny", "a"), ("devices.allow", "c 10:200 rw")]);
    }

    #[test]
    fn memory_without_a_limit_has_none() {
        let read = |_: &str, file: &str| {
            Some(match file {
                "memory.stat" => "cache 1\ntotal_rss 7\ntotal_inactive_file 9\n".to_owned(),
                "memory.limit_in_bytes" => "9223372036854771712\n".to_owned(),
                _ => "5\n".to_owned(),
            })
        };
        let counters = counters(read).unwrap();
        assert_eq!((counters.memory_limit, counters.memory_rss), (None, 7));
        assert_eq!((counters.memory_inactive_file, counters.pids), (9, Some(5)));
    }
}
