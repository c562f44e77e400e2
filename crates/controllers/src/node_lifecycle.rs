//! Follows the health of nodes: what a node that is silent is said to be, and which taints its
//! conditions mean.
//!
//! A node is heard of by its Lease or by its status. The time of hearing is our own clock's, since
//! the times in them are another machine's.

mod taints;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::{Change, Client, ClientError, EventRecorder, EventType, Outcome, Patch, Regarding};
use client::{ResourcePath, WorkQueue};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use meta::ObjectKey;
use serde_json::{Value, json};

use crate::context::Context;
use crate::reconcile::reconcile;

/// Silence after which a node counts as unknown: upstream `--node-monitor-grace-period`.
const GRACE: Duration = Duration::from_secs(50);
/// The same for a node that has never said anything: upstream `--node-startup-grace-period`.
const STARTUP_GRACE: Duration = Duration::from_secs(60);
/// Conditions that only the node knows.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("node-controller");
    let recorder = ctx.recorder(&client, "node-controller");
    let informers = &ctx.informers;
    let (nodes, leases) = (&informers.nodes, &informers.node_leases);
    tokio::join!(nodes.synced(), leases.synced(), informers.pods.synced());
    let controller = Arc::new(Controller {
        queue: ctx.queue("node-lifecycle-controller"),
        heard: Mutex::default(),
        client,
        recorder,
        ctx,
    });
    controller.follow();
    let (queue, shutdown) = (controller.queue.clone(), controller.ctx.shutdown.clone());
    reconcile(&queue, shutdown, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.sync(&key).await }
    })
    .await;
}

struct Controller {
    ctx: Context,
    client: Client,
    recorder: EventRecorder,
    queue: WorkQueue<ObjectKey>,
    /// When each node was last heard of.
    heard: Mutex<HashMap<String, Instant>>,
}

impl Controller {
    fn follow(self: &Arc<Self>) {
        let informers = &self.ctx.informers;
        let this = Arc::clone(self);
        informers.nodes.on_change(move |key, change| {
            match &change {
                Change::Added(node) => {
                    this.hear(&key.name);
                    let text =
                        format!("Node {} event: Registered Node {0} in Controller", key.name);
                    let regarding = Regarding::object(&***node);
                    this.recorder.record(&regarding, EventType::Normal, "RegisteredNode", text);
                }
                Change::Updated { old, new } if spoke(old, new) => this.hear(&key.name),
                Change::Updated { .. } => {}
                Change::Deleted(node) => {
                    let mut heard = this.heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.remove(&key.name);
                    let text =
                        format!("Node {} event: Removing Node {0} from Controller", key.name);
                    let regarding = Regarding::object(&***node);
                    this.recorder.record(&regarding, EventType::Normal, "RemovingNode", text);
                }
            }
            this.queue.add(key.clone());
            // Whether any node is ready decides on evictions from all of them.
            if matches!(&change, Change::Updated { old, new }
                if taints::is_ready(old) != taints::is_ready(new))
            {
                for node in this.ctx.informers.nodes.list() {
                    this.queue.add(crate::selection::key_of(&node.metadata));
                }
            }
        });
        let this = Arc::clone(self);
        informers.node_leases.on_change(move |key, change| {
            if !matches!(change, Change::Deleted(_)) {
                this.hear(&key.name);
            }
        });
    }

    fn hear(&self, node: &str) {
        let now = self.ctx.clock.monotonic();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(node.to_owned(), now);
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(node) = self.ctx.informers.nodes.get(key) else { return Ok(Outcome::Done) };
        let now = self.ctx.clock.monotonic();
        let heard = {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            *heard.entry(key.name.clone()).or_insert(now)
        };
        let grace = if condition(&node, "Ready").is_some() { GRACE } else { STARTUP_GRACE };
        let silent = now.duration_since(heard);
        if silent >= grace {
            self.mark_unknown(&node).await?;
        }
        if !taints::is_ready(&node) {
            self.mark_pods_not_ready(&node).await?;
        }
        let any_ready = self.ctx.informers.nodes.list().iter().any(|node| taints::is_ready(node));
        if let Some(wanted) = taints::wanted(&node, any_ready, self.ctx.clock.now()) {
            self.write_taints(&node, &wanted).await?;
        }
        // Nothing happens when a node falls silent, so the time itself has to wake us.
        Ok(Outcome::RequeueAfter(if silent < grace { grace - silent } else { GRACE }))
    }

    /// Says of a silent node that its state is not known.
    async fn mark_unknown(&self, node: &Node) -> Result<(), ClientError> {
        let conditions = unknown_conditions(node, &meta::time::rfc3339(self.ctx.clock.now()));
        if conditions.is_empty() {
            return Ok(());
        }
        if taints::is_ready(node) {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let text = format!("Node {name} status is now: NodeNotReady");
            let regarding = Regarding::object(node);
            self.recorder.record(&regarding, EventType::Normal, "NodeNotReady", text);
        }
        self.patch(node, "status", json!({ "status": { "conditions": conditions } })).await
    }

    /// Pods on a node that is not ready must not be sent traffic.
    async fn mark_pods_not_ready(&self, node: &Node) -> Result<(), ClientError> {
        // Until the node has reported for the first time it has no pods to speak of.
        if condition(node, "Ready").is_none() {
            return Ok(());
        }
        let informers = &self.ctx.informers;
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let pods = informers.pod_index.on_node(name);
        for pod in pods.iter().filter(|pod| pod.ready) {
            let ready = json!({
                "type": api::pod::READY,
                "status": "False",
                "lastTransitionTime": meta::time::rfc3339(self.ctx.clock.now()),
            });
            let patch = Patch::Strategic(json!({
                "metadata": { "uid": pod.uid }, "status": { "conditions": [ready] },
            }));
            let api = self.client.api::<Pod>(&pod.key.namespace);
            match api.patch_subresource(&pod.key.name, "status", &patch).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() || error.is_conflict() => continue,
                Err(error) => return Err(error),
            }
            let regarding = Regarding {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                namespace: pod.key.namespace.clone(),
                name: pod.key.name.clone(),
                uid: pod.uid.clone(),
                ..Regarding::default()
            };
            let text = "Node is not ready";
            self.recorder.record(&regarding, EventType::Warning, "NodeNotReady", text);
        }
        Ok(())
    }

    async fn write_taints(&self, node: &Node, wanted: &[Value]) -> Result<(), ClientError> {
        let patch = json!({
            "metadata": { "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": wanted },
        });
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.dynamic::<Value>(ResourcePath::of::<Node>(), "");
        match api.patch(name, &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn patch(&self, node: &Node, sub: &str, patch: Value) -> Result<(), ClientError> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.dynamic::<Value>(ResourcePath::of::<Node>(), "");
        match api.patch_subresource(name, sub, &Patch::Strategic(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A condition of the node's status.
fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether a change of the object is a sign of life: its heartbeat moved, or its status changed in
/// a way that only the node writes.
fn spoke(old: &Node, new: &Node) -> bool {
    let heartbeat = |node: &Node| {
        condition(node, "Ready").and_then(|condition| condition.last_heartbeat_time.clone())
    };
    heartbeat(old) != heartbeat(new)
        || (condition(new, "Ready").is_some_and(|c| c.status != "Unknown")
            && old.status != new.status)
}

/// The conditions of a silent node that have to change.
fn unknown_conditions(node: &Node, now: &str) -> Vec<Value> {
    let changed = REPORTED.iter().filter_map(|kind| {
        let (reason, message) = match condition(node, kind) {
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            Some(present) if present.status == "Unknown" => return None,
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
        };
        let mut changed = json!({
            "type": kind,
            "status": "Unknown",
            "reason": reason,
            "message": message,
            "lastTransitionTime": now,
        });
        if condition(node, kind).is_none() {
            changed["lastHeartbeatTime"] = json!(node.metadata.creation_timestamp);
        }
        Some(changed)
    });
    changed.collect()
}

#[cfg(test)]
mod tests;
