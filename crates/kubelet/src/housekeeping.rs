//! What nobody else looks after: leftovers of pods that are gone, logs and disks that fill.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cri::{ContainerFilter, ContainerState, CriError, PodSandboxFilter};

use crate::kubelet::Kubelet;
use crate::labels;
use crate::log_rotation;
use crate::pod::storage_limits;

/// How often logs are looked at: upstream `logMonitorPeriod`.
const EVERY: Duration = Duration::from_secs(10);
/// Grace period of a container whose annotation is lost.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// Looks from time to time until the kubelet ends. What is left over is only known when the pods
/// are, for which an API server is needed; the rest does without one.
pub(crate) async fn keep(kubelet: Arc<Kubelet>) {
    let shutdown = kubelet.shutdown.clone();
    let mut are_known = false;
    loop {
        if are_known {
            remove_orphans(&kubelet).await;
        }
        log_rotation::rotate_all(&kubelet).await;
        storage_limits::enforce(&kubelet).await;
        count_running(&kubelet).await;
        tokio::select! {
            () = kubelet.deps.clock.sleep(EVERY) => {}
            () = kubelet.pods.synced(), if !are_known => are_known = true,
            () = shutdown.begun() => return,
        }
    }
}

/// Ends sandboxes of pods that were removed while no kubelet ran, and removes their directories.
async fn remove_orphans(kubelet: &Arc<Kubelet>) {
    let known = |uid: &str| {
        kubelet.workers.get(uid).is_some()
            || kubelet.own_pods().iter().any(|pod| crate::pod::spec::uid(pod) == uid)
    };
    let runtime = &kubelet.deps.runtime;
    let sandboxes = match runtime.list_pod_sandbox(&PodSandboxFilter::default()).await {
        Ok(sandboxes) => sandboxes,
        Err(error) => {
            tracing::warn!(%error, "sandboxes not listed");
            return;
        }
    };
    let endings = sandboxes.iter().filter_map(|sandbox| {
        // A sandbox without the label is not ours.
        let uid = sandbox.labels.get(labels::POD_UID).filter(|uid| !known(uid))?;
        Some(async move {
            if let Err(error) = end_sandbox(kubelet, &sandbox.id).await {
                tracing::warn!(pod_uid = uid, %error, "sandbox of a removed pod not removed");
            }
        })
    });
    // All at once: each may take its grace period.
    futures::future::join_all(endings).await;
    for uid in kubelet.volumes.pods_with_directories() {
        if !known(&uid)
            && let Err(error) = kubelet.volumes.tear_down(&uid)
        {
            tracing::warn!(pod_uid = uid, %error, "directory of a removed pod not removed");
        }
    }
    let mut cgroups = kubelet.cgroups.of_pods();
    cgroups.retain(|(uid, _)| !known(uid));
    remove_cgroups(kubelet, cgroups).await;
    remove_orphaned_logs(&kubelet.config.pod_logs_dir, &known);
}

/// Removes cgroups of pods that nobody knows: upstream `cleanupOrphanedPodCgroups`.
async fn remove_cgroups(kubelet: &Arc<Kubelet>, orphans: Vec<(String, String)>) {
    if orphans.is_empty() {
        return;
    }
    let cgroups = kubelet.cgroups.clone();
    let removed = tokio::task::spawn_blocking(move || {
        for (uid, path) in orphans {
            if let Err(error) = cgroups.remove(&path) {
                let error = telemetry::Chain(&error).to_string();
                tracing::warn!(pod_uid = uid, error, "cgroup of a removed pod not removed");
            }
        }
    });
    // It was logged where it panicked.
    removed.await.ok();
}

async fn end_sandbox(kubelet: &Arc<Kubelet>, id: &cri::SandboxId) -> Result<(), CriError> {
    let runtime = &kubelet.deps.runtime;
    let filter = ContainerFilter {
        pod_sandbox_id: Some(id.clone()),
        state: Some(ContainerState::Running),
        ..ContainerFilter::default()
    };
    let running = runtime.list_containers(&filter).await?;
    let endings = running.iter().map(|container| {
        let grace = container.annotations.get(labels::GRACE_PERIOD);
        let grace = grace.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        runtime.stop_container(&container.id, grace.unwrap_or(GRACE_DEFAULT))
    });
    for ended in futures::future::join_all(endings).await {
        ended?;
    }
    runtime.remove_pod_sandbox(id).await
}

async fn count_running(kubelet: &Arc<Kubelet>) {
    let runtime = &kubelet.deps.runtime;
    let ready = PodSandboxFilter {
        state: Some(cri::PodSandboxState::Ready),
        ..PodSandboxFilter::default()
    };
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    if let Ok(sandboxes) = runtime.list_pod_sandbox(&ready).await {
        kubelet.metrics.running_pods.set(count(sandboxes.len()));
    }
    if let Ok(containers) = runtime.list_containers(&ContainerFilter::default()).await {
        for (state, word) in [
            (ContainerState::Created, "created"),
            (ContainerState::Running, "running"),
            (ContainerState::Exited, "exited"),
        ] {
            let of_state = containers.iter().filter(|container| container.state == state).count();
            let gauge = kubelet.metrics.running_containers.with_label_values(&[word]);
            gauge.set(count(of_state));
        }
    }
}

/// A directory of logs is named `<namespace>_<name>_<uid>`.
fn remove_orphaned_logs(directory: &Path, known: &dyn Fn(&str) -> bool) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let orphan = name.rsplit_once('_').is_some_and(|(_, uid)| !known(uid));
        if orphan && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(directory = name, %error, "logs of a removed pod not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_logs_of_unknown_pods_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["n_a_known", "n_b_gone", "other"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        remove_orphaned_logs(dir.path(), &|uid| uid == "known");
        assert!(dir.path().join("n_a_known").exists() && dir.path().join("other").exists());
        assert!(!dir.path().join("n_b_gone").exists());
    }
}
