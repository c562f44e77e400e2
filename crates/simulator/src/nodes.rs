//! Simulated nodes: they run pods, lose them, fail and come back.

mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::World;

/// How often a node renews its lease.
const LEASE: Duration = Duration::from_secs(10);
/// How many nodes there are.
pub(crate) const NODES: usize = 4;

/// All nodes.
pub(crate) struct Nodes {
    world: Arc<World>,
    nodes: Vec<Node>,
    addresses: u32,
    /// Pods whose containers run: since when, by uid.
    running: BTreeMap<String, Instant>,
}

struct Node {
    name: String,
    is_up: bool,
    renewed: Option<Instant>,
}

/// How nodes treat pods.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Thousandths of a chance, at each look, that a pod fails.
    pub(crate) fails: u64,
    /// That a container becomes unready, or ready again.
    pub(crate) flaps: u64,
    /// That anything is done for a pod at a look.
    pub(crate) works: u64,
}

impl Nodes {
    /// Nodes that register at once.
    pub(crate) fn start(world: &Arc<World>) -> Self {
        let node = |number| Node { name: format!("node-{number}"), is_up: true, renewed: None };
        let nodes = (0..NODES).map(node).collect();
        let nodes =
            Self { world: Arc::clone(world), nodes, addresses: 0, running: BTreeMap::new() };
        for node in &nodes.nodes {
            nodes.register(&node.name);
        }
        nodes
    }

    /// Lets a node vanish, or come back.
    pub(crate) fn toggle(&mut self, number: usize) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        node.is_up = !node.is_up;
        let line = format!("{} {}", node.name, if node.is_up { "comes back" } else { "vanishes" });
        self.world.trace(&line);
    }

    /// All nodes are there.
    pub(crate) fn all_up(&mut self) {
        for number in 0..self.nodes.len() {
            if !self.nodes[number].is_up {
                self.toggle(number);
            }
        }
    }

    /// What the nodes do at a time.
    pub(crate) fn look(&mut self, manner: Manner) {
        for number in 0..self.nodes.len() {
            if self.nodes[number].is_up {
                self.beat(number);
                self.clear(number);
                self.pods(number, manner);
            }
        }
    }

    fn register(&self, name: &str) {
        let capacity = json!({ "cpu": "64", "memory": "256Gi", "pods": "110" });
        let now = meta::time::rfc3339(self.world.clock.now());
        let address = format!("198.51.100.{}", name.bytes().last().unwrap_or_default());
        let node = json!({ "metadata": { "name": name,
                "labels": { "kubernetes.io/hostname": name },
                "annotations": { volumes::DIRECTORY: "/volumes", volumes::ATTACHED: "true" } },
            "status": { "addresses": [{ "type": "InternalIP", "address": address }], "capacity": capacity, "allocatable": capacity,
                "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady",
                    "lastHeartbeatTime": now, "lastTransitionTime": now }] } });
        self.world.write("kubelet", "POST", "/api/v1/nodes", &node).ok();
    }

    fn beat(&mut self, number: usize) {
        let (world, node) = (Arc::clone(&self.world), &mut self.nodes[number]);
        let name = node.name.clone();
        if world.api().get("/nodes", "", &name).is_none() {
            // Somebody deleted it; a kubelet that starts again registers.
            node.renewed = None;
            self.register(&name);
            return;
        }
        if node.renewed.is_some_and(|at| at.elapsed() < LEASE) {
            return;
        }
        node.renewed = Some(Instant::now());
        let now = world.clock.now();
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let spec = json!({ "spec": { "holderIdentity": name, "leaseDurationSeconds": 40,
            "renewTime": meta::time::rfc3339_micro(now) } });
        if world.write("kubelet", "MERGE", &format!("{leases}/{name}"), &spec).is_err() {
            let mut lease = spec;
            lease["metadata"]["name"] = name.as_str().into();
            world.write("kubelet", "POST", leases, &lease).ok();
        }
        let is_ready = {
            let api = world.api();
            let conditions =
                api.get("/nodes", "", &name).map(|n| n["status"]["conditions"].clone());
            let ready = conditions.as_ref().and_then(Value::as_array).and_then(|all| {
                all.iter().find(|one| one["type"] == "Ready").map(|one| one["status"] == "True")
            });
            ready.unwrap_or(false)
        };
        if !is_ready {
            let time = meta::time::rfc3339(now);
            let status = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True",
                "reason": "KubeletReady", "message": "kubelet is posting ready status",
                "lastHeartbeatTime": time, "lastTransitionTime": time }] } });
            let path = format!("/api/v1/nodes/{name}/status");
            world.write("kubelet", "STRATEGIC", &path, &status).ok();
        }
    }

    fn pods(&mut self, number: usize, manner: Manner) {
        let name = self.nodes[number].name.clone();
        let pods: Vec<Value> = {
            let api = self.world.api();
            api.all("/pods").filter(|pod| pod["spec"]["nodeName"] == *name).cloned().collect()
        };
        for pod in pods {
            if self.world.dice().chance(manner.works) {
                self.pod(&pod, manner);
            }
        }
    }

    fn pod(&mut self, pod: &Value, manner: Manner) {
        let meta = &pod["metadata"];
        let (namespace, name) = (text(&meta["namespace"]), text(&meta["name"]));
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let phase = text(&pod["status"]["phase"]);
        let uid = text(&meta["uid"]).to_owned();
        let ends = ["Succeeded", "Failed"].contains(&phase);
        if !meta["deletionTimestamp"].is_null() {
            if ends {
                if meta["deletionGracePeriodSeconds"] != 0 {
                    let now = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": uid } });
                    self.world.write("kubelet", "DELETE", &path, &now).ok();
                }
            } else {
                self.report(pod, &path, "Failed", false);
            }
            self.running.remove(&uid);
            return;
        }
        if ends {
            return;
        }
        if phase != "Running" {
            if !self.has_volumes(pod) {
                return;
            }
            self.running.insert(uid, Instant::now());
            self.report(pod, &path, "Running", true);
            return;
        }
        let (fails, flaps) = {
            let mut dice = self.world.dice();
            (dice.chance(manner.fails), dice.chance(manner.flaps))
        };
        let restarts = text(&pod["spec"]["restartPolicy"]) == "Always";
        let since = *self.running.entry(uid).or_insert_with(Instant::now);
        if !restarts && since.elapsed() > Duration::from_secs(3) {
            self.report(pod, &path, if fails { "Failed" } else { "Succeeded" }, false);
        } else if fails && !restarts {
            self.report(pod, &path, "Failed", false);
        } else {
            let is_ready = is_ready(pod);
            if flaps || !is_ready {
                self.report(pod, &path, "Running", !is_ready);
            }
        }
    }

    fn report(&mut self, pod: &Value, path: &str, phase: &str, ready: bool) {
        let time = meta::time::rfc3339(self.world.clock.now());
        let address = match pod["status"]["podIP"].as_str() {
            Some(address) => address.to_owned(),
            None => {
                self.addresses += 1;
                std::net::Ipv4Addr::from_bits(0x0a80_0000 + self.addresses).to_string()
            }
        };
        let status = |holds: bool| if holds { "True" } else { "False" };
        let code = i32::from(phase == "Failed");
        let state = match phase {
            "Running" => json!({ "running": { "startedAt": time } }),
            _ => json!({ "running": null, "terminated": { "exitCode": code, "finishedAt": time } }),
        };
        let mut patch = json!({ "metadata": { "uid": pod["metadata"]["uid"] }, "status": {
            "phase": phase, "podIP": address, "podIPs": [{ "ip": address }],
            "conditions": [
                { "type": "Ready", "status": status(ready), "lastTransitionTime": time },
                { "type": "ContainersReady", "status": status(ready), "lastTransitionTime": time },
            ],
            "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": ready,
                "restartCount": 0, "state": state }] } });
        if pod["status"]["startTime"].is_null() {
            patch["status"]["startTime"] = time.as_str().into();
        }
        self.world.write("kubelet", "STRATEGIC", &format!("{path}/status"), &patch).ok();
    }
}

/// Whether a pod is Ready.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

/// A text, or nothing.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
