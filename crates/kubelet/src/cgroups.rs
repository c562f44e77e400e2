//! The cgroups of pods: `kubepods`, the classes below it, and one of each pod.
//!
//! ```text
//!   <root>/kubepods                  what pods may use together
//!   <root>/kubepods/pod<uid>         guaranteed
//!   <root>/kubepods/burstable/pod<uid>
//!   <root>/kubepods/besteffort/pod<uid>
//! ```
//!
//! Everything here waits for the kernel, so it belongs on a thread that may.

use std::path::Path;

use cgroup::{CgroupError, Cgroups};
use cri::LinuxContainerResources;
use k8s_openapi::api::core::v1::Pod;

use crate::node::host::Capacity;
use crate::pod::qos::{self, Qos};
use crate::pod::{pod_resources, qos::cpu_shares};

/// Makes, changes and removes cgroups of pods.
#[derive(Clone, Debug)]
pub(crate) struct PodCgroups {
    cgroups: Cgroups,
    root: String,
    /// Processes and threads of one pod.
    processes_max: Option<u64>,
}

impl PodCgroups {
    /// Those below `root` in what is mounted at `mount`.
    pub(crate) fn new(mount: &Path, root: &str, processes_max: Option<u64>) -> Self {
        let root = root.trim_end_matches('/').to_owned();
        Self { cgroups: Cgroups::detect(mount), root, processes_max }
    }

    /// Where the pod's is.
    pub(crate) fn path(&self, pod: &Pod) -> String {
        qos::pod_cgroup(&self.root, pod)
    }

    /// Makes those that are not a pod's.
    pub(crate) fn set_up(&self, capacity: &Capacity) -> Result<(), CgroupError> {
        let whole = LinuxContainerResources {
            cpu_shares: cpu_shares(i64::try_from(capacity.cpus * 1000).unwrap_or(i64::MAX)),
            memory_limit_in_bytes: i64::try_from(capacity.memory_bytes).unwrap_or(0),
            ..LinuxContainerResources::default()
        };
        self.ensure(&format!("{}/kubepods", self.root), &whole)?;
        let least = LinuxContainerResources {
            cpu_shares: cpu_shares(0),
            ..LinuxContainerResources::default()
        };
        self.ensure(&format!("{}/kubepods/besteffort", self.root), &least)?;
        self.ensure(&format!("{}/kubepods/burstable", self.root), &least)
    }

    /// Weighs the burstable ones by what they ask for together.
    pub(crate) fn weigh<'a>(&self, pods: impl Iterator<Item = &'a Pod>) -> Result<(), CgroupError> {
        let burstable = pods.filter(|pod| qos::qos(pod) == Qos::Burstable);
        let milli: i64 = burstable.map(|pod| pod_resources::request(pod, "cpu")).sum();
        let weight = LinuxContainerResources {
            cpu_shares: cpu_shares(milli),
            ..LinuxContainerResources::default()
        };
        self.cgroups.update(&format!("{}/kubepods/burstable", self.root), &weight)
    }

    /// Makes the cgroup of a pod with these limits, or changes them.
    pub(crate) fn ensure_pod(
        &self,
        path: &str,
        limits: &LinuxContainerResources,
    ) -> Result<(), CgroupError> {
        self.ensure(path, limits)?;
        self.cgroups.limit_processes(path, self.processes_max)
    }

    /// Bytes that a pod uses; `None` when its cgroup does not exist.
    pub(crate) fn memory_usage(&self, path: &str) -> Option<u64> {
        self.cgroups.counters(path).map(|counters| counters.memory_usage)
    }

    fn ensure(&self, path: &str, limits: &LinuxContainerResources) -> Result<(), CgroupError> {
        // Which devices are used is between the runtime and its containers.
        self.cgroups.create(path, limits, &["a".to_owned()])
    }

    /// Those of pods, by uid.
    pub(crate) fn of_pods(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for class in ["", "/burstable", "/besteffort"] {
            let parent = format!("{}/kubepods{class}", self.root);
            for name in self.cgroups.below(&parent) {
                if let Some(uid) = name.strip_prefix("pod") {
                    found.push((uid.to_owned(), format!("{parent}/{name}")));
                }
            }
        }
        found
    }

    /// Removes one, with what is left in it.
    pub(crate) fn remove(&self, path: &str) -> Result<(), CgroupError> {
        self.cgroups.remove(path)
    }
}
