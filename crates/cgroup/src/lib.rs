//! Cgroups of pods and containers, for both versions of the interface.
//!
//! Start reading at [`Cgroups`]. What is written where is decided by pure functions in `v1` and
//! `v2`; this file does it.
//!
//! Invariants: a cgroup that is made has every controller that limits or counts something; one that
//! is removed has no process left.
//!
//! It deliberately does not know whose cgroup one is: the kubelet makes those of pods, the runtime
//! those of containers below them.
//!
//! Tested by unit tests beside the code, and through the runtime's and the binary's tests against
//! the kernel.

mod device_filter;
mod v1;
mod v2;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cri::LinuxContainerResources;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Killing and removing is repeated, because processes may fork and exit meanwhile.
const ROUNDS_MAX: usize = 64;
/// How long one round waits for killed processes, in milliseconds.
const ROUND_MS: i64 = 50;

/// What every container may use: make any node, use the harmless ones.
const DEVICES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// One value for one file: controller, file name, value.
type Setting = (&'static str, String, String);

/// What could not be done with a cgroup.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation} {}", path.display())]
pub struct CgroupError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl CgroupError {
    fn is_busy(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EBUSY)
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_path_buf();
    move |source| CgroupError { operation, path, source }
}

/// What a container's cgroup has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// CPU time, in nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Memory in bytes, caches included.
    pub memory_usage: u64,
    /// Caches that can be given back, in bytes.
    pub memory_inactive_file: u64,
    /// Memory of no file, in bytes.
    pub memory_rss: u64,
    /// The most memory, if it is limited.
    pub memory_limit: Option<u64>,
    /// Page faults.
    pub page_faults: u64,
    /// Those that waited for a disk.
    pub major_page_faults: u64,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// The node's cgroup file systems.
#[derive(Clone, Debug)]
pub enum Cgroups {
    /// One hierarchy per controller, found at these directories.
    V1(BTreeMap<&'static str, PathBuf>),
    /// One hierarchy for all.
    V2(PathBuf),
}

impl Cgroups {
    /// Looks at what is mounted at `root`, usually `/sys/fs/cgroup`.
    pub fn detect(root: &Path) -> Self {
        if root.join("cgroup.controllers").exists() {
            return Self::V2(root.to_path_buf());
        }
        let mounted = v1::CONTROLLERS.iter().map(|controller| (*controller, root.join(controller)));
        Self::V1(mounted.filter(|(_, directory)| directory.is_dir()).collect())
    }

    /// Makes a cgroup with limits, or changes the limits of one that exists.
    pub fn create(
        &self,
        path: &str,
        resources: &LinuxContainerResources,
        devices: &[String],
    ) -> Result<(), CgroupError> {
        match self {
            Self::V1(mounts) => {
                for (controller, mount) in mounts {
                    make_below(mount, path, |directory| match *controller {
                        "cpuset" => v1::inherit_cpuset(directory),
                        _ => Ok(()),
                    })?;
                }
            }
            Self::V2(root) => make_below(root, path, v2::delegate)?,
        }
        self.update(path, resources)?;
        self.restrict_devices(path, devices)
    }

    /// Allows the default devices and those of `devices`, or everything when that is `["a"]`.
    fn restrict_devices(&self, path: &str, devices: &[String]) -> Result<(), CgroupError> {
        if devices.iter().any(|rule| rule == "a") {
            return Ok(());
        }
        let mut rules: Vec<String> = DEVICES.iter().map(|rule| (*rule).to_owned()).collect();
        rules.extend_from_slice(devices);
        match self {
            Self::V1(mounts) => {
                let Some(mount) = mounts.get("devices") else { return Ok(()) };
                v1::device_settings(&rules)
                    .into_iter()
                    .try_for_each(|(file, value)| write(&join(mount, path).join(file), value))
            }
            Self::V2(root) => {
                let directory = join(root, path);
                device_filter::apply(&directory, &rules)
                    .map_err(failed("restrict the devices of", &directory))
            }
        }
    }

    /// Changes limits.
    pub fn update(
        &self,
        path: &str,
        resources: &LinuxContainerResources,
    ) -> Result<(), CgroupError> {
        let settings = match self {
            Self::V1(_) => v1::settings(resources),
            Self::V2(_) => v2::settings(resources),
        };
        for (controller, file, value) in settings {
            let Some(directory) = self.directory(controller, path) else { continue };
            let target = directory.join(&file);
            // Not every kernel counts swap; without the file there is nothing to limit.
            if target.exists() {
                write(&target, &value)?;
            }
        }
        Ok(())
    }

    /// Limits how many processes and threads are in a cgroup and below it; `None` lifts the limit.
    pub fn limit_processes(&self, path: &str, most: Option<u64>) -> Result<(), CgroupError> {
        let Some(directory) = self.directory("pids", path) else { return Ok(()) };
        let most = most.map_or_else(|| "max".to_owned(), |most| most.to_string());
        write(&directory.join("pids.max"), &most)
    }

    /// The `cgroup.procs` files that a process joins, the one that counts first.
    pub fn procs(&self, path: &str) -> Vec<PathBuf> {
        match self {
            Self::V1(mounts) => {
                let first = ["pids", "memory"].iter().find_map(|c| mounts.get_key_value(*c));
                let mut ordered: Vec<_> = first.into_iter().collect();
                ordered.extend(mounts.iter().filter(|m| Some(m.0) != first.map(|f| f.0)));
                ordered
                    .into_iter()
                    .map(|(_, mount)| join(mount, path).join("cgroup.procs"))
                    .collect()
            }
            Self::V2(root) => vec![join(root, path).join("cgroup.procs")],
        }
    }

    /// The directories to show in the container, by controller.
    pub fn mounts(&self, path: &str) -> BTreeMap<String, PathBuf> {
        match self {
            Self::V1(mounts) => mounts
                .iter()
                .map(|(controller, mount)| ((*controller).to_owned(), join(mount, path)))
                .collect(),
            Self::V2(root) => BTreeMap::from([(String::new(), join(root, path))]),
        }
    }

    /// The file that counts kills for lack of memory.
    pub fn oom_file(&self, path: &str) -> PathBuf {
        match self {
            Self::V1(mounts) => mounts
                .get("memory")
                .map(|mount| join(mount, path).join("memory.oom_control"))
                .unwrap_or_default(),
            Self::V2(root) => join(root, path).join("memory.events"),
        }
    }

    /// Kills whatever is in a cgroup and below it, without waiting for its end.
    pub fn kill(&self, path: &str) {
        drop(self.kill_once(path));
    }

    /// Kills whatever is left, and removes a cgroup and those below it. One that does not exist
    /// is no error. Waits, so it belongs on a thread that may.
    pub fn remove(&self, path: &str) -> Result<(), CgroupError> {
        let roots: Vec<&PathBuf> = match self {
            Self::V1(mounts) => mounts.values().collect(),
            Self::V2(root) => vec![root],
        };
        let mut round = 0;
        loop {
            let killed = self.kill_once(path);
            if round > 0 || !killed.is_empty() {
                wait_for_ends(&killed);
            }
            let removed = roots.iter().try_for_each(|root| remove_tree(&join(root, path)));
            round += 1;
            match removed {
                Err(error) if error.is_busy() && round < ROUNDS_MAX => {}
                other => return other,
            }
        }
    }

    /// The names of the cgroups right below one, in whichever hierarchy they are.
    pub fn below(&self, path: &str) -> BTreeSet<String> {
        let roots: Vec<&PathBuf> = match self {
            Self::V1(mounts) => mounts.values().collect(),
            Self::V2(root) => vec![root],
        };
        let entries = roots.into_iter().flat_map(|root| fs::read_dir(join(root, path)));
        let directories = entries
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Sends the signal and answers the processes it was sent to.
    fn kill_once(&self, path: &str) -> Vec<OwnedFd> {
        let procs = self.procs(path);
        let pids = procs.first().and_then(|procs| procs.parent()).map(pids_below);
        let open = |pid: i32| pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok();
        let processes: Vec<OwnedFd> =
            pids.unwrap_or_default().into_iter().filter_map(open).collect();
        for process in &processes {
            // It may have ended meanwhile.
            pidfd_send_signal(process, Signal::KILL).ok();
        }
        processes
    }

    /// What the cgroup has counted; `None` when it does not exist.
    pub fn counters(&self, path: &str) -> Option<Counters> {
        let read = |controller: &str, file: &str| {
            self.directory(controller, path)
                .and_then(|directory| fs::read_to_string(directory.join(file)).ok())
        };
        match self {
            Self::V1(_) => v1::counters(read),
            Self::V2(_) => v2::counters(read),
        }
    }

    fn directory(&self, controller: &str, path: &str) -> Option<PathBuf> {
        match self {
            Self::V1(mounts) => mounts.get(controller).map(|mount| join(mount, path)),
            Self::V2(root) => Some(join(root, path)),
        }
    }
}

fn join(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

fn make_below(
    mount: &Path,
    path: &str,
    prepare: impl Fn(&Path) -> io::Result<()>,
) -> Result<(), CgroupError> {
    let mut at = mount.to_path_buf();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        at.push(part);
        match fs::create_dir(&at) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("create cgroup", &at)(error));
            }
            _ => prepare(&at).map_err(failed("prepare cgroup", &at))?,
        }
    }
    Ok(())
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(failed("write", path))
}

/// Waits until one of the processes ended, or a moment: an ended one takes a while to leave.
fn wait_for_ends(processes: &[OwnedFd]) {
    let mut ends: Vec<PollFd<'_>> =
        processes.iter().map(|process| PollFd::new(process, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: ROUND_MS * 1_000_000 };
    // Whatever it answers, the next step looks again.
    poll(&mut ends, Some(&timeout)).ok();
}

fn pids_below(directory: &Path) -> Vec<i32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(pids_below(&entry.path()));
        }
    }
    pids
}

fn remove_tree(directory: &Path) -> Result<(), CgroupError> {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed("remove cgroup", directory)),
    }
}

/// The value of a line `key value`.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

fn number(text: Option<String>) -> Option<u64> {
    text?.trim().parse().ok()
}
