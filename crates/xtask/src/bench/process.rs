//! What a process has used.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// Ticks per second of the kernel's accounting on every architecture that Linux has today.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of a process, its ended children not counted.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name may contain spaces; what follows its parenthesis does not.
    let fields = stat.rsplit_once(") ").context("fields after the name")?.1;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks =
        || -> anyhow::Result<u64> { Ok(fields.next().context("user and system time")?.parse()?) };
    Ok(Duration::from_millis((ticks()? + ticks()?) * 1000 / TICKS_PER_SECOND))
}

/// Resident bytes of the server and of the shims of its pods, and how many processes they are.
pub(crate) fn resident(pid: u32, data_dir: &Path) -> anyhow::Result<(u64, usize)> {
    let mut bytes = resident_of(pid)?;
    let shims = shims(data_dir)?;
    for shim in &shims {
        // It may have ended since it was listed.
        bytes += resident_of(*shim).unwrap_or(0);
    }
    Ok((bytes, 1 + shims.len()))
}

/// Bytes of the server and of the shims of its pods, where a page that several have counts once.
/// Shims are the server's program, whose pages they share.
pub(crate) fn proportional(pid: u32, data_dir: &Path) -> anyhow::Result<u64> {
    let shims = shims(data_dir)?;
    let sum = proportional_of(pid)?;
    Ok(shims.into_iter().fold(sum, |sum, shim| sum + proportional_of(shim).unwrap_or(0)))
}

fn proportional_of(pid: u32) -> anyhow::Result<u64> {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// CPU time of the server and of the shims of its pods.
pub(crate) fn cpu_of_all(pid: u32, data_dir: &Path) -> anyhow::Result<Duration> {
    let shims = shims(data_dir)?;
    shims.into_iter().try_fold(cpu(pid)?, |sum, shim| Ok(sum + cpu(shim).unwrap_or_default()))
}

/// The shims of the pods of a data directory.
fn shims(data_dir: &Path) -> anyhow::Result<Vec<u32>> {
    let directory = data_dir.display().to_string();
    let mut shims = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains("\0shim\0") && line.contains(&directory) {
            shims.push(pid);
        }
    }
    Ok(shims)
}

/// Resident bytes of one process.
pub(crate) fn resident_of(pid: u32) -> anyhow::Result<u64> {
    kilobytes(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// The bytes that a line of a file of the kernel tells.
fn kilobytes(path: &str, field: &'static str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).context(field)?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
