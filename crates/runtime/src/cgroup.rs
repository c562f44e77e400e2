//! Cgroups of containers, for both versions of the interface.
//!
//! What is written where is decided by pure functions in [`v1`] and [`v2`]; this file does it.

mod v1;
mod v2;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cri::LinuxContainerResources;

/// Killing and removing is repeated, because processes may fork and exit meanwhile.
const ROUNDS_MAX: usize = 8;

/// One value for one file: controller, file name, value.
pub(crate) type Setting = (&'static str, String, String);

/// What could not be done with a cgroup.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation} {}", path.display())]
pub(crate) struct CgroupError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_path_buf();
    move |source| CgroupError { operation, path, source }
}

/// What a container's cgroup has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) cpu_nanoseconds: u64,
    pub(crate) memory_usage: u64,
    pub(crate) memory_inactive_file: u64,
    pub(crate) memory_rss: u64,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    pub(crate) pids: Option<u64>,
}

/// The node's cgroup file systems.
#[derive(Clone, Debug)]
pub(crate) enum Cgroups {
    /// One hierarchy per controller, found at these directories.
    V1(BTreeMap<&'static str, PathBuf>),
    /// One hierarchy for all.
    V2(PathBuf),
}

impl Cgroups {
    /// Looks at what is mounted at `root`, usually `/sys/fs/cgroup`.
    pub(crate) fn detect(root: &Path) -> Self {
        if root.join("cgroup.controllers").exists() {
            return Self::V2(root.to_path_buf());
        }
        let mounted = v1::CONTROLLERS.iter().map(|controller| (*controller, root.join(controller)));
        Self::V1(mounted.filter(|(_, directory)| directory.is_dir()).collect())
    }

    /// Makes a cgroup with limits, or changes the limits of one that exists.
    pub(crate) fn create(
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
        if let Self::V1(mounts) = self {
            let Some(mount) = mounts.get("devices") else { return Ok(()) };
            for (file, value) in v1::device_settings(devices) {
                write(&join(mount, path).join(file), &value)?;
            }
        }
        Ok(())
    }

    /// Changes limits.
    pub(crate) fn update(
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

    /// The `cgroup.procs` files that a process joins, the one that counts first.
    pub(crate) fn procs(&self, path: &str) -> Vec<PathBuf> {
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
    pub(crate) fn mounts(&self, path: &str) -> BTreeMap<String, PathBuf> {
        match self {
            Self::V1(mounts) => mounts
                .iter()
                .map(|(controller, mount)| ((*controller).to_owned(), join(mount, path)))
                .collect(),
            Self::V2(root) => BTreeMap::from([(String::new(), join(root, path))]),
        }
    }

    /// The file that counts kills for lack of memory.
    pub(crate) fn oom_file(&self, path: &str) -> PathBuf {
        match self {
            Self::V1(mounts) => mounts
                .get("memory")
                .map(|mount| join(mount, path).join("memory.oom_control"))
                .unwrap_or_default(),
            Self::V2(root) => join(root, path).join("memory.events"),
        }
    }

    /// Kills whatever is left in a cgroup and below it.
    pub(crate) fn kill(&self, path: &str) {
        for _ in 0..ROUNDS_MAX {
            let pids: Vec<i32> = self
                .procs(path)
                .first()
                .and_then(|procs| procs.parent().map(pids_below))
                .unwrap_or_default();
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                // It may have ended meanwhile.
                nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                )
                .ok();
            }
        }
    }

    /// Removes a cgroup and those below it. One that does not exist is no error.
    pub(crate) fn remove(&self, path: &str) -> Result<(), CgroupError> {
        let roots: Vec<&PathBuf> = match self {
            Self::V1(mounts) => mounts.values().collect(),
            Self::V2(root) => vec![root],
        };
        roots.into_iter().try_for_each(|root| remove_tree(&join(root, path)))
    }

    /// What the cgroup has counted; `None` when it does not exist.
    pub(crate) fn counters(&self, path: &str) -> Option<Counters> {
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
