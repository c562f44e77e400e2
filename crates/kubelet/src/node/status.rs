//! The node's status, as a function of what is known.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::eviction::EvictionHard;
use crate::node::host::Capacity;

/// The most images in a node's status: upstream `nodeStatusMaxImages`.
const IMAGES_MAX: usize = 50;

/// Everything a node's status is made of.
pub(crate) struct NodeFacts<'a> {
    pub(crate) node_name: &'a str,
    pub(crate) node_ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) max_pods: u32,
    pub(crate) capacity: &'a Capacity,
    pub(crate) eviction_hard: EvictionHard,
    pub(crate) system_info: &'a NodeSystemInfo,
    pub(crate) images: Vec<cri::Image>,
    /// Why the node is not ready; empty when it is.
    pub(crate) not_ready: Vec<String>,
    /// What the runtime can do.
    pub(crate) handlers: &'a [cri::RuntimeHandler],
    /// Whether it can leave groups of images out.
    pub(crate) groups_policy: bool,
    /// The conditions of before, for the times of transitions.
    pub(crate) previous: &'a [NodeCondition],
}

/// The status at `now`.
pub(crate) fn node_status(facts: &NodeFacts<'_>, now: Timestamp) -> NodeStatus {
    let capacity = capacity(facts);
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", &facts.node_ip.to_string()),
            address("Hostname", facts.node_name),
        ]),
        allocatable: Some(allocatable(facts, &capacity)),
        capacity: Some(capacity),
        conditions: Some(conditions(facts, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(facts.port) }),
        }),
        images: Some(images(&facts.images)),
        node_info: Some(facts.system_info.clone()),
        runtime_handlers: Some(facts.handlers.iter().map(handler).collect()),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(facts.groups_policy) }),
        ..NodeStatus::default()
    }
}

fn handler(handler: &cri::RuntimeHandler) -> NodeRuntimeHandler {
    NodeRuntimeHandler {
        // As upstream, which names the default one by nothing.
        name: Some(handler.name.clone()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(handler.recursive_read_only_mounts),
            user_namespaces: Some(handler.user_namespaces),
        }),
    }
}

fn address(kind: &str, address: &str) -> NodeAddress {
    NodeAddress { type_: kind.to_owned(), address: address.to_owned() }
}

fn capacity(facts: &NodeFacts<'_>) -> BTreeMap<String, Quantity> {
    let has = facts.capacity;
    let mut capacity = BTreeMap::from([
        ("cpu".to_owned(), Quantity(has.cpus.to_string())),
        ("memory".to_owned(), Quantity(format!("{}Ki", has.memory_bytes >> 10))),
        ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", has.storage_bytes >> 10))),
        ("pods".to_owned(), Quantity(facts.max_pods.to_string())),
    ]);
    for (size, bytes) in &has.hugepages {
        let text = if *bytes == 0 { "0".to_owned() } else { format!("{}Ki", bytes >> 10) };
        capacity.insert(format!("hugepages-{size}"), Quantity(text));
    }
    capacity
}

fn allocatable(
    facts: &NodeFacts<'_>,
    capacity: &BTreeMap<String, Quantity>,
) -> BTreeMap<String, Quantity> {
    let has = facts.capacity;
    let mut allocatable = capacity.clone();
    let huge: u64 = has.hugepages.iter().map(|(_, bytes)| bytes).sum();
    let memory = has.memory_bytes.saturating_sub(facts.eviction_hard.memory_available_bytes + huge);
    allocatable.insert("memory".to_owned(), Quantity(format!("{}Ki", memory >> 10)));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a part of a size of a disk, which is far below 2^53 and not negative"
    )]
    let storage = (has.storage_bytes as f64 * (1.0 - facts.eviction_hard.nodefs_available)) as u64;
    allocatable.insert("ephemeral-storage".to_owned(), Quantity(storage.to_string()));
    allocatable
}

fn conditions(facts: &NodeFacts<'_>, now: Timestamp) -> Vec<NodeCondition> {
    let (has, hard) = (facts.capacity, facts.eviction_hard);
    let memory = has.memory_available_bytes < hard.memory_available_bytes;
    let disk = below(has.storage_available_bytes, has.storage_bytes, hard.nodefs_available)
        || below(has.inodes_free, has.inodes, hard.nodefs_inodes_free);
    let ready = facts.not_ready.is_empty();
    let told = [
        (
            "MemoryPressure",
            memory,
            choose(memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
            choose(
                memory,
                "kubelet has insufficient memory available",
                "kubelet has sufficient memory available",
            ),
        ),
        (
            "DiskPressure",
            disk,
            choose(disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
            choose(disk, "kubelet has disk pressure", "kubelet has no disk pressure"),
        ),
        (
            "PIDPressure",
            false,
            "KubeletHasSufficientPID".to_owned(),
            "kubelet has sufficient PID available".to_owned(),
        ),
        (
            "Ready",
            ready,
            choose(ready, "KubeletReady", "KubeletNotReady"),
            if ready {
                "kubelet is posting ready status".to_owned()
            } else {
                facts.not_ready.join(", ")
            },
        ),
    ];
    told.into_iter()
        .map(|(kind, status, reason, message)| {
            let status = if status { "True" } else { "False" };
            let before = facts.previous.iter().find(|c| c.type_ == kind && c.status == status);
            NodeCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason),
                message: Some(message),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: before
                    .and_then(|c| c.last_transition_time.clone())
                    .or(Some(Time(now))),
            }
        })
        .collect()
}

fn choose(first: bool, yes: &str, no: &str) -> String {
    if first { yes.to_owned() } else { no.to_owned() }
}

#[expect(clippy::cast_precision_loss, reason = "a share of a disk needs no exact bytes")]
fn below(free: u64, all: u64, part: f64) -> bool {
    all > 0 && (free as f64) < all as f64 * part
}

fn images(images: &[cri::Image]) -> Vec<ContainerImage> {
    let mut images: Vec<&cri::Image> = images.iter().collect();
    // Upstream shows the largest.
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    images
        .into_iter()
        .take(IMAGES_MAX)
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.iter().chain(&image.repo_tags).cloned().collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready_condition(not_ready: Vec<String>, previous: &[NodeCondition]) -> NodeCondition {
        let capacity = Capacity {
            cpus: 2,
            memory_bytes: 1 << 30,
            memory_available_bytes: 1 << 29,
            storage_bytes: 100 << 20,
            storage_available_bytes: 5 << 20,
            ..Capacity::default()
        };
        let facts = NodeFacts {
            node_name: "n",
            node_ip: IpAddr::from([10, 0, 0, 1]),
            port: 10250,
            max_pods: 110,
            capacity: &capacity,
            eviction_hard: EvictionHard::default(),
            system_info: &NodeSystemInfo::default(),
            images: Vec::new(),
            not_ready,
            handlers: &[],
            groups_policy: true,
            previous,
        };
        let status = node_status(&facts, Timestamp::UNIX_EPOCH);
        let allocatable = status.allocatable.unwrap();
        assert_eq!(allocatable["memory"].0, format!("{}Ki", (1 << 20) - (100 << 10)));
        assert_eq!(allocatable["ephemeral-storage"].0, "94371840");
        let conditions = status.conditions.unwrap();
        assert_eq!(conditions[0].status, "False");
        assert_eq!(conditions[1].status, "True", "5 % of the disk is free");
        conditions[3].clone()
    }

    #[test]
    fn a_node_is_ready_when_nothing_is_in_the_way() {
        let ready = ready_condition(Vec::new(), &[]);
        assert_eq!(ready.reason.as_deref(), Some("KubeletReady"));
        assert_eq!(ready.message.as_deref(), Some("kubelet is posting ready status"));
    }

    #[test]
    fn the_time_of_a_transition_stays_until_the_next_one() {
        let long_ago = Time("2001-01-01T00:00:00Z".parse().unwrap());
        let before = NodeCondition {
            type_: "Ready".into(),
            status: "False".into(),
            last_transition_time: Some(long_ago.clone()),
            ..NodeCondition::default()
        };
        let still = ready_condition(vec!["no network".into()], std::slice::from_ref(&before));
        assert_eq!(still.last_transition_time, Some(long_ago.clone()));
        assert_eq!(still.message.as_deref(), Some("no network"));
        let now = ready_condition(Vec::new(), &[before]);
        assert_ne!(now.last_transition_time, Some(long_ago));
    }
}
