//! Carrying a plan out: volumes, sandbox, containers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use cri::{ContainerId, ContainerState, CriError, PodSandboxConfig};
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::api::node::v1::RuntimeClass;

use super::{Next, RETRY, RETRY_SOON_FIRST, SANDBOX, VOLUMES, Worker};
use crate::pod::container_status::StartError;
use crate::pod::end::Ending;
use crate::pod::fields::Surroundings;
use crate::pod::lifecycle::{Kill, KillReason, Plan, RestartAll, Start, backoff_key};
use crate::pod::observed::{Observed, restart_count};
use crate::pod::pod_resources;
use crate::pod::sandbox_config::sandbox_config;
use crate::pod::spec::{self, Kind};
use crate::pod::start::Starter;
use crate::volume::{Mounted, VolumeError};

/// How often a claim that is not bound is looked at: a node may not watch claims.
const CLAIMS_EVERY: Duration = Duration::from_secs(1);

impl Worker {
    pub(super) async fn carry_out(
        &mut self,
        plan: Plan,
        observed: &Observed,
    ) -> Result<Next, CriError> {
        if let Some(wait) = self.volumes(observed).await {
            return Ok(Next::Wait(Some(wait)));
        }
        if let Some(attempt) = plan.create_sandbox {
            return self.replace_sandbox(plan.kill_sandbox, attempt, observed).await;
        }
        for kill in &plan.kill {
            self.kill(kill, observed);
        }
        if let Some(restart) = &plan.restart_all {
            return self.restart_all(restart, observed).await;
        }
        let mut held = self.resize(&plan.resize).await;
        let (mut acted, mut started) = (!plan.resize.is_empty() && held.is_none(), false);
        for start in &plan.start {
            if let Some(left) = self.held_for(&start.name) {
                held = Some(held.map_or(left, |other: Duration| other.min(left)));
                continue;
            }
            acted = true;
            started |= self.start(start, observed).await;
        }
        if started {
            self.remove_dead(observed).await;
            return Ok(Next::Again);
        }
        if acted {
            // What failed is to be told.
            let observed = Observed::read(&*self.kubelet.deps.runtime, &self.uid).await?;
            self.report(&observed);
            return Ok(Next::Again);
        }
        let now = self.kubelet.deps.clock.now();
        let refresh = self.mounted.as_ref().and_then(|mounted| mounted.refresh_at);
        let refresh =
            refresh.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let wake = [plan.wake_after(), refresh, held, self.deadline_left()];
        Ok(Next::Wait(wake.into_iter().flatten().min()))
    }

    /// Brings the volumes up to date; when they cannot be, says when to try again.
    async fn volumes(&mut self, observed: &Observed) -> Option<Duration> {
        let now = self.kubelet.deps.clock.now();
        let changed = self.handle.take_objects_changed();
        if changed {
            self.held.clear();
        } else if let Some(left) = self.held_for(VOLUMES) {
            return self.mounted.is_none().then_some(left);
        }
        let due = |mounted: &Mounted| mounted.refresh_at.is_some_and(|at| at <= now);
        if !changed && self.mounted.as_ref().is_some_and(|mounted| !due(mounted)) {
            return None;
        }
        let kubelet = Arc::clone(&self.kubelet);
        let ips = self.pod_ips(observed);
        let host_ip = kubelet.config.node_ip.to_string();
        let allocatable = kubelet.allocatable();
        let around = Surroundings { pod_ips: &ips, host_ip: &host_ip, allocatable: &allocatable };
        match kubelet.volumes.set_up(&self.pod, kubelet.node().as_deref(), &around).await {
            Ok(mounted) => {
                self.mounted = Some(mounted);
                None
            }
            Err(error) => {
                self.tell_volumes(&error);
                let mut wait = self.soon();
                if matches!(error, VolumeError::Claims { .. }) {
                    wait = wait.min(CLAIMS_EVERY);
                }
                self.hold(VOLUMES, wait);
                // Containers that run keep the files they have.
                if let Some(mounted) = &mut self.mounted {
                    mounted.refresh_at = Some(now.saturating_add(wait).unwrap_or(now));
                    return None;
                }
                Some(wait)
            }
        }
    }

    /// The same failure is told again only after a while: claims are asked for often.
    fn tell_volumes(&mut self, error: &VolumeError) {
        let text = error.to_string();
        let now = self.kubelet.deps.clock.now();
        let told = self.volumes_told.as_ref().is_some_and(|(before, at)| {
            *before == text && Duration::try_from(now.duration_since(*at)).is_ok_and(|d| d < RETRY)
        });
        if !told {
            self.kubelet.pod_event(&self.pod, EventType::Warning, "FailedMount", &text);
            self.volumes_told = Some((text, now));
        }
    }

    /// Longer every time, up to the usual.
    fn soon(&mut self) -> Duration {
        let wait = self.retry_soon;
        self.retry_soon = (wait * 2).min(RETRY);
        wait
    }

    async fn replace_sandbox(
        &mut self,
        kill: bool,
        attempt: u32,
        observed: &Observed,
    ) -> Result<Next, CriError> {
        if let Some(left) = self.held_for(SANDBOX) {
            return Ok(Next::Wait(Some(left)));
        }
        if kill {
            if observed.running().next().is_some() || observed.ready_sandbox().is_some() {
                let text = "Pod sandbox changed, it will be killed and re-created.";
                self.kubelet.pod_event(&self.pod, EventType::Normal, "SandboxChanged", text);
            }
            for sandbox in &observed.sandboxes {
                self.kubelet.deps.runtime.stop_pod_sandbox(&sandbox.id).await?;
            }
            // The newest one holds the containers whose logs may still be asked for.
            for sandbox in observed.sandboxes.iter().skip(1) {
                self.kubelet.deps.runtime.remove_pod_sandbox(&sandbox.id).await?;
            }
        }
        if spec::spec(&self.pod).resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
            // It would run without what it was promised.
            let text =
                "Failed to prepare dynamic resources: no driver of devices can be registered";
            let kubelet = &self.kubelet;
            kubelet.pod_event(&self.pod, EventType::Warning, "FailedPrepareDynamicResources", text);
            let wait = self.soon();
            return Ok(Next::Wait(Some(self.hold(SANDBOX, wait))));
        }
        if let Err(why) = self.kubelet.deps.network.ready()
            && !spec::host_network(&self.pod)
        {
            let text = format!(
                "network is not ready: container runtime network not ready: NetworkReady=false \
                 reason:NetworkPluginNotReady message:{why}"
            );
            self.kubelet.pod_event(&self.pod, EventType::Warning, "NetworkNotReady", &text);
            let wait = self.soon();
            return Ok(Next::Wait(Some(self.hold(SANDBOX, wait))));
        }
        let config = match self.runtime_handler().await {
            Ok(handler) => match self.require_users(&handler).await {
                Ok(()) => self.sandbox_config(attempt, &handler),
                Err(why) => Err(why),
            },
            Err(why) => Err(why),
        };
        let config = match config {
            Ok(config) => config,
            Err(why) => return Ok(self.sandbox_failed(&why)),
        };
        self.resizing.forget_cgroup();
        if let Err(why) = self.set_cgroup(pod_resources::cgroup_limits(&self.pod)).await {
            let text = format!("unable to ensure pod container exists: {why}");
            let kubelet = &self.kubelet;
            kubelet.pod_event(&self.pod, EventType::Warning, "FailedCreatePodContainer", &text);
            let wait = self.soon();
            return Ok(Next::Wait(Some(self.hold(SANDBOX, wait))));
        }
        match self.kubelet.deps.runtime.run_pod_sandbox(&config).await {
            Ok(_) => {
                self.retry_soon = RETRY_SOON_FIRST;
                self.kubelet.metrics.started_pods.inc();
                Ok(Next::Again)
            }
            Err(error) => Ok(self.sandbox_failed(&error.to_string())),
        }
    }

    fn sandbox_failed(&mut self, why: &str) -> Next {
        let text = format!("Failed to create pod sandbox: {why}");
        self.kubelet.metrics.started_pods_errors.inc();
        self.kubelet.pod_event(&self.pod, EventType::Warning, "FailedCreatePodSandBox", &text);
        let wait = self.soon();
        Next::Wait(Some(self.hold(SANDBOX, wait)))
    }

    fn sandbox_config(&self, attempt: u32, handler: &str) -> Result<PodSandboxConfig, String> {
        let users = self.kubelet.volumes.users.of(&self.pod)?;
        sandbox_config(&self.kubelet.config, &self.pod, attempt, handler, users)
    }

    /// Whether the runtime can give the pod users of its own, if it wants them.
    async fn require_users(&self, handler: &str) -> Result<(), String> {
        if spec::spec(&self.pod).host_users != Some(false) {
            return Ok(());
        }
        let status = self.kubelet.deps.runtime.status().await.map_err(|error| error.to_string())?;
        let can = |known: &cri::RuntimeHandler| known.name == handler && known.user_namespaces;
        if status.handlers.iter().any(can) {
            return Ok(());
        }
        Err(format!("RuntimeClass handler {handler:?} does not support user namespaces"))
    }

    /// What the pod's runtime class is run with.
    async fn runtime_handler(&self) -> Result<String, String> {
        let class = spec::spec(&self.pod).runtime_class_name.as_deref().unwrap_or_default();
        if class.is_empty() {
            return Ok(String::new());
        }
        let api = self.kubelet.deps.client.api::<RuntimeClass>("");
        let found = api.get(class).await.map_err(|error| telemetry::Chain(&error).to_string());
        found.map(|class| class.handler)
    }

    /// Removes all containers, so that the pod begins with its first init container.
    async fn restart_all(
        &mut self,
        restart: &RestartAll,
        observed: &Observed,
    ) -> Result<Next, CriError> {
        self.backoff.next(&restart.key, restart.since, self.kubelet.deps.clock.now());
        for id in &restart.remove {
            if let Some(status) = observed.by_id(id) {
                let next = restart_count(status).saturating_add(1);
                let counted = self.restart_counts.entry(status.metadata.name.clone()).or_default();
                *counted = next.max(*counted);
            }
            self.kubelet.deps.runtime.remove_container(id).await?;
        }
        self.start_errors.clear();
        Ok(Next::Again)
    }

    fn kill(&mut self, kill: &Kill, observed: &Observed) {
        let Some((_, container)) = spec::container(&self.pod, &kill.name) else { return };
        let name = &kill.name;
        let probe = match kill.reason {
            KillReason::SpecChanged | KillReason::Resize | KillReason::RestartAll => None,
            KillReason::Liveness => container.liveness_probe.as_ref(),
            KillReason::Startup => container.startup_probe.as_ref(),
        };
        let why = match kill.reason {
            KillReason::SpecChanged => {
                format!("Container {name} definition changed, will be restarted")
            }
            KillReason::Resize => format!("Container {name} resize requires restart"),
            KillReason::RestartAll => format!("Stopping container {name}"),
            KillReason::Liveness => {
                format!("Container {name} failed liveness probe, will be restarted")
            }
            KillReason::Startup => {
                format!("Container {name} failed startup probe, will be restarted")
            }
        };
        let grace = probe
            .and_then(|probe| probe.termination_grace_period_seconds)
            .unwrap_or_else(|| spec::grace_period_secs(&self.pod));
        // When all begin anew nothing is waited for, hooks neither.
        let grace = if kill.reason == KillReason::RestartAll { 0 } else { grace };
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        self.end((kill.kind, container), &kill.id, grace, why, observed);
    }

    pub(super) fn end(
        &self,
        container: (Kind, Container),
        id: &ContainerId,
        grace: Duration,
        why: String,
        observed: &Observed,
    ) {
        let ending = Ending {
            pod: Arc::clone(&self.pod),
            container,
            id: id.clone(),
            grace,
            why,
            pod_ip: self.pod_ips(observed).into_iter().next().unwrap_or_default(),
        };
        self.endings.begin(&self.kubelet, &self.handle, ending);
    }

    async fn start(&mut self, start: &Start, observed: &Observed) -> bool {
        let Some(sandbox) = observed.ready_sandbox() else { return false };
        let handler = &sandbox.runtime_handler;
        let config = match self.sandbox_config(sandbox.metadata.attempt, handler) {
            Ok(config) => config,
            Err(why) => {
                tracing::warn!(pod = spec::described(&self.pod), why, "sandbox not described");
                return false;
            }
        };
        let container = spec::container(&self.pod, &start.name);
        if let (Some(after), Some((_, container))) = (start.after, container)
            && self.start_errors.get(&start.name).is_none_or(has_run)
        {
            self.backoff.next(&backoff_key(&container), after, self.kubelet.deps.clock.now());
        }
        let starter = Starter {
            kubelet: &self.kubelet,
            pod: &self.pod,
            sandbox: (&sandbox.id, &config),
            pod_ips: &self.pod_ips(observed),
            mounted: &self.mounted.clone().unwrap_or_default(),
            observed,
            restart_counts: &self.restart_counts,
        };
        match starter.start(start, &mut self.pulls).await {
            Ok(_) => {
                let started = &self.kubelet.metrics.started_containers;
                started.with_label_values(&[container_type(start.kind)]).inc();
                self.start_errors.remove(&start.name);
                true
            }
            Err(error) => {
                let failed = &self.kubelet.metrics.started_containers_errors;
                failed.with_label_values(&[container_type(start.kind), error.reason]).inc();
                if has_run(&error) {
                    // It is run again by its restart policy and its back-off.
                    self.start_errors.insert(start.name.clone(), error);
                    return false;
                }
                let soon = error.reason == "ErrImagePull";
                let pull = self.pulls.wake_after(self.kubelet.deps.clock.now());
                let wait = match pull {
                    // The pull was tried: it backs off from the next look on.
                    Some(_) if soon => Duration::from_secs(1),
                    Some(left) => left.min(RETRY),
                    None => RETRY,
                };
                self.hold(&start.name, wait);
                self.start_errors.insert(start.name.clone(), error);
                false
            }
        }
    }

    /// Keeps one dead container of each name for its logs, as upstream does.
    async fn remove_dead(&self, observed: &Observed) {
        let mut kept = BTreeSet::new();
        for container in &observed.containers {
            if container.state != ContainerState::Exited || kept.insert(&container.metadata.name) {
                continue;
            }
            if let Err(error) = self.kubelet.deps.runtime.remove_container(&container.id).await {
                tracing::warn!(container = %container.id, %error, "dead container not removed");
                continue;
            }
            // Its log goes with it; one that is gone already is fine.
            std::fs::remove_file(&container.log_path).ok();
        }
    }
}

/// Whether the container ran before it came to this.
fn has_run(error: &StartError) -> bool {
    matches!(error.reason, "CrashLoopBackOff" | "PostStartHookError")
}

/// Upstream's word in metrics.
fn container_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Init => "init_container",
        Kind::Regular => "container",
        Kind::Ephemeral => "ephemeral_container",
    }
}
