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
    let mut processes = 1;
    let directory = data_dir.display().to_string();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if other != pid && line.contains("\0shim\0") && line.contains(&directory) {
            // It may have ended since it was listed.
            bytes += resident_of(other).unwrap_or(0);
            processes += 1;
        }
    }
    Ok((bytes, processes))
}

/// Resident bytes of one process.
pub(crate) fn resident_of(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
