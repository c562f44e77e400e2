//! Version 2: one hierarchy.

use std::fs;
use std::io;
use std::path::Path;

use cri::LinuxContainerResources;

use crate::{Counters, Setting, keyed, number};

/// Given to children where the parent has them.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "hugetlb", "memory", "pids"];
/// The kernel's default period, in microseconds.
const CPU_PERIOD: i64 = 100_000;

/// The files to write, in this order. The controller is the part of the name before the dot.
pub(crate) fn settings(resources: &LinuxContainerResources) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut set = |file: &str, value: String| settings.push(("", file.to_owned(), value));
    if resources.memory_limit_in_bytes != 0 {
        set("memory.max", maximum(resources.memory_limit_in_bytes));
    }
    if resources.memory_swap_limit_in_bytes != 0 {
        let (both, memory) =
            (resources.memory_swap_limit_in_bytes, resources.memory_limit_in_bytes);
        // Here swap is limited alone; the request limits the sum.
        set("memory.swap.max", maximum(if both < 0 { both } else { (both - memory).max(0) }));
    }
    if resources.cpu_shares != 0 {
        set("cpu.weight", weight(resources.cpu_shares).to_string());
    }
    if resources.cpu_quota != 0 || resources.cpu_period != 0 {
        let period = if resources.cpu_period == 0 { CPU_PERIOD } else { resources.cpu_period };
        let quota = if resources.cpu_quota == 0 { -1 } else { resources.cpu_quota };
        set("cpu.max", format!("{} {period}", maximum(quota)));
    }
    for (file, value) in
        [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)]
    {
        if !value.is_empty() {
            set(file, value.clone());
        }
    }
    for limit in &resources.hugepage_limits {
        set(&format!("hugetlb.{}.max", limit.page_size), limit.limit.to_string());
    }
    for (file, value) in &resources.unified {
        // A name with a slash would lead to somebody else's cgroup.
        if !file.contains('/') {
            set(file, value.clone());
        }
    }
    settings
}

fn maximum(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Shares 2 to 262144 onto weights 1 to 10000, in a straight line.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// Lets the children of a cgroup's parent have the controllers.
pub(crate) fn delegate(directory: &Path) -> io::Result<()> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    let available = fs::read_to_string(parent.join("cgroup.controllers"))?;
    let control = parent.join("cgroup.subtree_control");
    let given = fs::read_to_string(&control)?;
    for controller in CONTROLLERS {
        let has = |text: &str| text.split_whitespace().any(|word| word == controller);
        if has(&available) && !has(&given) {
            fs::write(&control, format!("+{controller}"))?;
        }
    }
    Ok(())
}

/// What was counted. `read` answers the contents of a file.
pub(crate) fn counters(read: impl Fn(&str, &str) -> Option<String>) -> Option<Counters> {
    let stat = read("", "memory.stat")?;
    let cpu = read("", "cpu.stat").unwrap_or_default();
    Some(Counters {
        cpu_nanoseconds: keyed(&cpu, "usage_usec").saturating_mul(1_000),
        memory_usage: number(read("", "memory.current")).unwrap_or(0),
        memory_inactive_file: keyed(&stat, "inactive_file"),
        memory_rss: keyed(&stat, "anon"),
        memory_limit: number(read("", "memory.max")),
        page_faults: keyed(&stat, "pgfault"),
        major_page_faults: keyed(&stat, "pgmajfault"),
        pids: number(read("", "pids.current")),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check(resources: &LinuxContainerResources, expected: &[&str]) {
        let settings: Vec<String> =
            settings(resources).into_iter().map(|(_, f, v)| format!("{f}={v}")).collect();
        assert_eq!(settings, expected);
    }

    #[test]
    fn limits_become_files() {
        let resources = LinuxContainerResources {
            cpu_quota: 50_000,
            cpu_shares: 1024,
            memory_limit_in_bytes: 1000,
            memory_swap_limit_in_bytes: 1500,
            unified: BTreeMap::from([
                ("memory.high".into(), "900".into()),
                ("../x".into(), "1".into()),
            ]),
            ..LinuxContainerResources::default()
        };
        check(
            &resources,
            &[
                "memory.max=1000",
                "memory.swap.max=500",
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "memory.high=900",
            ],
        );
        let unlimited = LinuxContainerResources {
            cpu_quota: -1,
            memory_limit_in_bytes: -1,
            ..LinuxContainerResources::default()
        };
        check(&unlimited, &["memory.max=max", "cpu.max=max 100000"]);
        check(&LinuxContainerResources::default(), &[]);
    }

    #[test]
    fn weights_cover_the_whole_range() {
        assert_eq!((weight(2), weight(262_144), weight(0)), (1, 10_000, 1));
    }

    #[test]
    fn controllers_are_given_to_children_once() {
        let dir = tempfile::tempdir().unwrap();
        let child = dir.path().join("a");
        fs::create_dir(&child).unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory io\n").unwrap();
        fs::write(dir.path().join("cgroup.subtree_control"), "cpu\n").unwrap();
        delegate(&child).unwrap();
        let written = fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(written, "+memory");
    }
}
