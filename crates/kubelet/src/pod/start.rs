//! Making and running one container.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use client::EventType;
use cri::{ContainerId, PodSandboxConfig, SandboxId};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::kubelet::Kubelet;
use crate::pod::container_config::{ContainerFacts, container_config};
use crate::pod::container_status::StartError;
use crate::pod::env::{EnvSources, ServiceInfo};
use crate::pod::hooks;
use crate::pod::image::{self, PullFailures};
use crate::pod::lifecycle::Start;
use crate::pod::names;
use crate::pod::observed::{Observed, restart_count};
use crate::pod::security;
use crate::pod::spec::{self, Kind};
use crate::volume::Mounted;

/// Everything a start depends on beside the plan.
pub(crate) struct Starter<'a> {
    pub(crate) kubelet: &'a Arc<Kubelet>,
    pub(crate) pod: &'a Arc<Pod>,
    pub(crate) sandbox: (&'a SandboxId, &'a PodSandboxConfig),
    pub(crate) pod_ips: &'a [String],
    pub(crate) mounted: &'a Mounted,
    pub(crate) observed: &'a Observed,
    /// Of containers that were removed to begin anew.
    pub(crate) restart_counts: &'a BTreeMap<String, i32>,
}

impl Starter<'_> {
    /// Makes and runs it. What fails is told as an event and becomes the waiting reason.
    ///
    /// When it is dropped, a container may be left that was made but not run; the next look at
    /// the pod finds it.
    pub(crate) async fn start(
        &self,
        start: &Start,
        failures: &mut PullFailures,
    ) -> Result<ContainerId, StartError> {
        let Some((kind, container)) = spec::container(self.pod, &start.name) else {
            return Err(error("CreateContainerConfigError", "container is not in the pod"));
        };
        let whom = (kind, &container);
        let ensured = image::ensure(self.kubelet, self.pod, whom, self.sandbox.1, failures).await;
        let image = ensured.inspect_err(|error| {
            self.event(whom, EventType::Warning, "Failed", &format!("Error: {}", error.reason));
        })?;
        let failed = |reason| move |message: String| StartError { reason, message };
        self.ensure_image_volumes(whom, failures).await?;
        let configured = self.configure(start, whom, &image).await;
        let config = configured
            .map_err(failed("CreateContainerConfigError"))
            .inspect_err(|error| self.failed(whom, error))?;
        let runtime = &self.kubelet.deps.runtime;
        let id = runtime
            .create_container(self.sandbox.0, &config, self.sandbox.1)
            .await
            .map_err(|error| error.message().to_owned())
            .map_err(failed("CreateContainerError"))
            .inspect_err(|error| self.failed(whom, error))?;
        self.event(whom, EventType::Normal, "Created", "Container created");
        runtime
            .start_container(&id)
            .await
            .map_err(|error| error.message().to_owned())
            .map_err(failed("RunContainerError"))
            .inspect_err(|error| self.failed(whom, error))?;
        self.event(whom, EventType::Normal, "Started", "Container started");
        self.post_start(&id, whom).await?;
        Ok(id)
    }

    /// Images that the container mounts are pulled by the policies of their volumes.
    async fn ensure_image_volumes(
        &self,
        (kind, container): (Kind, &Container),
        failures: &mut PullFailures,
    ) -> Result<(), StartError> {
        for volume in spec::spec(self.pod).volumes.iter().flatten() {
            let mut mounts = container.volume_mounts.iter().flatten();
            let Some(source) = &volume.image else { continue };
            if !mounts.any(|mount| mount.name == volume.name) {
                continue;
            }
            let stand_in = Container {
                name: container.name.clone(),
                image: source.reference.clone(),
                image_pull_policy: source.pull_policy.clone(),
                ..Container::default()
            };
            let whom = (kind, &stand_in);
            let ensured = image::ensure(self.kubelet, self.pod, whom, self.sandbox.1, failures);
            ensured.await.inspect_err(|error| {
                self.event(whom, EventType::Warning, "Failed", &format!("Error: {}", error.reason));
            })?;
        }
        Ok(())
    }

    async fn configure(
        &self,
        start: &Start,
        whom: (Kind, &Container),
        image: &cri::Image,
    ) -> Result<cri::ContainerConfig, String> {
        let (kind, container) = whom;
        security::verify_non_root(self.pod, container, image)?;
        if !self.kubelet.static_pods.has(self.pod) {
            self.kubelet.services.synced().await;
        }
        let services: Vec<ServiceInfo> =
            self.kubelet.services.list().iter().map(|service| (**service).clone()).collect();
        let environment = {
            let host_ip = self.kubelet.config.node_ip.to_string();
            let allocatable = self.kubelet.allocatable();
            let around = crate::pod::fields::Surroundings {
                pod_ips: self.pod_ips,
                host_ip: &host_ip,
                allocatable: &allocatable,
            };
            let sources = EnvSources {
                config_maps: &self.kubelet.volumes.config_maps,
                secrets: &self.kubelet.volumes.secrets,
                services: &services,
                around: &around,
                mounted: self.mounted,
            };
            sources.environment(self.pod, container).await?
        };
        let pod_dir = self.kubelet.volumes.pod_dir(spec::uid(self.pod));
        container_config(&ContainerFacts {
            pod: self.pod,
            container,
            attempt: start.attempt,
            restart_count: self.restart_count(start),
            image: &image.id,
            environment,
            mounted: self.mounted,
            mounts: &*self.kubelet.volumes.mounts,
            pod_dir: &pod_dir,
            node_memory: self.kubelet.capacity.memory_bytes,
            target: (kind == Kind::Ephemeral).then(|| self.target(container)).flatten(),
            users: self.sandbox.1.linux.security_context.namespace_options.users.clone(),
            hosts_file: self.write_hosts(&pod_dir)?,
        })
    }

    fn restart_count(&self, start: &Start) -> i32 {
        let latest = self.observed.latest(&start.name);
        let removed = || self.restart_counts.get(&start.name).copied().unwrap_or(0);
        latest.map_or_else(removed, |status| restart_count(status).saturating_add(1))
    }

    /// The container whose processes an ephemeral one sees.
    fn target(&self, container: &Container) -> Option<ContainerId> {
        let ephemeral = spec::spec(self.pod).ephemeral_containers.as_ref()?;
        let found = ephemeral.iter().find(|other| other.name == container.name)?;
        let name = found.target_container_name.as_deref().filter(|name| !name.is_empty())?;
        self.observed.latest(name).map(|status| status.id.clone())
    }

    fn write_hosts(&self, pod_dir: &std::path::Path) -> Result<Option<PathBuf>, String> {
        let path = pod_dir.join("etc-hosts");
        let node = if spec::host_network(self.pod) {
            std::fs::read_to_string("/etc/hosts").unwrap_or_default()
        } else {
            String::new()
        };
        let domain = &self.kubelet.config.cluster_domain;
        let text = names::hosts_file(self.pod, self.pod_ips, domain, &node);
        let write = || {
            std::fs::create_dir_all(pod_dir)?;
            // In place: containers that run have this very file mounted.
            std::fs::write(&path, text)
        };
        write().map_err(|error: std::io::Error| {
            format!("failed to write {}: {error}", path.display())
        })?;
        Ok(Some(path))
    }

    async fn post_start(
        &self,
        id: &ContainerId,
        whom: (Kind, &Container),
    ) -> Result<(), StartError> {
        let container = whom.1;
        let lifecycle = container.lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return Ok(());
        };
        let pod_ip = self.pod_ips.first().map(String::as_str).unwrap_or_default();
        let Err(why) = hooks::run(self.kubelet, id, container, hook, pod_ip).await else {
            return Ok(());
        };
        tracing::info!(container = container.name, why, "postStart hook failed");
        let warning = EventType::Warning;
        self.event(whom, warning, "FailedPostStartHook", "PostStartHook failed");
        self.event(whom, EventType::Normal, "Killing", "FailedPostStartHook");
        let grace = u64::try_from(spec::grace_period_secs(self.pod)).unwrap_or(0);
        let grace = std::time::Duration::from_secs(grace);
        if let Err(error) = self.kubelet.deps.runtime.stop_container(id, grace).await {
            tracing::warn!(container = container.name, %error, "container not stopped");
        }
        Err(error("PostStartHookError", &why))
    }

    fn failed(&self, whom: (Kind, &Container), error: &StartError) {
        self.event(whom, EventType::Warning, "Failed", &format!("Error: {}", error.message));
    }

    fn event(&self, whom: (Kind, &Container), kind: EventType, reason: &str, text: &str) {
        let whom = (whom.0, whom.1.name.as_str());
        self.kubelet.container_event(self.pod, whom, kind, reason, text);
    }
}

fn error(reason: &'static str, message: &str) -> StartError {
    StartError { reason, message: message.to_owned() }
}
