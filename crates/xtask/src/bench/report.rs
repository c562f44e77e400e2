//! `docs/performance.md`

use std::fmt::Write;

use anyhow::Context;
use clock::{Clock, SystemClock};

use super::Figure;
use crate::run::{say, workspace};

/// Writes the report, with the machine and the date.
pub(crate) fn write(figures: &[Figure]) -> anyhow::Result<()> {
    let date = SystemClock.now().strftime("%Y-%m-%d").to_string();
    let mut text = String::from(
        "# Performance\n\n\
         Written by `cargo xtask bench`; the figures of one run belong together.\n\n",
    );
    writeln!(text, "Machine: {}. Date: {date}.\n", machine()?)?;
    text.push_str("| work | figure |\n|---|---|\n");
    for Figure { work, value } in figures {
        writeln!(text, "| {work} | {value} |")?;
    }
    let path = workspace().join("docs/performance.md");
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    say("wrote docs/performance.md");
    Ok(())
}

fn machine() -> anyhow::Result<String> {
    let cores = std::thread::available_parallelism()?;
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .context("MemTotal")?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{cores} cores ({}), {} GiB, Linux {}",
        model.unwrap_or("unknown"),
        kib.div_ceil(1 << 20),
        kernel.trim()
    ))
}
