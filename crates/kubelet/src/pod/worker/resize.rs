//! Resizing a pod that runs: what the node grants, and how far that has come.
//!
//! The pod's own cgroup allows what was before and what is to come while its containers change, so
//! that the kernel takes every step.

use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use cri::LinuxContainerResources;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use super::{RETRY, Worker};
use crate::pod::allocation::Allocation;
use crate::pod::lifecycle::{KillReason, Plan, Resize, is_less};
use crate::pod::pod_resources::{cgroup_limits, wider};
use crate::pod::spec;
use crate::pod::status::ResizeCondition;

/// Name in [`Worker::held`] that no container can have.
const RESIZE: &str = "(resize)";

/// How a resize stands.
#[derive(Debug, Default)]
pub(super) struct Resizing {
    /// It is not granted.
    pending: Option<ResizeCondition>,
    /// It is granted, and not in force everywhere.
    progress: Option<ResizeCondition>,
    /// What the pod's cgroup was last given.
    cgroup: Option<LinuxContainerResources>,
}

impl Resizing {
    /// The pod's conditions about it.
    pub(super) fn conditions(&self) -> Vec<ResizeCondition> {
        self.pending.iter().chain(&self.progress).cloned().collect()
    }

    /// Whether the pod as a whole has what it was granted.
    pub(super) fn is_in_force(&self, pod: &Pod) -> bool {
        self.cgroup.as_ref().is_none_or(|now| *now == cgroup_limits(pod))
    }

    /// Nothing is known of the pod's cgroup.
    pub(super) fn forget_cgroup(&mut self) {
        self.cgroup = None;
    }
}

impl Worker {
    /// Tries to be granted what the spec asks for.
    pub(super) fn follow_allocation(&mut self) {
        if Allocation::of(&self.desired) == Allocation::of(&self.pod) {
            self.resizing.pending = None;
            return;
        }
        let generation = self.desired.metadata.generation;
        match self.kubelet.resize(&self.desired) {
            Ok(()) => {
                self.pod = Arc::clone(&self.desired);
                self.resizing.pending = None;
                self.resizing.progress = Some(ResizeCondition::in_progress(generation));
                self.held.remove(RESIZE);
                let text = message("Pod resize started", &self.pod, None);
                self.kubelet.pod_event(&self.pod, EventType::Normal, "ResizeStarted", &text);
            }
            Err(refused) => {
                let pending = ResizeCondition {
                    kind: api::pod::RESIZE_PENDING,
                    reason: refused.reason.clone(),
                    message: refused.message.clone(),
                    generation,
                };
                if self.resizing.pending.as_ref() == Some(&pending) {
                    return;
                }
                let head = format!("Pod resize {}", refused.reason);
                let text = message(&head, &self.desired, Some(&refused.message));
                let event = format!("Resize{}", refused.reason);
                self.kubelet.pod_event(&self.desired, EventType::Warning, &event, &text);
                self.resizing.pending = Some(pending);
            }
        }
    }

    /// Notes whether everything that was granted is in force.
    pub(super) fn note_progress(&mut self, plan: &Plan) {
        let restarting = plan.kill.iter().any(|kill| kill.reason == KillReason::Resize);
        let in_force = plan.resize.is_empty()
            && !restarting
            && self.endings.ids().is_empty()
            && self.resizing.is_in_force(&self.pod);
        let generation = self.pod.metadata.generation;
        match (&self.resizing.progress, in_force) {
            (Some(_), true) => {
                self.resizing.progress = None;
                let text = message("Pod resize completed", &self.pod, None);
                self.kubelet.pod_event(&self.pod, EventType::Normal, "ResizeCompleted", &text);
            }
            // It was granted to a kubelet before this one.
            (None, false) if !plan.resize.is_empty() => {
                self.resizing.progress = Some(ResizeCondition::in_progress(generation));
            }
            _ => {}
        }
    }

    /// Brings the cgroups of the pod and of its containers to what was granted. Says when to try
    /// again what failed.
    pub(super) async fn resize(&mut self, resizes: &[Resize]) -> Option<Duration> {
        if let Some(left) = self.held_for(RESIZE) {
            return Some(left);
        }
        let wanted = cgroup_limits(&self.pod);
        let first = match &self.resizing.cgroup {
            Some(before) if !resizes.is_empty() => wider(before, &wanted),
            _ => wanted.clone(),
        };
        match self.resize_in_steps(first, resizes, wanted).await {
            Ok(()) => None,
            Err(error) => {
                let failed = ResizeCondition {
                    reason: "Error".to_owned(),
                    message: error.clone(),
                    ..ResizeCondition::in_progress(self.pod.metadata.generation)
                };
                if self.resizing.progress.as_ref() != Some(&failed) {
                    let text = message("Pod resize error", &self.pod, Some(&error));
                    self.kubelet.pod_event(&self.pod, EventType::Warning, "ResizeError", &text);
                    self.resizing.progress = Some(failed);
                }
                Some(self.hold(RESIZE, RETRY))
            }
        }
    }

    async fn resize_in_steps(
        &mut self,
        first: LinuxContainerResources,
        resizes: &[Resize],
        wanted: LinuxContainerResources,
    ) -> Result<(), String> {
        self.check_memory(resizes, &wanted).await?;
        self.set_cgroup(first).await?;
        for resize in resizes {
            let runtime = &self.kubelet.deps.runtime;
            let changed = runtime.update_container_resources(&resize.id, &resize.resources).await;
            changed.map_err(|error| format!("container {}: {error}", resize.name))?;
        }
        self.set_cgroup(wanted).await
    }

    /// Limits below what is used would have the kernel end processes: upstream
    /// `validateMemoryResizeAction`. What is used may have changed a moment later.
    async fn check_memory(
        &self,
        resizes: &[Resize],
        wanted: &LinuxContainerResources,
    ) -> Result<(), String> {
        let mut wrong = Vec::new();
        let pod_limit = wanted.memory_limit_in_bytes;
        let before = self.resizing.cgroup.as_ref().map(|before| before.memory_limit_in_bytes);
        if before.is_some_and(|before| is_less(pod_limit, before)) {
            let (cgroups, path) =
                (self.kubelet.cgroups.clone(), self.kubelet.cgroups.path(&self.pod));
            let used = tokio::task::spawn_blocking(move || cgroups.memory_usage(&path)).await;
            match used.ok().flatten() {
                None => wrong.push("missing pod memory usage".to_owned()),
                Some(used) => wrong.extend(below("pod", pod_limit, used)),
            }
        }
        for resize in resizes.iter().filter(|resize| resize.takes_memory) {
            let what = format!("container {:?}", resize.name);
            let stats = self.kubelet.deps.runtime.container_stats(&resize.id).await;
            match stats.ok().and_then(|stats| stats.memory) {
                None => wrong.push(format!("missing {what} memory usage")),
                Some(memory) => {
                    let limit = resize.resources.memory_limit_in_bytes;
                    wrong.extend(below(&what, limit, memory.usage_bytes));
                }
            }
        }
        match &*wrong {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            all => Err(format!("cannot decrease memory limits: [{}]", all.join(", "))),
        }
    }

    /// Makes the pod's cgroup, or changes its limits.
    pub(super) async fn set_cgroup(
        &mut self,
        limits: LinuxContainerResources,
    ) -> Result<(), String> {
        if self.resizing.cgroup.as_ref() == Some(&limits) {
            return Ok(());
        }
        let cgroups = self.kubelet.cgroups.clone();
        let path = cgroups.path(&self.pod);
        let given = limits.clone();
        match tokio::task::spawn_blocking(move || cgroups.ensure_pod(&path, &given)).await {
            Ok(Ok(())) => {
                self.resizing.cgroup = Some(limits);
                Ok(())
            }
            Ok(Err(error)) => Err(telemetry::Chain(&error).to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn below(what: &str, limit: i64, used: u64) -> Option<String> {
    u64::try_from(limit).is_ok_and(|limit| used >= limit).then(|| {
        format!("attempting to set {what} memory limit ({limit}) below current usage ({used})")
    })
}

/// The text of an event: upstream's `events.podResizeMessage`.
fn message(head: &str, pod: &Pod, error: Option<&str>) -> String {
    let list = |containers: &[k8s_openapi::api::core::v1::Container]| -> Vec<Value> {
        let one = |c: &k8s_openapi::api::core::v1::Container| json!({ "name": c.name, "resources": c.resources.clone().unwrap_or_default() });
        containers.iter().map(one).collect()
    };
    let mut summary = Map::new();
    let init = list(spec::init_containers(pod));
    if !init.is_empty() {
        summary.insert("initContainers".to_owned(), init.into());
    }
    summary.insert("containers".to_owned(), list(&spec::spec(pod).containers).into());
    summary.insert("generation".to_owned(), pod.metadata.generation.unwrap_or_default().into());
    if let Some(error) = error {
        summary.insert("error".to_owned(), error.into());
    }
    format!("{head}: {}", Value::Object(summary))
}
