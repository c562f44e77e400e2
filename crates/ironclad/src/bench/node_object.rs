//! The objects of a simulated node: what scheduler and controllers need to take it for a real one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde_json::{Value, json};

/// Marks the nodes of one fleet by its prefix.
pub(crate) const LABEL: &str = "ironclad/simulated";

/// Where leases of nodes are.
pub(super) const LEASES: &str = "kube-node-lease";

/// A kubelet's default for the time within which its lease must be renewed.
const LEASE_SECONDS: i32 = 40;

/// What a fleet's nodes are like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// What their names begin with.
    pub(crate) prefix: String,
    /// How many there are.
    pub(crate) count: usize,
    /// Further labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Taints: key, value, effect.
    pub(crate) taints: Vec<(String, String, String)>,
    /// Zones, over which they are spread.
    pub(crate) zones: usize,
    /// Capacity.
    pub(crate) cpu: String,
    /// Capacity.
    pub(crate) memory: String,
    /// Capacity.
    pub(crate) pods: usize,
}

impl Shape {
    /// The name of a node.
    pub(super) fn name(&self, index: usize) -> String {
        format!("{}-{index}", self.prefix)
    }

    /// The number of a node of this fleet.
    pub(super) fn index(&self, name: &str) -> Option<usize> {
        let digits = name.strip_prefix(&*self.prefix)?.strip_prefix('-')?;
        let index = digits.parse().ok().filter(|index| *index < self.count)?;
        // `07` and `+7` are names of nobody.
        (self.name(index) == name).then_some(index)
    }

    /// A node, as it registers itself.
    pub(super) fn node(&self, index: usize, now: Timestamp) -> Value {
        let name = self.name(index);
        let zone = format!("zone-{}", index % self.zones.max(1));
        let mut labels = self.labels.clone();
        let mut label = |key: &str, value: &str| {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        };
        label(LABEL, &self.prefix);
        label(api::labels::HOSTNAME, &name);
        label(api::labels::OS, "linux");
        label(api::labels::ARCH, "amd64");
        if self.zones > 0 {
            label(api::labels::ZONE, &zone);
            label(api::labels::REGION, "simulated");
        }
        let taint = |(key, value, effect): &(String, String, String)| json!({ "key": key, "value": value, "effect": effect });
        let capacity = json!({ "cpu": self.cpu, "memory": self.memory,
            "pods": self.pods.to_string(), "ephemeral-storage": "1Ti" });
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": labels },
            "spec": { "taints": self.taints.iter().map(taint).collect::<Vec<_>>(),
                "providerID": format!("simulated://{name}") },
            "status": {
                "capacity": capacity, "allocatable": capacity,
                "addresses": [
                    { "type": "InternalIP", "address": address(index).to_string() },
                    { "type": "Hostname", "address": name },
                ],
                "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
                "conditions": conditions(now, Some(now)),
                "nodeInfo": {
                    "architecture": "amd64", "bootID": name, "machineID": name, "systemUUID": name,
                    "containerRuntimeVersion": "simulated://1", "kernelVersion": "simulated",
                    "kubeProxyVersion": "", "kubeletVersion": telemetry::VERSION,
                    "operatingSystem": "linux", "osImage": "simulated",
                },
            },
        })
    }

    /// The lease of a node, which goes with it.
    pub(super) fn lease(&self, index: usize, uid: &str, now: Timestamp) -> Value {
        let name = self.name(index);
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": name, "namespace": LEASES, "ownerReferences": [
                { "apiVersion": "v1", "kind": "Node", "name": name, "uid": uid }] },
            "spec": { "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": meta::time::rfc3339_micro(now) },
        })
    }
}

/// What a kubelet says of its health, and since when.
pub(super) fn conditions(now: Timestamp, since: Option<Timestamp>) -> Value {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let mut condition = json!({ "type": kind, "status": status, "reason": reason,
            "message": message, "lastHeartbeatTime": meta::time::rfc3339(now) });
        if let Some(since) = since {
            condition["lastTransitionTime"] = meta::time::rfc3339(since).into();
        }
        condition
    };
    json!([
        condition(
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available"
        ),
        condition(
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure"
        ),
        condition(
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available"
        ),
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ])
}

/// The address of a node, out of 10.64.0.0/10.
pub(super) fn address(index: usize) -> Ipv4Addr {
    let offset = u32::try_from(index).unwrap_or(u32::MAX) % (1 << 22);
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 0).to_bits() + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape {
            prefix: "sim".to_owned(),
            count: 20,
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            taints: vec![("k".to_owned(), "v".to_owned(), "NoSchedule".to_owned())],
            zones: 3,
            cpu: "4".to_owned(),
            memory: "8Gi".to_owned(),
            pods: 110,
        }
    }

    #[test]
    fn nodes_are_known_by_their_names() {
        let shape = shape();
        assert_eq!(shape.index("sim-7"), Some(7));
        for other in ["sim-20", "sim-07", "sim-+7", "sim", "other-1", "sim-"] {
            assert_eq!(shape.index(other), None, "{other}");
        }
    }

    #[test]
    fn a_node_is_ready_has_room_and_lies_in_a_zone() {
        let node = shape().node(4, Timestamp::UNIX_EPOCH);
        assert_eq!(node["metadata"]["labels"]["topology.kubernetes.io/zone"], "zone-1");
        assert_eq!(node["metadata"]["labels"]["a"], "b");
        assert_eq!(node["status"]["allocatable"]["pods"], "110");
        assert_eq!(node["spec"]["taints"][0]["effect"], "NoSchedule");
        let conditions = node["status"]["conditions"].as_array().unwrap();
        assert!(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
        assert_eq!(node["status"]["addresses"][0]["address"], "10.64.0.4");
    }

    #[test]
    fn a_lease_belongs_to_its_node() {
        let lease = shape().lease(1, "u", Timestamp::UNIX_EPOCH);
        assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(lease["spec"]["holderIdentity"], "sim-1");
    }
}
