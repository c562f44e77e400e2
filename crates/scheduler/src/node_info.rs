//! A node and the pods on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::node_labels::NodeLabels;
use crate::pod_info::PodInfo;
use crate::resources::Resources;
use crate::verdicts::Labels;

/// A node, reduced to what decisions need, with the sums over its pods.
///
/// Invariant: `requested`, `scored`, the counts and the groups are the sums over `pods`.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: NodeLabels,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// What pods may use.
    pub allocatable: Resources,
    /// How many pods it may run.
    pub pods_max: i64,
    /// Images it has, with their sizes.
    pub images: BTreeMap<String, i64>,
    /// Whether the Node object exists: pods can be known before their node.
    pub exists: bool,
    /// Its pods by uid.
    pub pods: BTreeMap<String, Arc<PodInfo>>,
    /// What its pods ask for.
    pub requested: Resources,
    /// What its pods are scored with.
    pub scored: Resources,
    /// How many of its pods have terms about other pods.
    pub pods_with_affinity: usize,
    /// Its pods that are not being deleted, by namespace and labels: those of one workload are
    /// alike for every selector.
    pub groups: Vec<Group>,
}

/// Pods that no selector tells apart.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their labels; here as well, as a decision goes through all groups of all nodes.
    pub labels: Arc<Labels>,
    /// One of them, which may be gone.
    pub like: Arc<PodInfo>,
    /// How many there are.
    pub count: i64,
}

impl NodeInfo {
    /// Takes over the fields of the Node object.
    pub fn set_node(&mut self, node: &NodeInfo) {
        self.name.clone_from(&node.name);
        self.labels.clone_from(&node.labels);
        self.taints.clone_from(&node.taints);
        self.unschedulable = node.unschedulable;
        self.allocatable.clone_from(&node.allocatable);
        self.pods_max = node.pods_max;
        self.images.clone_from(&node.images);
        self.exists = true;
    }

    /// Adds a pod, in place of an earlier version of it.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.uid);
        self.requested.add(&pod.requests);
        self.scored.add(&pod.scored);
        self.pods_with_affinity += usize::from(!pod.affinity.is_empty());
        if !pod.deleting {
            match self.group(&pod) {
                Some(at) => self.groups[at].count += 1,
                None => {
                    let labels = Arc::clone(&pod.labels);
                    self.groups.push(Group { labels, like: Arc::clone(&pod), count: 1 });
                }
            }
        }
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// Removes a pod, if it is there.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.requested.subtract(&pod.requests);
        self.scored.subtract(&pod.scored);
        self.pods_with_affinity -= usize::from(!pod.affinity.is_empty());
        if !pod.deleting
            && let Some(at) = self.group(&pod)
        {
            self.groups[at].count -= 1;
            if self.groups[at].count == 0 {
                self.groups.swap_remove(at);
            }
        }
        Some(pod)
    }

    fn group(&self, pod: &PodInfo) -> Option<usize> {
        self.groups.iter().position(|group| {
            (Arc::ptr_eq(&group.labels, &pod.labels) || group.labels == pod.labels)
                && group.like.key.namespace == pod.key.namespace
        })
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key)
    }
}

impl From<&Node> for NodeInfo {
    fn from(node: &Node) -> Self {
        let status = node.status.clone().unwrap_or_default();
        let allocatable = api::resources::parse(status.allocatable.as_ref());
        let images = status.images.unwrap_or_default();
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default().into(),
            taints: node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            unschedulable: node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or_default(),
            pods_max: allocatable.get("pods").map_or(0, meta::Quantity::value),
            allocatable: Resources::from(&allocatable),
            images: images
                .into_iter()
                .flat_map(|image| {
                    let size = image.size_bytes.unwrap_or(0);
                    image.names.unwrap_or_default().into_iter().map(move |name| (name, size))
                })
                .collect(),
            exists: true,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, app: &str, deleted: bool) -> Arc<PodInfo> {
        let mut pod = json!({ "metadata": { "name": name, "namespace": "n", "uid": name,
            "labels": { "app": app } }, "spec": { "containers": [] } });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
        Arc::new(PodInfo::new(&pod))
    }

    fn groups(node: &NodeInfo) -> Vec<(String, i64)> {
        let groups = node.groups.iter().map(|group| (group.labels["app"].clone(), group.count));
        let mut groups: Vec<_> = groups.collect();
        groups.sort();
        groups
    }

    #[test]
    fn pods_are_counted_by_their_labels_until_they_are_being_deleted() {
        let mut node = NodeInfo::default();
        for (name, app) in [("1", "a"), ("2", "a"), ("3", "b")] {
            node.add_pod(pod(name, app, false));
        }
        assert_eq!(groups(&node), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        node.add_pod(pod("1", "a", true));
        node.add_pod(pod("3", "a", false));
        assert_eq!(groups(&node), [("a".to_owned(), 2)]);
        for name in ["1", "2", "3"] {
            node.remove_pod(name);
        }
        assert!(node.groups.is_empty());
    }
}
