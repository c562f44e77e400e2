//! Pods that use more of the node's disk than they may: upstream's `localStorageEviction`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cri::ContainerFilter;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::kubelet::Kubelet;
use crate::labels;
use crate::pod::qos;
use crate::pod::sandbox_config::log_directory;
use crate::pod::spec;
use crate::pod::status::{EVICTED, Verdict};

const RESOURCE: &str = "ephemeral-storage";

/// Bytes on the node's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Usage {
    /// By volume.
    empty_dirs: BTreeMap<String, u64>,
    /// What containers wrote and logged, by name.
    containers: BTreeMap<String, u64>,
}

/// Looks at every pod that has a limit and tells the workers of those that exceed it.
pub(crate) async fn enforce(kubelet: &Arc<Kubelet>) {
    for pod in kubelet.own_pods() {
        let Some(worker) = kubelet.workers.get(spec::uid(&pod)) else { continue };
        if !is_limited(&pod) || api::pod::is_terminal(&pod) || api::pod::is_terminating(&pod) {
            continue;
        }
        let usage = measure(kubelet, &pod).await;
        if let Some(message) = exceeded(&pod, &usage) {
            worker.evict(Verdict { reason: EVICTED.to_owned(), message });
        }
    }
}

fn is_limited(pod: &Pod) -> bool {
    limited_directories(pod).next().is_some()
        || spec::spec(pod).containers.iter().any(|c| container_limit(c).is_some())
}

async fn measure(kubelet: &Arc<Kubelet>, pod: &Arc<Pod>) -> Usage {
    let selector = [(labels::POD_UID.to_owned(), spec::uid(pod).to_owned())];
    let filter = ContainerFilter { label_selector: selector.into(), ..ContainerFilter::default() };
    let stats = kubelet.deps.runtime.list_container_stats(&filter).await.unwrap_or_default();
    let written = stats.into_iter().map(|stats| {
        let bytes = stats.writable_layer.map_or(0, |layer| layer.used_bytes);
        (stats.metadata.name, bytes)
    });
    let mut usage = Usage { containers: written.collect(), ..Usage::default() };
    let volumes = kubelet.volumes.pod_dir(spec::uid(pod)).join("volumes/kubernetes.io~empty-dir");
    let (logs, pod) = (log_directory(&kubelet.config, pod), Arc::clone(pod));
    // Walking through directories waits for the disk.
    let walked = tokio::task::spawn_blocking(move || {
        for volume in spec::spec(&pod).volumes.iter().flatten() {
            let on_disk = volume
                .empty_dir
                .as_ref()
                .is_some_and(|empty| empty.medium.as_deref().unwrap_or_default().is_empty());
            if on_disk {
                usage
                    .empty_dirs
                    .insert(volume.name.clone(), bytes_below(&volumes.join(&volume.name)));
            }
        }
        for container in &spec::spec(&pod).containers {
            *usage.containers.entry(container.name.clone()).or_default() +=
                bytes_below(&logs.join(&container.name));
        }
        usage
    });
    walked.await.unwrap_or_default()
}

/// What files take of the disk, in bytes; links are not followed.
fn bytes_below(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = std::fs::symlink_metadata(path) else { return 0 };
    let mut bytes = found.blocks() * 512;
    if found.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            bytes = bytes.saturating_add(bytes_below(&entry.path()));
        }
    }
    bytes
}

/// What is said of a pod that uses too much.
fn exceeded(pod: &Pod, usage: &Usage) -> Option<String> {
    let more = |used: u64, limit: &Quantity| {
        let limit = qos::parse(limit).value();
        limit > 0 && i64::try_from(used).unwrap_or(i64::MAX) > limit
    };
    for (name, limit) in limited_directories(pod) {
        if more(usage.empty_dirs.get(name).copied().unwrap_or(0), limit) {
            let limit = &limit.0;
            return Some(format!(
                "Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}. "
            ));
        }
    }
    let limits = spec::spec(pod)
        .containers
        .iter()
        .filter_map(|container| Some((container.name.as_str(), container_limit(container)?)));
    let limits: BTreeMap<&str, &Quantity> = limits.collect();
    let total: i64 = limits.values().map(|limit| qos::parse(limit).value()).sum();
    let used: u64 = usage.containers.values().chain(usage.empty_dirs.values()).sum();
    if total > 0 && i64::try_from(used).unwrap_or(i64::MAX) > total {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            printed(total)
        ));
    }
    limits.into_iter().find_map(|(name, limit)| {
        let used = usage.containers.get(name).copied().unwrap_or(0);
        more(used, limit).then(|| {
            let limit = &limit.0;
            format!("Container {name} exceeded its local ephemeral storage limit {limit:?}. ")
        })
    })
}

/// As the API prints a sum of bytes: in the largest unit that has it whole.
fn printed(bytes: i64) -> String {
    for (shift, unit) in [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
        if bytes % (1 << shift) == 0 {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

fn limited_directories(pod: &Pod) -> impl Iterator<Item = (&str, &Quantity)> {
    spec::spec(pod).volumes.iter().flatten().filter_map(|volume| {
        let empty = volume.empty_dir.as_ref()?;
        // What is in memory is limited by its file system.
        let on_disk = empty.medium.as_deref().unwrap_or_default().is_empty();
        Some((volume.name.as_str(), empty.size_limit.as_ref().filter(|_| on_disk)?))
    })
}

fn container_limit(container: &k8s_openapi::api::core::v1::Container) -> Option<&Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(RESOURCE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_may_use_what_its_limits_say() {
        let pod: Pod = serde_json::from_value(json!({ "spec": {
            "volumes": [{ "name": "v", "emptyDir": { "sizeLimit": "1Mi" } }],
            "containers": [
                { "name": "a", "resources": { "limits": { "ephemeral-storage": "1Mi" } } },
                { "name": "b", "resources": { "limits": { "ephemeral-storage": "2Mi" } } }],
        } }))
        .unwrap();
        let with = |v: u64, a: u64, b: u64| {
            let containers = [("a".to_owned(), a << 10), ("b".to_owned(), b << 10)];
            let empty_dirs = [("v".to_owned(), v << 10)];
            exceeded(&pod, &Usage { empty_dirs: empty_dirs.into(), containers: containers.into() })
        };
        assert_eq!(with(1024, 1000, 1000), None);
        let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
        assert_eq!(with(1025, 0, 0).unwrap(), message);
        let message =
            "Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. ";
        assert_eq!(with(1000, 1000, 1100).unwrap(), message);
        let message = "Container a exceeded its local ephemeral storage limit \"1Mi\". ";
        assert_eq!(with(0, 1025, 0).unwrap(), message);
    }
}
