//! Stopping a pod, and removing what is left of it.

use std::time::Duration;

use client::DeleteOptions;
use cri::{ContainerStatus, CriError};
use k8s_openapi::api::core::v1::Pod;

use super::{Next, RETRY, Worker};
use crate::pod::observed::Observed;
use crate::pod::sandbox_config::log_directory;
use crate::pod::spec::{self, Kind};
use crate::pod::status::EVICTED;

impl Worker {
    /// One step towards nothing that runs.
    pub(super) async fn stop(&mut self, observed: &Observed) -> Result<Next, CriError> {
        let now = self.kubelet.deps.clock.now();
        self.stopping.get_or_insert(now);
        self.start_errors.clear();
        if observed.running().next().is_some() {
            self.end_containers(observed);
            self.report(observed);
            return Ok(Next::Wait(None));
        }
        for sandbox in &observed.sandboxes {
            if sandbox.state == cri::PodSandboxState::Ready {
                self.kubelet.deps.runtime.stop_pod_sandbox(&sandbox.id).await?;
            }
        }
        if !self.gone {
            let after = Observed::read(&*self.kubelet.deps.runtime, &self.uid).await?;
            self.report_end(&after);
        }
        self.kubelet.forget(&self.uid);
        if !self.gone && !api::pod::is_terminating(&self.pod) {
            // It stays for its status and its logs.
            return Ok(Next::Wait(None));
        }
        if !self.cleaned {
            if let Some(next) = self.clean_up(observed).await? {
                return Ok(next);
            }
            self.cleaned = true;
        }
        if self.gone {
            return Ok(Next::Finished);
        }
        self.writer.flushed().await;
        self.delete().await
    }

    fn end_containers(&self, observed: &Observed) {
        let sidecars = spec::init_containers(&self.pod).iter().filter(|c| api::pod::is_sidecar(c));
        let order: Vec<&str> = sidecars.map(|sidecar| sidecar.name.as_str()).collect();
        let is_sidecar = |status: &&ContainerStatus| order.contains(&status.metadata.name.as_str());
        let mut batch: Vec<&ContainerStatus> =
            observed.running().filter(|status| !is_sidecar(status)).collect();
        if batch.is_empty() {
            // Sidecars go after everything else, the last one first.
            let last = order.iter().rev();
            batch.extend(
                last.filter_map(|name| {
                    observed.running().find(|status| status.metadata.name == *name)
                })
                .take(1),
            );
        }
        let grace = self.grace_left();
        for status in batch {
            let name = &status.metadata.name;
            let container = spec::container(&self.pod, name).unwrap_or_else(|| {
                let name = name.clone();
                (
                    Kind::Regular,
                    k8s_openapi::api::core::v1::Container { name, ..Default::default() },
                )
            });
            self.end(container, &status.id, grace, format!("Stopping container {name}"), observed);
        }
    }

    /// What is left of the grace period since the pod began to stop.
    fn grace_left(&self) -> Duration {
        let mut seconds = u64::try_from(spec::grace_period_secs(&self.pod)).unwrap_or(0);
        if self.verdict.as_ref().is_some_and(|verdict| verdict.reason == EVICTED) {
            // Upstream's `immediateEvictionGracePeriodSeconds`.
            seconds = seconds.min(1);
        }
        let grace = Duration::from_secs(seconds);
        let now = self.kubelet.deps.clock.now();
        let begun = self.stopping.unwrap_or(now);
        let spent = Duration::try_from(now.duration_since(begun)).unwrap_or_default();
        // Sidecars get at least a moment, unless nothing was granted at all.
        if grace.is_zero() {
            grace
        } else {
            grace.saturating_sub(spent).max(Duration::from_secs(1))
        }
    }

    /// Removes volumes, sandboxes, cgroup and, when the object is gone, logs.
    async fn clean_up(&mut self, observed: &Observed) -> Result<Option<Next>, CriError> {
        if let Err(error) = self.kubelet.volumes.tear_down(&self.uid) {
            let pod = spec::described(&self.pod);
            tracing::warn!(pod, %error, "volumes of a pod not removed, trying again");
            return Ok(Some(Next::Wait(Some(RETRY))));
        }
        for sandbox in &observed.sandboxes {
            self.kubelet.deps.runtime.remove_pod_sandbox(&sandbox.id).await?;
        }
        let config = &self.kubelet.config;
        let cgroups = self.kubelet.cgroups.clone();
        let path = cgroups.path(&self.pod);
        let removed = tokio::task::spawn_blocking(move || cgroups.remove(&path)).await;
        if let Ok(Err(error)) = removed {
            let (pod, error) = (spec::described(&self.pod), telemetry::Chain(&error).to_string());
            tracing::warn!(pod, error, "cgroup of a pod not removed, trying again");
            return Ok(Some(Next::Wait(Some(RETRY))));
        }
        // Logs of a pod that is deleted go with it; what cannot be removed goes at the next start.
        std::fs::remove_dir_all(log_directory(config, &self.pod)).ok();
        Ok(None)
    }

    /// Removes the object, which makes the API tell us that it is gone.
    async fn delete(&self) -> Result<Next, CriError> {
        let api = self.kubelet.deps.client.api::<Pod>(spec::namespace(&self.pod));
        let options = DeleteOptions {
            grace_period_secs: Some(0),
            uid: Some(self.uid.clone()),
            ..DeleteOptions::default()
        };
        match api.delete(spec::name(&self.pod), &options).await {
            Ok(()) => Ok(Next::Wait(None)),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Next::Finished),
            Err(error) => {
                let pod = spec::described(&self.pod);
                let error = telemetry::Chain(&error).to_string();
                tracing::warn!(pod, error, "pod object not removed, trying again");
                Ok(Next::Wait(Some(Duration::from_secs(1))))
            }
        }
    }
}
