//! A watch of every resource that can be deleted, started and stopped as resources come and go.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Change, Informer, InformerConfig, ListOptions, Lister, ResourcePath};
use meta::{GroupVersion, GroupVersionResource, Object, OwnerReference};
use stdx::interner::Interner;
use stdx::shutdown::Shutdown;
use tokio::sync::Notify;

use super::Collector;
use super::graph::{Node, Resource};
use crate::discovery::{Discovered, discover};

/// Resources whose objects own and are owned by nothing: upstream ignores them too.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];
/// Waiting time after discovery failed.
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);

/// The watches, and what discovery said.
#[derive(Default)]
pub(super) struct Monitors {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<Discovered, Running>,
    /// Resource and scope by API version and kind.
    kinds: BTreeMap<(String, String), (GroupVersionResource, bool)>,
}

struct Running {
    lister: Lister<Node>,
    stop: Shutdown,
}

impl Monitors {
    /// Where a kind is served, and whether its objects are in namespaces. Any version will do.
    pub(super) fn resource_of(
        &self,
        api_version: &str,
        kind: &str,
    ) -> Option<(GroupVersionResource, bool)> {
        let group = GroupVersion::parse(api_version)?.group;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.kinds.get(&(group, kind.to_owned())).cloned()
    }
}

/// Starts the watches and waits until all have listed.
pub(super) async fn first_sync(collector: &Arc<Collector>) {
    while let Err(error) = update(collector).await {
        collector.ctx.counts.collector_errors.inc();
        tracing::debug!(%error, "garbage collector cannot discover resources yet");
        collector.ctx.clock.sleep(DISCOVERY_RETRY).await;
    }
}

/// Follows the definitions of custom resources, and now and then looks without a reason.
pub(super) async fn rediscover(collector: &Arc<Collector>, every: Duration) {
    let changed = Arc::new(Notify::new());
    let told = Arc::clone(&changed);
    let definitions =
        GroupVersionResource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let config = InformerConfig {
        path: ResourcePath::new(definitions),
        namespace: String::new(),
        options: ListOptions::all(),
    };
    let ctx = &collector.ctx;
    let lister = Informer::spawn(&collector.client, &ctx.clock, config, &ctx.shutdown, |_| Ok(()));
    lister.on_change(move |_, _: Change<'_, ()>| told.notify_one());
    loop {
        tokio::select! {
            () = changed.notified() => {}
            () = ctx.clock.sleep(every) => {}
        }
        if let Err(error) = update(collector).await {
            collector.ctx.counts.collector_errors.inc();
            tracing::debug!(%error, "garbage collector cannot discover resources");
        }
    }
}

async fn update(collector: &Arc<Collector>) -> Result<(), client::ClientError> {
    let discovery = discover(&collector.client).await?;
    let wanted: Vec<Discovered> = discovery
        .resources
        .iter()
        .filter(|resource| resource.can(&["delete", "list", "watch"]))
        .filter(|r| !IGNORED.contains(&(r.group.as_str(), r.resource.as_str())))
        .cloned()
        .collect();
    let failed = |group: &str| {
        let of = |text: &str| GroupVersion::parse(text).map(|parsed| parsed.group);
        discovery.failures.iter().any(|(failed, _)| of(failed).as_deref() == Some(group))
    };
    let (mut fresh, mut gone) = (Vec::new(), Vec::new());
    {
        let mut state = collector.monitors.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.kinds = discovery
            .resources
            .iter()
            .map(|r| ((r.group.clone(), r.kind.clone()), (r.gvr(), r.namespaced)))
            .collect();
        // A group that could not be asked is not gone.
        let stale: Vec<Discovered> = state
            .running
            .keys()
            .filter(|resource| !wanted.contains(resource) && !failed(&resource.group))
            .cloned()
            .collect();
        for resource in stale {
            if let Some(running) = state.running.remove(&resource) {
                running.stop.begin();
                gone.push(resource.gvr());
            }
        }
        for resource in wanted {
            let Entry::Vacant(vacant) = state.running.entry(resource) else { continue };
            let running = start(collector, vacant.key());
            fresh.push(running.lister.clone());
            vacant.insert(running);
        }
    }
    for gvr in gone {
        let tasks = collector.graph().remove_resource(&gvr);
        tasks.into_iter().for_each(|task| collector.queue.add(task));
    }
    futures::future::join_all(fresh.iter().map(Lister::synced)).await;
    Ok(())
}

fn start(collector: &Arc<Collector>, resource: &Discovered) -> Running {
    let stop = collector.ctx.shutdown.child();
    let of = Arc::new(Resource { gvr: resource.gvr(), kind: resource.kind.clone() });
    let config = InformerConfig {
        path: ResourcePath::new(of.gvr.clone()),
        namespace: String::new(),
        options: ListOptions::all(),
    };
    let owners = Interner::default();
    let project = move |object: &Object| Ok(node(&of, &owners, object));
    let lister = Informer::spawn(&collector.client, &collector.ctx.clock, config, &stop, project);
    let this = Arc::clone(collector);
    lister.on_change(move |_, change| {
        let tasks = match change {
            Change::Added(node) => this.graph().upsert(Arc::clone(node)),
            Change::Updated { old, new } if old == new => return,
            Change::Updated { new, .. } => this.graph().upsert(Arc::clone(new)),
            Change::Deleted(node) => this.graph().remove(&node.uid),
        };
        tasks.into_iter().for_each(|task| this.queue.add(task));
    });
    Running { lister, stop }
}

fn node(of: &Arc<Resource>, owners: &Interner<Vec<OwnerReference>>, object: &Object) -> Node {
    let header = object.header();
    let deleting = header.deletion_timestamp.is_some();
    let has = |name: &str| header.finalizers.iter().any(|finalizer| &**finalizer == name);
    Node {
        uid: header.uid.as_str().into(),
        resource: Arc::clone(of),
        key: header.key(),
        owners: owners.share(header.owner_references.to_vec()),
        deleting,
        foreground: deleting && has(api::finalizers::FOREGROUND_DELETION),
        orphans: deleting && has(api::finalizers::ORPHAN),
    }
}
