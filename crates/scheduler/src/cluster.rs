//! The scheduler's state, and how the watch events change it.
//!
//! One lock guards snapshot and queue: a decision is made on a state that does not move, and takes
//! microseconds. Nothing is awaited under it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use client::Change;
use k8s_openapi::api::resource::v1::ResourceClaim;
use meta::{LabelSelector, ObjectKey};

use crate::framework::{ClusterEvent, Plugin};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::Queue;
use crate::snapshot::{Budget, Snapshot};
use crate::volumes::Volumes;

/// What the scheduler knows.
#[derive(Default)]
pub struct Cluster {
    /// Nodes and placed pods.
    pub snapshot: Snapshot,
    /// Pods that wait.
    pub queue: Queue,
    /// Where looking at nodes begins next time.
    pub start: usize,
    /// Pods that are placed in the snapshot but not yet bound in what was watched.
    assumed: HashSet<String>,
}

impl Cluster {
    /// Places a pod before its binding is confirmed.
    pub fn assume(&mut self, pod: &PodInfo, node: &str) {
        let mut placed = pod.clone();
        node.clone_into(&mut placed.node_name);
        self.assumed.insert(pod.uid.clone());
        self.snapshot.forget_nomination(&pod.uid);
        self.snapshot.add_pod(Arc::new(placed));
    }

    /// Takes it back, unless the binding was seen after all.
    pub fn forget(&mut self, uid: &str) -> bool {
        let assumed = self.assumed.remove(uid);
        if assumed {
            self.snapshot.remove_pod(uid);
        }
        assumed
    }

    /// Takes over a change of a pod. `true` when the scheduler has something to do.
    pub fn pod_changed(
        &mut self,
        change: Change<'_, PodInfo>,
        scheduler_name: &str,
        plugins: &[Box<dyn Plugin>],
        now: Instant,
    ) -> bool {
        match change {
            Change::Deleted(pod) => self.pod_left(pod, plugins, now),
            Change::Added(pod) | Change::Updated { new: pod, .. } if pod.terminal => {
                self.pod_left(pod, plugins, now)
            }
            Change::Added(pod) | Change::Updated { new: pod, .. } if pod.is_assigned() => {
                self.pod_placed(pod, plugins, now)
            }
            Change::Added(pod) => self.pod_waits(None, pod, scheduler_name, plugins, now),
            Change::Updated { old, new } => {
                self.pod_waits(Some(old), new, scheduler_name, plugins, now)
            }
        }
    }

    fn pod_placed(
        &mut self,
        pod: &Arc<PodInfo>,
        plugins: &[Box<dyn Plugin>],
        now: Instant,
    ) -> bool {
        self.queue.remove(&pod.uid);
        self.snapshot.forget_nomination(&pod.uid);
        let confirmed = self.assumed.remove(&pod.uid);
        let before = self
            .snapshot
            .node_of(&pod.uid)
            .and_then(|node| self.snapshot.node(node))
            .and_then(|node| node.pods.get(&pod.uid))
            .cloned();
        self.snapshot.add_pod(Arc::clone(pod));
        let Some(before) = before else {
            return self.queue.happened(ClusterEvent::PodPlaced, plugins, now);
        };
        let mut retry = confirmed && self.queue.happened(ClusterEvent::PodPlaced, plugins, now);
        if before.labels != pod.labels || before.deleting != pod.deleting {
            retry |= self.queue.happened(ClusterEvent::PodPlaced, plugins, now);
        }
        if before.requests != pod.requests {
            retry |= self.queue.happened(ClusterEvent::PodLeft, plugins, now);
        }
        retry
    }

    fn pod_left(&mut self, pod: &PodInfo, plugins: &[Box<dyn Plugin>], now: Instant) -> bool {
        self.queue.remove(&pod.uid);
        self.assumed.remove(&pod.uid);
        self.snapshot.forget_nomination(&pod.uid);
        let placed = self.snapshot.remove_pod(&pod.uid).is_some();
        // Room that was kept for a nominated pod is free as well.
        let freed = placed || !pod.nominated_node.is_empty();
        freed && self.queue.happened(ClusterEvent::PodLeft, plugins, now)
    }

    fn pod_waits(
        &mut self,
        old: Option<&Arc<PodInfo>>,
        pod: &Arc<PodInfo>,
        scheduler_name: &str,
        plugins: &[Box<dyn Plugin>],
        now: Instant,
    ) -> bool {
        if pod.scheduler_name != scheduler_name || self.assumed.contains(&pod.uid) {
            return false;
        }
        if pod.deleting {
            self.queue.remove(&pod.uid);
            self.snapshot.forget_nomination(&pod.uid);
            return false;
        }
        if pod.nominated_node.is_empty() {
            self.snapshot.forget_nomination(&pod.uid);
        } else {
            self.snapshot.nominate(pod, &pod.nominated_node);
        }
        let gated = plugins.iter().any(|plugin| plugin.pre_enqueue(pod).is_err());
        self.queue.add(Arc::clone(pod), gated, now);
        if old.is_some_and(|old| schedules_differently(old, pod)) {
            self.queue.retry(&pod.uid, now);
        }
        true
    }

    /// Whether a pod is placed and not yet seen bound.
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains(uid)
    }

    /// Takes over a change of what is known of volumes.
    pub fn volumes_changed(
        &mut self,
        change: impl FnOnce(&mut Volumes),
        event: ClusterEvent,
        plugins: &[Box<dyn Plugin>],
        now: Instant,
    ) -> bool {
        change(&mut self.snapshot.volumes);
        self.queue.happened(event, plugins, now)
    }

    /// Takes over a claim for devices, `None` when it is gone.
    pub fn device_claim_changed(
        &mut self,
        key: &ObjectKey,
        claim: Option<Arc<ResourceClaim>>,
        plugins: &[Box<dyn Plugin>],
        now: Instant,
    ) -> bool {
        match claim {
            Some(claim) => {
                self.snapshot.device_claims.insert(key.clone(), claim);
                self.queue.happened(ClusterEvent::DeviceClaims, plugins, now)
            }
            None => {
                self.snapshot.device_claims.remove(key);
                false
            }
        }
    }

    /// Takes over a change of a node.
    pub fn node_changed(
        &mut self,
        change: Change<'_, NodeInfo>,
        plugins: &[Box<dyn Plugin>],
        now: Instant,
    ) -> bool {
        match change {
            Change::Added(node) => {
                self.snapshot.set_node(node);
                self.queue.happened(ClusterEvent::NodeAdded, plugins, now)
            }
            Change::Updated { old, new } => {
                self.snapshot.set_node(new);
                let mut retry = false;
                for event in node_events(old, new) {
                    retry |= self.queue.happened(event, plugins, now);
                }
                retry
            }
            Change::Deleted(node) => {
                self.snapshot.remove_node(&node.name);
                false
            }
        }
    }

    /// Takes over the labels of a namespace, `None` when it is gone.
    pub fn namespace_changed(
        &mut self,
        name: &str,
        labels: Option<std::collections::BTreeMap<String, String>>,
        plugins: &[Box<dyn Plugin>],
        now: Instant,
    ) -> bool {
        match labels {
            Some(labels) => {
                self.snapshot.namespaces.insert(name.to_owned(), labels);
                self.queue.happened(ClusterEvent::Namespace, plugins, now)
            }
            None => {
                self.snapshot.namespaces.remove(name);
                false
            }
        }
    }

    /// Takes over a disruption budget.
    pub fn budget_changed(&mut self, key: (String, String), budget: Option<Budget>) {
        match budget {
            Some(budget) => drop(self.snapshot.budgets.insert(key, budget)),
            None => drop(self.snapshot.budgets.remove(&key)),
        }
    }

    /// Takes over the selector of a service.
    pub fn service_changed(&mut self, key: (String, String), selector: Option<LabelSelector>) {
        match selector {
            Some(selector) => drop(self.snapshot.services.insert(key, selector)),
            None => drop(self.snapshot.services.remove(&key)),
        }
    }

    /// Takes over the selector of a workload.
    pub fn workload_changed(&mut self, uid: String, selector: Option<LabelSelector>) {
        match selector {
            Some(selector) => drop(self.snapshot.workloads.insert(uid, selector)),
            None => drop(self.snapshot.workloads.remove(&uid)),
        }
    }
}

/// Whether a waiting pod changed in what decisions read; of its status only the claims that were
/// made for it count.
fn schedules_differently(old: &PodInfo, new: &PodInfo) -> bool {
    old.generation != new.generation
        || old.labels != new.labels
        || old.gates != new.gates
        || old.device_claims != new.device_claims
}

fn node_events(old: &NodeInfo, new: &NodeInfo) -> Vec<ClusterEvent> {
    let mut events = Vec::new();
    if old.allocatable != new.allocatable || old.pods_max != new.pods_max {
        events.push(ClusterEvent::NodeAllocatable);
    }
    if old.labels != new.labels {
        events.push(ClusterEvent::NodeLabels);
    }
    if old.taints != new.taints || old.unschedulable != new.unschedulable {
        events.push(ClusterEvent::NodeTaints);
    }
    events
}
