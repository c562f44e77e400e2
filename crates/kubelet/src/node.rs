//! The node object: registering it, keeping its status and its lease.

pub(crate) mod host;
pub(crate) mod lease;
mod status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Typed;
use client::{Backoff, Change, ClientError, EventType, Informer, InformerConfig, ListOptions};
use client::{Patch, Regarding, ResourcePath};
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo};
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::config::OnPodCidr;
use crate::kubelet::Kubelet;
use host::Capacity;
use status::{NodeFacts, node_status};

/// Delays between attempts to register: upstream `tryRegisterWithAPIServer`.
const REGISTER_FIRST: Duration = Duration::from_millis(100);
const REGISTER_MAX: Duration = Duration::from_secs(7);

/// Keeps the node object.
pub(crate) struct NodeKeeper {
    kubelet: Arc<Kubelet>,
    system_info: NodeSystemInfo,
    written: Option<NodeStatus>,
    written_at: Option<Instant>,
    wake: Arc<Notify>,
}

impl NodeKeeper {
    /// Asks the runtime and the kernel who they are.
    pub(crate) async fn new(kubelet: Arc<Kubelet>, wake: Arc<Notify>) -> Self {
        let runtime = match kubelet.deps.runtime.version().await {
            Ok(version) => format!("{}://{}", version.runtime_name, version.runtime_version),
            Err(error) => {
                tracing::warn!(%error, "the runtime does not tell its version");
                String::new()
            }
        };
        let system_info = host::system_info(&runtime);
        Self { kubelet, system_info, written: None, written_at: None, wake }
    }

    /// Makes the node object, or brings the one that is there up to date. Ends when it is done.
    pub(crate) async fn register(&mut self) {
        self.event(EventType::Normal, "Starting", "Starting kubelet.");
        let text = "Updated Node Allocatable limit across pods";
        self.event(EventType::Normal, "NodeAllocatableEnforced", text);
        let mut backoff = Backoff::new(REGISTER_FIRST, REGISTER_MAX);
        while let Err(error) = self.try_register().await {
            tracing::warn!(error = %telemetry::Chain(&error), "node not registered, trying again");
            self.kubelet.deps.clock.sleep(backoff.next_delay()).await;
        }
    }

    async fn try_register(&mut self) -> Result<(), ClientError> {
        let api = self.kubelet.deps.client.api::<Node>("");
        let status = self.status(&[]).await;
        let config = &self.kubelet.config;
        let mut node = Node {
            spec: Some(NodeSpec {
                taints: (!config.register_with_taints.is_empty())
                    .then(|| config.register_with_taints.clone()),
                ..NodeSpec::default()
            }),
            status: Some(status.clone()),
            ..Node::default()
        };
        node.metadata.name = Some(config.node_name.clone());
        node.metadata.labels = Some(self.labels());
        let annotation = "volumes.kubernetes.io/controller-managed-attach-detach";
        node.metadata.annotations = Some([(annotation.to_owned(), "true".to_owned())].into());
        if config.register_node {
            match api.create(&node).await {
                Ok(node) => {
                    self.kubelet.set_node(Arc::new(node));
                    self.note(status);
                    return Ok(());
                }
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
            let labels = json!({ "metadata": { "labels": self.labels() } });
            api.patch(&config.node_name, &Patch::Strategic(labels)).await?;
        }
        let present = api.get(&config.node_name).await?;
        if let Some(cidr) = present.spec.and_then(|spec| spec.pod_cidr) {
            // A kubelet that comes back must not say that its node is not ready, which would take
            // its pods out of their services. What fails here is tried again by `tell_cidr`.
            let tell: OnPodCidr = Arc::clone(&self.kubelet.deps.on_pod_cidr);
            tokio::task::spawn_blocking(move || tell(&cidr).is_ok()).await.ok();
        }
        let present = present.status.unwrap_or_default();
        self.tell_reboot(present.node_info.as_ref());
        let before = present.conditions.unwrap_or_default();
        let status = self.status(&before).await;
        self.write(status).await
    }

    /// Tells when the machine is not in the run that the API knows of: upstream
    /// `setters.go`, `MachineInfo`.
    fn tell_reboot(&self, known: Option<&NodeSystemInfo>) {
        let known = known.map(|info| info.boot_id.as_str()).unwrap_or_default();
        let boot_id = &self.system_info.boot_id;
        if !known.is_empty() && known != boot_id {
            let name = &self.kubelet.config.node_name;
            let text = format!("Node {name} has been rebooted, boot id: {boot_id}");
            self.event(EventType::Warning, "Rebooted", &text);
        }
    }

    /// Keeps the status up to date until the kubelet ends.
    pub(crate) async fn run(mut self) {
        let frequency = self.kubelet.config.node_status_update_frequency;
        let shutdown = self.kubelet.shutdown.clone();
        loop {
            let clock = &self.kubelet.deps.clock;
            tokio::select! {
                () = self.wake.notified() => {}
                () = clock.sleep(frequency) => {}
                () = shutdown.begun() => return,
            }
            if let Err(error) = self.refresh().await {
                let error = telemetry::Chain(&error).to_string();
                tracing::warn!(error, "node status not written");
            }
        }
    }

    async fn refresh(&mut self) -> Result<(), ClientError> {
        let before = self.written.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let status = self.status(&before).await;
        let due = self.written_at.is_none_or(|at| {
            let now = self.kubelet.deps.clock.monotonic();
            now.saturating_duration_since(at) >= self.kubelet.config.node_status_report_frequency
        });
        if !due && self.written.as_ref().is_some_and(|old| same(old, &status)) {
            return Ok(());
        }
        self.write(status).await
    }

    async fn write(&mut self, status: NodeStatus) -> Result<(), ClientError> {
        let api = self.kubelet.deps.client.api::<Node>("");
        let body = status.to_tree().map_err(ClientError::Encode)?;
        let patch = Patch::Strategic(json!({ "status": body }));
        let node = &self.kubelet.config.node_name;
        let node = match api.patch_subresource(node, "status", &patch).await {
            Ok(node) => node,
            Err(error) if error.is_not_found() && self.kubelet.config.register_node => {
                // Somebody deleted it.
                return Box::pin(self.try_register()).await;
            }
            Err(error) => return Err(error),
        };
        self.kubelet.set_node(Arc::new(node));
        self.note(status);
        Ok(())
    }

    /// Remembers what was written, and tells transitions as events.
    fn note(&mut self, status: NodeStatus) {
        let before = self.written.take().and_then(|old| old.conditions).unwrap_or_default();
        for condition in status.conditions.iter().flatten() {
            let old = before.iter().find(|old| old.type_ == condition.type_);
            if old.is_none_or(|old| old.status != condition.status)
                && let Some(reason) = event_reason(condition)
            {
                let name = &self.kubelet.config.node_name;
                let text = format!("Node {name} status is now: {reason}");
                self.event(EventType::Normal, reason, &text);
            }
        }
        self.written = Some(status);
        self.written_at = Some(self.kubelet.deps.clock.monotonic());
    }

    async fn status(&self, previous: &[NodeCondition]) -> NodeStatus {
        let kubelet = &self.kubelet;
        let images = kubelet.deps.images.list_images(None).await.unwrap_or_default();
        let capacity = Capacity::read(&kubelet.config.root_dir);
        let (runtime, not_ready) = self.runtime().await;
        let facts = NodeFacts {
            node_name: &kubelet.config.node_name,
            node_ip: kubelet.config.node_ip,
            port: kubelet.config.port,
            max_pods: kubelet.config.max_pods,
            capacity: &capacity,
            eviction_hard: kubelet.config.eviction_hard,
            system_info: &self.system_info,
            images,
            not_ready,
            handlers: &runtime.handlers,
            groups_policy: runtime.supplemental_groups_policy,
            previous,
        };
        node_status(&facts, kubelet.deps.clock.now())
    }

    /// What the runtime can do, and why pods cannot run.
    async fn runtime(&self) -> (cri::RuntimeStatus, Vec<String>) {
        let status = match self.kubelet.deps.runtime.status().await {
            Ok(status) => status,
            Err(error) => {
                let why = format!("container runtime is down: {error}");
                return (cri::RuntimeStatus::default(), vec![why]);
            }
        };
        let bad = status.conditions.iter().filter(|condition| !condition.status);
        let problems = bad.map(|condition| {
            let what = if condition.r#type == "NetworkReady" { " network" } else { "" };
            format!(
                "container runtime{what} not ready: {}=false reason:{} message:{}",
                condition.r#type, condition.reason, condition.message
            )
        });
        let problems = problems.collect();
        (status, problems)
    }

    fn labels(&self) -> std::collections::BTreeMap<String, String> {
        let config = &self.kubelet.config;
        let mut labels = config.node_labels.clone();
        for (key, value) in [
            (api::labels::HOSTNAME, config.node_name.as_str()),
            (api::labels::OS, "linux"),
            (api::labels::ARCH, host::architecture()),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", host::architecture()),
        ] {
            labels.insert(key.to_owned(), value.to_owned());
        }
        labels
    }

    fn event(&self, kind: EventType, reason: &str, text: &str) {
        let name = &self.kubelet.config.node_name;
        let regarding = Regarding {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            // As upstream: the kubelet knows no uid of its node.
            uid: name.clone(),
            ..Regarding::default()
        };
        self.kubelet.recorder.record(&regarding, kind, reason, text);
    }
}

fn event_reason(condition: &NodeCondition) -> Option<&'static str> {
    Some(match (condition.type_.as_str(), condition.status.as_str()) {
        ("Ready", "True") => "NodeReady",
        ("Ready", _) => "NodeNotReady",
        ("MemoryPressure", "True") => "NodeHasInsufficientMemory",
        ("MemoryPressure", _) => "NodeHasSufficientMemory",
        ("DiskPressure", "True") => "NodeHasDiskPressure",
        ("DiskPressure", _) => "NodeHasNoDiskPressure",
        ("PIDPressure", "True") => "NodeHasInsufficientPID",
        ("PIDPressure", _) => "NodeHasSufficientPID",
        _ => return None,
    })
}

/// Whether two statuses tell the same, heartbeats apart.
fn same(old: &NodeStatus, new: &NodeStatus) -> bool {
    let strip = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    strip(old) == strip(new)
}

/// Follows the node's own object: tells its pod CIDR, and wakes the keeper.
pub(crate) fn follow(kubelet: &Arc<Kubelet>, wake: &Arc<Notify>) {
    let name = &kubelet.config.node_name;
    let config = InformerConfig {
        path: ResourcePath::of::<Node>(),
        namespace: String::new(),
        options: ListOptions::fields(format!("metadata.name={name}")),
    };
    let (client, clock) = (&kubelet.deps.client, &kubelet.deps.clock);
    let lister = Informer::spawn(client, clock, config, &kubelet.shutdown, Node::of);
    let (cidr, changes) = watch::channel(String::new());
    // The task ends with the informer, which holds the sender.
    drop(stdx::task::spawn("pod-cidr", tell_cidr(Arc::clone(kubelet), changes, Arc::clone(wake))));
    let kubelet = Arc::clone(kubelet);
    let wake = Arc::clone(wake);
    lister.on_change(move |_, change| match change {
        Change::Added(node) | Change::Updated { new: node, .. } => {
            let given = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
            kubelet.set_node(Arc::clone(node));
            cidr.send_if_modified(|old| {
                let given = given.unwrap_or_default();
                let changed = *old != given && !given.is_empty();
                if changed {
                    *old = given;
                }
                changed
            });
        }
        Change::Deleted(_) => wake.notify_one(),
    });
}

async fn tell_cidr(kubelet: Arc<Kubelet>, mut changes: watch::Receiver<String>, wake: Arc<Notify>) {
    let mut backoff = Backoff::new(REGISTER_FIRST, REGISTER_MAX);
    while changes.changed().await.is_ok() {
        loop {
            let cidr = changes.borrow_and_update().clone();
            let tell: OnPodCidr = Arc::clone(&kubelet.deps.on_pod_cidr);
            let told = {
                let cidr = cidr.clone();
                tokio::task::spawn_blocking(move || tell(&cidr).map_err(|e| e.to_string())).await
            };
            let error = match told {
                Ok(Ok(())) => break,
                Ok(Err(error)) => error,
                Err(error) => error.to_string(),
            };
            tracing::warn!(cidr, error, "pod network not configured, trying again");
            kubelet.deps.clock.sleep(backoff.next_delay()).await;
        }
        backoff.reset();
        let config = cri::RuntimeConfig { pod_cidr: changes.borrow().clone() };
        if let Err(error) = kubelet.deps.runtime.update_runtime_config(&config).await {
            tracing::warn!(%error, "the runtime does not take the pod CIDR");
        }
        wake.notify_one();
        kubelet.workers.retry_all();
    }
}
