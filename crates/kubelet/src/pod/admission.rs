//! Whether the node takes a pod: what the scheduler decided is looked at again, because a pod may
//! come by another way.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::pod::pod_resources;
use crate::pod::qos;
use crate::pod::spec;
use crate::pod::status::Verdict;

/// Decides, in upstream's order; `others` are the pods that the node has taken.
pub(crate) fn admit(pod: &Pod, node: Option<&Node>, others: &[&Pod]) -> Result<(), Verdict> {
    if let Some(node) = node {
        resources(pod, node, others)?;
    }
    admit_anyway(pod, node, others)
}

/// The same for a pod that others make room for.
pub(crate) fn admit_anyway(pod: &Pod, node: Option<&Node>, others: &[&Pod]) -> Result<(), Verdict> {
    if node.is_some_and(|node| !matches_node(pod, node)) {
        let why = "node(s) didn't match Pod's node affinity/selector";
        return Err(predicate("NodeAffinity", why));
    }
    if conflicts(pod, others) {
        return Err(predicate(
            "NodePorts",
            "node(s) didn't have free ports for the requested pod ports",
        ));
    }
    Ok(())
}

/// The node has no room now, and may have some later.
pub(crate) const DEFERRED: &str = "Deferred";

/// Decides whether a pod that runs here may be resized to the resources that its spec asks for.
pub(crate) fn resize(pod: &Pod, node: Option<&Node>, others: &[&Pod]) -> Result<(), Verdict> {
    let Some(node) = node else { return Ok(()) };
    for name in ["memory", "cpu"] {
        let (requested, capacity) = (pod_resources::request(pod, name), allocatable(node, name));
        if let Some(capacity) = capacity.filter(|capacity| requested > *capacity) {
            return Err(Verdict {
                reason: "Infeasible".to_owned(),
                message: format!(
                    "Node didn't have enough capacity: {name}, requested: {requested}, capacity: \
                     {capacity}"
                ),
            });
        }
    }
    resources(pod, node, others)
        .map_err(|verdict| Verdict { reason: DEFERRED.to_owned(), message: verdict.message })
}

fn predicate(name: &str, why: &str) -> Verdict {
    Verdict { reason: name.to_owned(), message: format!("Predicate {name} failed: {why}") }
}

/// Something that the node has not enough of for a pod; CPU counts in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    pub(crate) name: &'static str,
    /// How much is missing.
    pub(crate) amount: i64,
    pub(crate) requested: i64,
    pub(crate) used: i64,
    pub(crate) capacity: i64,
}

/// What the node has not enough of.
pub(crate) fn lacks(pod: &Pod, node: &Node, others: &[&Pod]) -> Vec<Lack> {
    let mut checks = vec![("pods", 1, i64::try_from(others.len()).unwrap_or(i64::MAX))];
    for name in ["cpu", "memory", "ephemeral-storage"] {
        let used = others.iter().map(|other| pod_resources::request(other, name)).sum();
        checks.push((name, pod_resources::request(pod, name), used));
    }
    let lacks = checks.into_iter().filter_map(|(name, requested, used)| {
        let capacity = allocatable(node, name)?;
        let amount = requested.saturating_add(used).saturating_sub(capacity);
        let is_short = requested > 0 && amount > 0;
        is_short.then_some(Lack { name, amount, requested, used, capacity })
    });
    lacks.collect()
}

fn resources(pod: &Pod, node: &Node, others: &[&Pod]) -> Result<(), Verdict> {
    let Some(lack) = lacks(pod, node, others).into_iter().next() else { return Ok(()) };
    let Lack { name, requested, used, capacity, .. } = lack;
    Err(Verdict {
        reason: format!("OutOf{name}"),
        message: format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, \
             capacity: {capacity}"
        ),
    })
}

/// What the node gives to pods; CPU counts in thousandths.
fn allocatable(node: &Node, name: &str) -> Option<i64> {
    let quantity = qos::parse(node.status.as_ref()?.allocatable.as_ref()?.get(name)?);
    Some(if name == "cpu" { quantity.milli_value() } else { quantity.value() })
}

fn matches_node(pod: &Pod, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let spec = spec::spec(pod);
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let label = |key: &str| labels.get(key).map(String::as_str);
    selected && required.is_none_or(|required| api::node_selector::takes(required, name, label))
}

type HostPort = (String, i32, String);

fn host_ports(pod: &Pod) -> BTreeSet<HostPort> {
    let sidecars = spec::init_containers(pod).iter().filter(|c| api::pod::is_sidecar(c));
    let containers = spec::spec(pod).containers.iter().chain(sidecars);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty());
            Some((protocol, number, ip.unwrap_or_else(|| "0.0.0.0".to_owned())))
        })
        .collect()
}

fn conflicts(pod: &Pod, others: &[&Pod]) -> bool {
    let wanted = host_ports(pod);
    if wanted.is_empty() {
        return false;
    }
    let taken: BTreeSet<HostPort> = others.iter().flat_map(|other| host_ports(other)).collect();
    wanted.iter().any(|(protocol, port, ip)| {
        taken.iter().any(|(other_protocol, other_port, other_ip)| {
            (protocol, port) == (other_protocol, other_port)
                && (ip == other_ip || ip == "0.0.0.0" || other_ip == "0.0.0.0")
        })
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerPort, NodeStatus, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;
    use crate::pod::fixture;

    fn node() -> Node {
        let allocatable = [("cpu", "2"), ("memory", "1Gi"), ("pods", "3")];
        let allocatable = allocatable.map(|(k, v)| (k.to_owned(), Quantity(v.into())));
        let mut node = Node {
            status: Some(NodeStatus {
                allocatable: Some(allocatable.into()),
                ..NodeStatus::default()
            }),
            ..Node::default()
        };
        node.metadata.labels = Some([("disk".to_owned(), "ssd".to_owned())].into());
        node
    }

    fn pod(cpu: &str, host_port: Option<i32>) -> Pod {
        let mut container = fixture::container("a");
        let requests = [("cpu".to_owned(), Quantity(cpu.into()))];
        container.resources =
            Some(ResourceRequirements { requests: Some(requests.into()), ..Default::default() });
        container.ports = Some(vec![ContainerPort { host_port, ..ContainerPort::default() }]);
        fixture::pod("Always", vec![], vec![container])
    }

    #[test]
    fn a_pod_that_does_not_fit_is_refused_with_the_numbers() {
        let other = pod("1500m", None);
        let refused = admit(&pod("1", None), Some(&node()), &[&other]).unwrap_err();
        assert_eq!(refused.reason, "OutOfcpu");
        assert_eq!(
            refused.message,
            "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
        );
        assert!(admit(&pod("500m", None), Some(&node()), &[&other]).is_ok());
        let many = [&other, &other, &other];
        let refused = admit(&pod("0", None), Some(&node()), &many).unwrap_err();
        assert_eq!(refused.reason, "OutOfpods");
        assert_eq!(
            refused.message,
            "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"
        );
        let mut large = pod("0", None);
        let requests = [("memory".to_owned(), Quantity("2Gi".into()))];
        large.spec.as_mut().unwrap().containers[0].resources =
            Some(ResourceRequirements { requests: Some(requests.into()), ..Default::default() });
        let refused = admit(&large, Some(&node()), &[]).unwrap_err();
        assert_eq!(refused.reason, "OutOfmemory");
        assert_eq!(
            refused.message,
            "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: \
             1073741824"
        );
    }

    #[test]
    fn a_resize_waits_for_room_unless_there_can_never_be_any() {
        let other = pod("1500m", None);
        let refused = |cpu: &str| resize(&pod(cpu, None), Some(&node()), &[&other]).unwrap_err();
        assert!(resize(&pod("500m", None), Some(&node()), &[&other]).is_ok());
        assert_eq!(refused("1").reason, DEFERRED);
        let never = refused("3");
        assert_eq!(never.reason, "Infeasible");
        assert_eq!(
            never.message,
            "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"
        );
    }

    #[test]
    fn a_host_port_can_be_taken_once() {
        let other = pod("0", Some(80));
        let refused = admit(&pod("0", Some(80)), None, &[&other]).unwrap_err();
        assert_eq!(refused.reason, "NodePorts");
        assert!(admit(&pod("0", Some(81)), None, &[&other]).is_ok());
    }

    #[test]
    fn the_node_must_have_the_labels_that_are_selected() {
        let mut pod = pod("0", None);
        let selector = [("disk".to_owned(), "hdd".to_owned())];
        pod.spec.as_mut().unwrap().node_selector = Some(selector.into());
        assert_eq!(
            admit(&pod, Some(&node()), &[]).unwrap_err().message,
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
        );
    }
}
