//! Deletes objects whose owners are gone, and carries out foreground and orphan deletion.
//!
//! `graph` is the pure core: who owns whom, and what follows from a change. `monitors` feed it
//! from a watch of every deletable resource. The driver here reads the object once more from the
//! server before it does anything to it.

mod graph;
mod monitors;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Client, ClientError, DeleteOptions, EventRecorder, EventType, Outcome, Patch};
use client::{Propagation, Regarding, ResourcePath, WorkQueue, WorkQueueConfig};
use meta::{Object, OwnerReference};
use serde_json::{Value, json};

use self::graph::{Fate, Graph, Node, OwnerState, Task};
use crate::context::Context;

/// Objects handled at once: upstream `--concurrent-gc-syncs`.
const WORKERS: usize = 20;
/// How often discovery is repeated although no definition changed: upstream's resync.
const REDISCOVER: Duration = Duration::from_secs(30);

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("generic-garbage-collector");
    let recorder = ctx.recorder(&client, "garbage-collector-controller");
    let config = WorkQueueConfig::new("garbage_collector_attempt_to_delete", WORKERS);
    let collector = Arc::new(Collector {
        queue: ctx.queues.queue(config, Arc::clone(&ctx.clock)),
        graph: Mutex::default(),
        monitors: monitors::Monitors::default(),
        client,
        recorder,
        ctx,
    });
    let shutdown = collector.ctx.shutdown.clone();
    // Before every resource has been listed, an owner could seem to be absent.
    tokio::select! {
        () = monitors::first_sync(&collector) => {}
        () = shutdown.begun() => return,
    }
    let rediscovery = monitors::rediscover(&collector, REDISCOVER);
    let queue = collector.queue.clone();
    let worker = Arc::clone(&collector);
    let work = queue.run(shutdown, move |task| {
        let collector = Arc::clone(&worker);
        async move {
            match collector.handle(&task).await {
                Err(error) if error.is_conflict() => Ok(Outcome::Requeue),
                result => result,
            }
        }
    });
    tokio::select! {
        () = work => {}
        () = rediscovery => {}
    }
}

struct Collector {
    ctx: Context,
    client: Client,
    recorder: EventRecorder,
    queue: WorkQueue<Task>,
    graph: Mutex<Graph>,
    monitors: monitors::Monitors,
}

impl Collector {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn handle(&self, task: &Task) -> Result<Outcome, ClientError> {
        match task {
            Task::Delete(uid) => self.attempt_to_delete(uid).await,
            Task::Orphan(uid) => self.orphan_dependents(uid).await,
        }
    }

    async fn attempt_to_delete(&self, uid: &str) -> Result<Outcome, ClientError> {
        let Some(node) = self.graph().node(uid) else { return Ok(Outcome::Done) };
        if node.deleting && !node.foreground {
            return Ok(Outcome::Done);
        }
        let Some(live) = self.read(&node).await? else { return Ok(Outcome::Done) };
        let header = live.header();
        if header.uid != uid {
            return Ok(Outcome::Done);
        }
        if node.foreground {
            return self.delete_dependents_first(&node, &live).await;
        }
        if header.owner_references.is_empty() {
            return Ok(Outcome::Done);
        }
        let mut owners = Vec::with_capacity(header.owner_references.len());
        let mut is_any_unseen = false;
        for owner in &header.owner_references {
            match self.owner_state(&node, owner).await? {
                Some(state) => {
                    is_any_unseen |= state != OwnerState::Absent && self.is_unseen(&node, owner);
                    owners.push((owner.clone(), state));
                }
                // What cannot be looked up must not be taken for absent.
                None => return Ok(Outcome::Requeue),
            }
        }
        let fate = self.graph().fate(uid, &owners);
        match fate {
            // Nobody will tell of the end of an owner that came and went while its watch was broken.
            Fate::Keep if is_any_unseen => Ok(Outcome::Requeue),
            Fate::Keep => Ok(Outcome::Done),
            Fate::DropOwners(uids) => {
                let kept = header.owner_references.iter().filter(|o| !uids.contains(&o.uid));
                self.write_owners(&node, &live, kept.map(reference).collect()).await
            }
            Fate::DeleteForeground { unblock } => {
                if unblock {
                    let references = header.owner_references.iter().map(|owner| {
                        let mut reference = reference(owner);
                        reference["blockOwnerDeletion"] = false.into();
                        reference
                    });
                    let references = references.collect();
                    self.write_owners(&node, &live, references).await?;
                    return self.delete(&node, None, Propagation::Foreground).await;
                }
                self.delete(&node, Some(&live), Propagation::Foreground).await
            }
            Fate::Delete => {
                let has = |name: &str| header.finalizers.iter().any(|f| &**f == name);
                let propagation = if has(api::finalizers::ORPHAN) {
                    Propagation::Orphan
                } else if has(api::finalizers::FOREGROUND_DELETION) {
                    Propagation::Foreground
                } else {
                    Propagation::Background
                };
                self.delete(&node, Some(&live), propagation).await
            }
        }
    }

    /// An object that waits for its dependents: they go, then its finalizer does.
    async fn delete_dependents_first(
        &self,
        node: &Node,
        live: &Object,
    ) -> Result<Outcome, ClientError> {
        let blocking = self.graph().blocking_dependents(&node.uid);
        if blocking.is_empty() {
            return self.remove_finalizer(node, live, api::finalizers::FOREGROUND_DELETION).await;
        }
        for (uid, waits) in blocking {
            if !waits {
                self.queue.add(Task::Delete(uid));
            }
        }
        Ok(Outcome::Done)
    }

    async fn orphan_dependents(&self, uid: &str) -> Result<Outcome, ClientError> {
        let Some(owner) = self.graph().node(uid) else { return Ok(Outcome::Done) };
        let dependents = self.graph().dependents(uid);
        for dependent in dependents {
            let Some(live) = self.read(&dependent).await? else { continue };
            let references = &live.header().owner_references;
            if live.header().uid != *dependent.uid || !references.iter().any(|o| o.uid == uid) {
                continue;
            }
            let kept = references.iter().filter(|o| o.uid != uid).map(reference).collect();
            self.write_owners(&dependent, &live, kept).await?;
        }
        match self.read(&owner).await? {
            Some(live) if live.header().uid == uid => {
                self.remove_finalizer(&owner, &live, api::finalizers::ORPHAN).await
            }
            _ => Ok(Outcome::Done),
        }
    }

    /// Whether an owner exists; `None` when its kind is not served (any more, or not yet).
    async fn owner_state(
        &self,
        node: &Node,
        owner: &OwnerReference,
    ) -> Result<Option<OwnerState>, ClientError> {
        if let Some(state) = self.graph().owner_state(node, owner) {
            return Ok(Some(state));
        }
        let Some((gvr, namespaced)) = self.monitors.resource_of(&owner.api_version, &owner.kind)
        else {
            return Ok(None);
        };
        if namespaced && node.key.namespace.is_empty() {
            // Such a reference can never be right; whoever made it should hear of it.
            self.complain(node, owner);
            return Ok(Some(OwnerState::Present));
        }
        let namespace = if namespaced { node.key.namespace.as_str() } else { "" };
        let api = self.client.dynamic::<Value>(ResourcePath::new(gvr), namespace);
        let Some(found) = api.get_opt(&owner.name).await? else {
            if self.is_elsewhere(node, owner) {
                self.complain(node, owner);
            }
            self.graph().note_absent(owner, &node.key.namespace);
            return Ok(Some(OwnerState::Absent));
        };
        if found["metadata"]["uid"] != owner.uid.as_str() {
            if self.is_elsewhere(node, owner) {
                self.complain(node, owner);
            }
            return Ok(Some(OwnerState::Absent));
        }
        let finalizers = found["metadata"]["finalizers"].as_array();
        let waits = !found["metadata"]["deletionTimestamp"].is_null()
            && finalizers.is_some_and(|all| {
                all.iter().any(|name| name == api::finalizers::FOREGROUND_DELETION)
            });
        Ok(Some(if waits { OwnerState::Waiting } else { OwnerState::Present }))
    }

    /// Whether the server has an owner of which no watch has told yet.
    fn is_unseen(&self, node: &Node, owner: &OwnerReference) -> bool {
        let of = self.monitors.resource_of(&owner.api_version, &owner.kind);
        let is_impossible = node.key.namespace.is_empty() && of.is_some_and(|(_, within)| within);
        !is_impossible && self.graph().node(&owner.uid).is_none()
    }

    /// Whether the owner is known in another namespace than the dependent's.
    fn is_elsewhere(&self, node: &Node, owner: &OwnerReference) -> bool {
        let known = self.graph().node(&owner.uid);
        known.is_some_and(|known| known.key.namespace != node.key.namespace)
    }

    fn complain(&self, node: &Node, owner: &OwnerReference) {
        let regarding = Regarding {
            api_version: node.resource.api_version(),
            kind: node.resource.kind.clone(),
            namespace: node.key.namespace.clone(),
            name: node.key.name.clone(),
            uid: node.uid.to_string(),
            ..Regarding::default()
        };
        let text = format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace {:?}",
            owner.api_version,
            owner.kind,
            node.key.namespace,
            owner.name,
            owner.uid,
            node.key.namespace
        );
        self.recorder.record(&regarding, EventType::Warning, "OwnerRefInvalidNamespace", text);
    }

    async fn read(&self, node: &Node) -> Result<Option<Object>, ClientError> {
        let path = ResourcePath::new(node.resource.gvr.clone());
        let path = path.object(&node.key.namespace, &node.key.name, "");
        let get = http::Method::GET;
        match self.client.request(get, &path, "", bytes::Bytes::new()).await {
            Ok(body) => Object::from_json(body).map(Some).map_err(ClientError::decode),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn delete(
        &self,
        node: &Node,
        live: Option<&Object>,
        propagation: Propagation,
    ) -> Result<Outcome, ClientError> {
        let options = DeleteOptions {
            uid: Some(node.uid.to_string()),
            // Someone may give the object another owner meanwhile.
            resource_version: live.map(|live| live.header().resource_version),
            propagation: Some(propagation),
            ..DeleteOptions::default()
        };
        match self.api(node).delete(&node.key.name, &options).await {
            Ok(()) => Ok(Outcome::Done),
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            Err(error) => Err(error),
        }
    }

    async fn write_owners(
        &self,
        node: &Node,
        live: &Object,
        references: Vec<Value>,
    ) -> Result<Outcome, ClientError> {
        self.patch_metadata(node, live, json!({ "ownerReferences": references })).await
    }

    async fn remove_finalizer(
        &self,
        node: &Node,
        live: &Object,
        name: &str,
    ) -> Result<Outcome, ClientError> {
        let all = &live.header().finalizers;
        let kept: Vec<&str> = all.iter().map(|f| &**f).filter(|f| *f != name).collect();
        if kept.len() == all.len() {
            return Ok(Outcome::Done);
        }
        self.patch_metadata(node, live, json!({ "finalizers": kept })).await
    }

    async fn patch_metadata(
        &self,
        node: &Node,
        live: &Object,
        mut metadata: Value,
    ) -> Result<Outcome, ClientError> {
        metadata["uid"] = (*node.uid).into();
        metadata["resourceVersion"] = live.header().resource_version.to_string().into();
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        match self.api(node).patch(&node.key.name, &patch).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            Err(error) => Err(error),
        }
    }

    fn api(&self, node: &Node) -> client::Api<Value> {
        self.client.dynamic(ResourcePath::new(node.resource.gvr.clone()), &node.key.namespace)
    }
}

fn reference(owner: &OwnerReference) -> Value {
    let mut reference = json!({
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
    });
    if owner.controller {
        reference["controller"] = true.into();
    }
    if owner.block_owner_deletion {
        reference["blockOwnerDeletion"] = true.into();
    }
    reference
}
