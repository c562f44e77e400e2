//! What the process uses, under the names that every Prometheus client has for it.
//!
//! Read from `/proc` whenever the metrics are gathered. What cannot be read is left out.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Error, Gauge};

/// Ticks of `/proc` in a second: the same on every machine that Linux runs on.
const TICKS: f64 = 100.0;
const KIBIBYTE: f64 = 1024.0;

/// The metrics of this process.
pub(crate) struct Process {
    cpu: Counter,
    open_files: Gauge,
    max_files: Gauge,
    virtual_memory: Gauge,
    max_virtual_memory: Gauge,
    resident_memory: Gauge,
    start: Gauge,
    received: Counter,
    sent: Counter,
}

impl Process {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self {
            cpu: Counter::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            )?,
            open_files: Gauge::new("process_open_fds", "Number of open file descriptors.")?,
            max_files: Gauge::new("process_max_fds", "Maximum number of open file descriptors.")?,
            virtual_memory: Gauge::new(
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes.",
            )?,
            max_virtual_memory: Gauge::new(
                "process_virtual_memory_max_bytes",
                "Maximum amount of virtual memory available in bytes.",
            )?,
            resident_memory: Gauge::new(
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
            )?,
            start: Gauge::new(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            )?,
            received: Counter::new(
                "process_network_receive_bytes_total",
                "Number of bytes received by the process over the network.",
            )?,
            sent: Counter::new(
                "process_network_transmit_bytes_total",
                "Number of bytes sent by the process over the network.",
            )?,
        })
    }

    fn all(&self) -> [&dyn Collector; 9] {
        [
            &self.cpu,
            &self.open_files,
            &self.max_files,
            &self.virtual_memory,
            &self.max_virtual_memory,
            &self.resident_memory,
            &self.start,
            &self.received,
            &self.sent,
        ]
    }

    /// Reads everything; what can be read is given back.
    fn read(&self) -> Vec<&dyn Collector> {
        let mut found: Vec<&dyn Collector> = Vec::new();
        let read = |name: &str| fs::read_to_string(name).unwrap_or_default();
        if let Some(stat) = Stat::parse(&read("/proc/self/stat")) {
            raise(&self.cpu, stat.cpu_ticks / TICKS);
            found.push(&self.cpu);
            if let Some(booted) = value(&read("/proc/stat"), "btime") {
                self.start.set(booted + stat.start_ticks / TICKS);
                found.push(&self.start);
            }
        }
        let (status, limits) = (read("/proc/self/status"), read("/proc/self/limits"));
        let kibibytes = |key: &str| value(&status, key).map(|found| found * KIBIBYTE);
        let network = read("/proc/self/net/netstat");
        for (gauge, value) in [
            (&self.virtual_memory, kibibytes("VmSize:")),
            (&self.resident_memory, kibibytes("VmRSS:")),
            (&self.max_virtual_memory, limit(&limits, "Max address space")),
            (&self.max_files, limit(&limits, "Max open files")),
            (&self.open_files, open_files()),
        ] {
            if let Some(value) = value {
                gauge.set(value);
                found.push(gauge);
            }
        }
        for (counter, key) in [(&self.received, "InOctets"), (&self.sent, "OutOctets")] {
            if let Some(value) = column(&network, "IpExt:", key) {
                raise(counter, value);
                found.push(counter);
            }
        }
        found
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read().into_iter().flat_map(Collector::collect).collect()
    }
}

/// Brings a counter to what the kernel has counted.
fn raise(counter: &Counter, to: f64) {
    let more = to - counter.get();
    if more > 0.0 {
        counter.inc_by(more);
    }
}

/// The process as `/proc/self/stat` has it.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name is in parentheses, and may have some of its own.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
        // Fields 14, 15 and 22 of proc(5), of which two are before the parenthesis.
        Some(Self { cpu_ticks: number(11)? + number(12)?, start_ticks: number(19)? })
    }
}

/// The number behind a word at the beginning of a line.
fn value(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The soft limit; without one, the largest number.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
fn limit(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX as f64),
        number => number.parse().ok(),
    }
}

/// A number of a table whose head is in the line before.
fn column(text: &str, row: &str, key: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(row));
    let (head, values) = (lines.next()?, lines.next()?);
    let at = head.split_whitespace().position(|name| name == key)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

fn open_files() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // Reading the directory opens one.
    Some(f64::from(u32::try_from(count.saturating_sub(1)).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_hide_the_times() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 12345 1000 200";
        assert_eq!(Stat::parse(text), Some(Stat { cpu_ticks: 300.0, start_ticks: 12345.0 }));
        assert_eq!(Stat::parse("7 (a) S"), None);
    }

    #[test]
    fn limits_and_tables_are_read() {
        let limits = "Max open files            1024                 4096                 files\n\
                      Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024.0));
        assert_eq!(limit(limits, "Max address space"), Some(18_446_744_073_709_551_615.0));
        assert_eq!(limit(limits, "Max processes"), None);
        let table = "TcpExt: a b\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets\nIpExt: 3 4\n";
        assert_eq!(column(table, "IpExt:", "InOctets"), Some(4.0));
        assert_eq!(column(table, "IpExt:", "OutOctets"), None);
        assert_eq!(value("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12.0));
    }

    #[test]
    fn this_process_is_measured() {
        let process = Process::new().unwrap();
        process.collect();
        assert!(process.resident_memory.get() > KIBIBYTE);
        assert!(process.virtual_memory.get() >= process.resident_memory.get());
        assert!(process.open_files.get() >= 1.0);
        assert!(process.max_files.get() >= process.open_files.get());
        // After 2020.
        assert!(process.start.get() > 1.5e9);
        let (before, families) = (process.cpu.get(), process.collect());
        assert!(process.cpu.get() >= before);
        assert!(families.len() >= 7, "{families:?}");
    }
}
