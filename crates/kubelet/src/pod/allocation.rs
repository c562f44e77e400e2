//! What the node has granted a pod: the resources it was admitted with, or resized to.
//!
//! A resize that the node has no room for leaves the pod with what it has. What was granted is kept
//! in the pod's directory, because after a restart nothing else tells it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};

use crate::pod::spec;

const FILE: &str = "allocation.json";

/// Resources of a pod and of its containers by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Allocation {
    pod: Option<ResourceRequirements>,
    containers: BTreeMap<String, ResourceRequirements>,
}

impl Allocation {
    /// What the pod's spec says.
    pub(crate) fn of(pod: &Pod) -> Self {
        let containers = spec::init_containers(pod).iter().chain(&spec::spec(pod).containers);
        Self {
            pod: spec::spec(pod).resources.clone(),
            containers: containers
                .map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default()))
                .collect(),
        }
    }

    /// The pod with these resources instead of its own.
    pub(crate) fn apply(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        let Some(spec) = &mut pod.spec else { return pod };
        spec.resources.clone_from(&self.pod);
        let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
        for container in containers {
            if let Some(granted) = self.containers.get(&container.name) {
                container.resources = Some(granted.clone());
            }
        }
        pod
    }

    /// Writes it into the pod's directory.
    pub(crate) fn save(&self, pod_dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(pod_dir)?;
        stdx::atomic_file::write(&pod_dir.join(FILE), &serde_json::to_vec(self)?, 0o600)
    }

    /// What was written.
    pub(crate) fn load(pod_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(pod_dir.join(FILE)).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;
    use crate::pod::fixture;

    fn pod(cpu: &str) -> Pod {
        let limits = [("cpu".to_owned(), Quantity(cpu.to_owned()))];
        let mut container = fixture::container("a");
        container.resources =
            Some(ResourceRequirements { limits: Some(limits.into()), ..Default::default() });
        fixture::pod("Always", vec![], vec![container])
    }

    #[test]
    fn a_pod_keeps_what_it_was_granted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Allocation::load(dir.path()), None);
        let granted = Allocation::of(&pod("1"));
        granted.save(dir.path()).unwrap();
        let kept = Allocation::load(dir.path()).unwrap();
        assert_eq!(kept, granted);
        assert_eq!(kept.apply(&pod("2")), pod("1"));
        assert_ne!(Allocation::of(&pod("2")), granted);
    }
}
