//! Follows the health of nodes: what a node that is silent is said to be, and which taints its
//! conditions mean.
//!
//! A node is heard of by its Lease or by its status. The time of hearing is our own clock's, since
//! the times in them are another machine's.

mod taints;
mod zones;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::{Change, Client, ClientError, EventRecorder, EventType, Outcome, Patch, Regarding};
use client::{ResourcePath, WorkQueue};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use meta::ObjectKey;
use serde_json::{Value, json};

pub(crate) use self::taints::is_ready;
use self::zones::{Pace, Zones};
use crate::context::Context;
use crate::reconcile::reconcile;

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
        zones: Mutex::default(),
        pace: Mutex::default(),
        was_lost: AtomicBool::new(false),
        client,
        recorder,
        ctx,
    });
    controller.follow();
    let (queue, shutdown) = (controller.queue.clone(), controller.ctx.shutdown.clone());
    reconcile(&queue, shutdown, move |key| {
        let controller = Arc::clone(&controller);
        async move {
            let begun = controller.ctx.clock.monotonic();
            let synced = controller.sync(&key).await;
            let took = controller.ctx.clock.monotonic().duration_since(begun);
            controller.ctx.counts.nodes.look_seconds.observe(took.as_secs_f64());
            synced
        }
    })
    .await;
}

/// Whether pods are made to leave a node.
enum Leave {
    /// They were before.
    Already,
    /// It is its turn.
    Now,
    /// They stay, for so long, or until something else happens.
    No(Option<Duration>),
}

struct Controller {
    ctx: Context,
    client: Client,
    recorder: EventRecorder,
    queue: WorkQueue<ObjectKey>,
    /// When each node was last heard of.
    heard: Mutex<HashMap<String, Instant>>,
    zones: Mutex<Zones>,
    pace: Mutex<Pace>,
    /// Whether no zone had a ready node.
    was_lost: AtomicBool,
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
            let node = match &change {
                Change::Added(node) | Change::Updated { new: node, .. } => Some(&***node),
                Change::Deleted(_) => None,
            };
            // How a zone does decides on evictions from all of its nodes.
            if this.count(&key.name, node) {
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

    /// Counts a node for its zone, `None` when it is gone. `true` when zones do better or worse.
    fn count(&self, name: &str, node: Option<&Node>) -> bool {
        let limits = &self.ctx.config.nodes;
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let before = zones.outlook(limits);
        for name in zones.change(name, node) {
            let (counts, zone) = (&self.ctx.counts.nodes, zones.get(&name));
            counts.zone_size.with_label_values(&[&name]).set(zone.nodes.into());
            counts.unhealthy.with_label_values(&[&name]).set(zone.unready.into());
            counts.zone_health.with_label_values(&[&name]).set(zone.health());
        }
        zones.outlook(limits) != before
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
        let limits = &self.ctx.config.nodes;
        let has_reported = condition(&node, "Ready").is_some();
        let grace = if has_reported { limits.grace } else { limits.startup_grace };
        let silent = now.duration_since(heard);
        if silent >= grace {
            self.mark_unknown(&node).await?;
        }
        if !is_ready(&node) {
            self.mark_pods_not_ready(&node).await?;
        }
        let leave = self.leave(&node, now);
        let may_leave = !matches!(leave, Leave::No(_));
        if let Some(wanted) = taints::wanted(&node, may_leave, self.ctx.clock.now()) {
            let written = self.write_taints(&node, &wanted).await;
            if matches!(leave, Leave::Now) {
                self.end_turn(&zones::name(&node), written.is_ok());
            }
            written?;
        }
        // Nothing happens when a node falls silent, so the time itself has to wake us.
        let next = if silent < grace { grace - silent } else { limits.grace };
        let wait = if let Leave::No(Some(wait)) = leave { wait.min(next) } else { next };
        Ok(Outcome::RequeueAfter(wait))
    }

    /// Whether the pods of a node that is not ready may be made to leave.
    fn leave(&self, node: &Node, now: Instant) -> Leave {
        let limits = &self.ctx.config.nodes;
        let name = zones::name(node);
        let (is_lost, zone) = {
            let zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
            (zones.are_all_lost(limits), zones.get(&name))
        };
        if self.was_lost.swap(is_lost, Ordering::Relaxed) && !is_lost {
            // What was not heard of meanwhile may have been alive all the time.
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.values_mut().for_each(|at| *at = now);
        }
        if is_lost || is_ready(node) {
            return Leave::No(None);
        }
        if taints::may_leave_already(node) || condition(node, "Ready").is_none() {
            return Leave::Already;
        }
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        match pace.take(&name, zone, limits, now) {
            Ok(()) => Leave::Now,
            // Another rate comes with another state, of which the event of a node tells.
            Err(wait) => Leave::No(wait),
        }
    }

    /// A node had its turn, which is not over when it could not be tainted.
    fn end_turn(&self, zone: &str, is_tainted: bool) {
        if is_tainted {
            self.ctx.counts.nodes.evictions.with_label_values(&[zone]).inc();
        } else {
            self.pace.lock().unwrap_or_else(PoisonError::into_inner).give_back(zone);
        }
    }

    /// Says of a silent node that its state is not known.
    async fn mark_unknown(&self, node: &Node) -> Result<(), ClientError> {
        let conditions = unknown_conditions(node, &meta::time::rfc3339(self.ctx.clock.now()));
        if conditions.is_empty() {
            return Ok(());
        }
        if is_ready(node) {
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
