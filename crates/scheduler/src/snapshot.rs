//! All nodes with their pods: what a decision is made on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::resource::v1::ResourceClaim;
use meta::{LabelSelector, ObjectKey};

use crate::node_info::NodeInfo;
use crate::pod_info::{NamespaceLabels, PodInfo};
use crate::volumes::Volumes;

/// The state of the cluster as the scheduler knows it, pods assumed to be bound included.
///
/// Invariants: a pod is on at most one node; a node that does not exist any more is kept only
/// while pods are on it, and no decision falls on it.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    index: HashMap<String, usize>,
    /// The node of each pod, by uid.
    placed: HashMap<String, String>,
    /// Labels of namespaces.
    pub namespaces: NamespaceLabels,
    /// Disruption budgets, by namespace and name.
    pub budgets: BTreeMap<(String, String), Budget>,
    /// Services' selectors, by namespace and name.
    pub services: BTreeMap<(String, String), LabelSelector>,
    /// Workloads' selectors, by the uid of the workload.
    pub workloads: BTreeMap<String, LabelSelector>,
    /// Pods that wait for victims to leave a node, by node.
    pub nominated: BTreeMap<String, BTreeMap<String, Arc<PodInfo>>>,
    /// Volumes, claims and classes.
    pub volumes: Volumes,
    /// Claims for devices.
    pub device_claims: HashMap<ObjectKey, Arc<ResourceClaim>>,
    /// How many placed pods mount each claim.
    claim_users: HashMap<ObjectKey, usize>,
}

/// What preemption reads of a PodDisruptionBudget.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Which pods.
    pub selector: LabelSelector,
    /// How many more may be disrupted.
    pub allowed: i32,
    /// Pods whose disruption has been counted already.
    pub disrupted: Vec<String>,
}

impl Snapshot {
    /// Nodes in a stable order, those that do not exist included.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.index.get(name).map(|at| &self.nodes[*at])
    }

    /// Where a node is in [`Snapshot::nodes`].
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Adds a node, or changes it.
    pub fn set_node(&mut self, node: &NodeInfo) {
        self.entry(&node.name).set_node(node);
    }

    /// Removes a node; its pods stay until they are removed.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(at) = self.position(name) {
            self.nodes[at].exists = false;
            self.drop_if_unused(name);
        }
    }

    /// Places a pod on the node that it names.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        if self.placed.get(&pod.uid).is_some_and(|node| *node != pod.node_name) {
            self.remove_pod(&pod.uid);
        }
        self.placed.insert(pod.uid.clone(), pod.node_name.clone());
        let node = pod.node_name.clone();
        self.remove_from(&node, &pod.uid);
        for claim in pod.claim_keys() {
            *self.claim_users.entry(claim).or_default() += 1;
        }
        self.entry(&node).add_pod(pod);
    }

    /// Removes a pod, if it is there.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let node = self.placed.remove(uid)?;
        let pod = self.remove_from(&node, uid);
        self.drop_if_unused(&node);
        pod
    }

    fn remove_from(&mut self, node: &str, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.position(node)?;
        let pod = self.nodes[at].remove_pod(uid)?;
        for claim in pod.claim_keys() {
            if let Some(users) = self.claim_users.get_mut(&claim) {
                *users -= 1;
                if *users == 0 {
                    self.claim_users.remove(&claim);
                }
            }
        }
        Some(pod)
    }

    /// Whether a placed pod mounts the claim.
    pub fn is_mounted(&self, claim: &ObjectKey) -> bool {
        self.claim_users.contains_key(claim)
    }

    /// The node that a pod is on.
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.placed.get(uid).map(String::as_str)
    }

    /// Remembers that the pod waits for room on a node.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.forget_nomination(&pod.uid);
        let pods = self.nominated.entry(node.to_owned()).or_default();
        pods.insert(pod.uid.clone(), Arc::clone(pod));
    }

    /// Forgets it.
    pub fn forget_nomination(&mut self, uid: &str) {
        self.nominated.retain(|_, pods| {
            pods.remove(uid);
            !pods.is_empty()
        });
    }

    fn entry(&mut self, name: &str) -> &mut NodeInfo {
        let at = *self.index.entry(name.to_owned()).or_insert_with(|| {
            self.nodes.push(NodeInfo { name: name.to_owned(), ..NodeInfo::default() });
            self.nodes.len() - 1
        });
        &mut self.nodes[at]
    }

    fn drop_if_unused(&mut self, name: &str) {
        let Some(at) = self.position(name) else { return };
        if self.nodes[at].exists || !self.nodes[at].pods.is_empty() {
            return;
        }
        self.index.remove(name);
        self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.index.insert(moved.name.clone(), at);
        }
    }
}
