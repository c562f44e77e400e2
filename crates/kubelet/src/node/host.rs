//! Facts about the machine.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;

/// What the machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) cpus: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_available_bytes: u64,
    pub(crate) storage_bytes: u64,
    pub(crate) storage_available_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
    /// Page size as a resource name has it, such as `2Mi`, and bytes.
    pub(crate) hugepages: Vec<(String, u64)>,
}

impl Capacity {
    /// Asks the kernel.
    pub(crate) fn read(root_dir: &Path) -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count().max(1);
        let disk = nix::sys::statvfs::statvfs(root_dir).ok();
        let blocks = |count: u64| disk.map_or(0, |disk| count.saturating_mul(disk.fragment_size()));
        Self {
            cpus: cpus as u64,
            memory_bytes: meminfo_bytes(&meminfo, "MemTotal"),
            memory_available_bytes: meminfo_bytes(&meminfo, "MemAvailable"),
            storage_bytes: blocks(disk.map_or(0, |disk| disk.blocks())),
            storage_available_bytes: blocks(disk.map_or(0, |disk| disk.blocks_available())),
            inodes: disk.map_or(0, |disk| disk.files()),
            inodes_free: disk.map_or(0, |disk| disk.files_available()),
            hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")),
        }
    }
}

/// What the machine uses.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) capacity: Capacity,
    /// CPU time of all cores since the machine started.
    pub(crate) cpu_nanos: u64,
    pub(crate) memory_working_set_bytes: u64,
}

impl Usage {
    /// Asks the kernel.
    pub(crate) fn read(root_dir: &Path) -> Self {
        let capacity = Capacity::read(root_dir);
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let used = capacity.memory_bytes.saturating_sub(capacity.memory_available_bytes);
        Self { cpu_nanos: cpu_nanos(&stat), memory_working_set_bytes: used, capacity }
    }
}

/// User, nice, system, interrupts and stolen time, of which `/proc/stat` counts hundredths of
/// seconds.
fn cpu_nanos(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| fields.get(*at)).sum::<u64>();
    busy * 10_000_000
}

fn meminfo_bytes(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

fn hugepages(directory: &Path) -> Vec<(String, u64)> {
    let mut sizes: Vec<(String, u64)> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kibibytes: u64 =
                name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
            let count: u64 = count.trim().parse().ok()?;
            Some((page_size(kibibytes), count * (kibibytes << 10)))
        })
        .collect();
    sizes.sort();
    sizes
}

fn page_size(kibibytes: u64) -> String {
    match kibibytes {
        k if k % (1 << 20) == 0 => format!("{}Gi", k >> 20),
        k if k % (1 << 10) == 0 => format!("{}Mi", k >> 10),
        k => format!("{k}Ki"),
    }
}

/// Who the machine is; `runtime` is the runtime's name and version.
pub(crate) fn system_info(runtime: &str) -> NodeSystemInfo {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let machine_id = read("/etc/machine-id");
    let product = read("/sys/class/dmi/id/product_uuid");
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime.to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: telemetry::VERSION.to_owned(),
        operating_system: "linux".to_owned(),
        os_image: os_image(&read("/etc/os-release")),
        system_uuid: if product.is_empty() { machine_id.clone() } else { product },
        machine_id,
        swap: None,
    }
}

/// The architecture in Go's spelling.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Unknown".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(meminfo_bytes("MemTotal:  12 kB\nMemFree: 1 kB\n", "MemTotal"), 12 << 10);
        assert_eq!(meminfo_bytes("", "MemTotal"), 0);
        assert_eq!(os_image("ID=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(page_size(2048), "2Mi");
        assert_eq!(page_size(1 << 20), "1Gi");
        assert_eq!(page_size(64), "64Ki");
        assert_eq!(cpu_nanos("cpu  1 2 3 400 500 6 7 8 0 0\ncpu0 1"), 270_000_000);
    }

    #[test]
    fn this_machine_has_a_processor_and_memory() {
        let capacity = Capacity::read(Path::new("/"));
        assert!(capacity.cpus > 0 && capacity.memory_bytes > 0 && capacity.storage_bytes > 0);
    }
}
