//! Running a kubelet: everything is made and started here.

use std::sync::{Arc, OnceLock, Weak};

use api::Typed;
use client::{Change, EventRecorder, Informer, InformerConfig, ListOptions, ResourcePath};
use futures::StreamExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, Service};
use meta::ObjectKey;
use stdx::ready::Ready;
use stdx::shutdown::Shutdown;
use tokio::sync::Notify;

use crate::config::{Config, Deps, KubeletError};
use crate::housekeeping;
use crate::image;
use crate::kubelet::Kubelet;
use crate::metrics::Metrics;
use crate::node::{self, NodeKeeper};
use crate::pod::env::ServiceInfo;
use crate::pod::spec;
use crate::pod::workers::Workers;
use crate::server;
use crate::static_pods;
use crate::volume::Volumes;
use crate::volume::mounts::KernelMounts;
use crate::volume::objects::Wake;

/// Runs the kubelet until `shutdown`. `ready` is given when the node is registered and its pods
/// are known; static pods do not wait for that. Containers go on running after it ends.
///
/// # Errors
/// When a directory, a port or a certificate cannot be used.
pub fn run(
    config: Config,
    deps: Deps,
    ready: Ready,
    shutdown: Shutdown,
) -> BoxFuture<'static, Result<(), KubeletError>> {
    // Boxed here: otherwise the binary would compile the whole component once more.
    Box::pin(work(config, deps, ready, shutdown))
}

async fn work(
    config: Config,
    deps: Deps,
    ready: Ready,
    shutdown: Shutdown,
) -> Result<(), KubeletError> {
    for path in [config.root_dir.join("pods"), config.pod_logs_dir.clone()] {
        std::fs::create_dir_all(&path)
            .map_err(|source| KubeletError::Directory { path, source })?;
    }
    // Events are followed before anything is listed, so that none is missed.
    let events = deps.runtime.events();
    let metrics = Metrics::register(&deps.metrics).map_err(KubeletError::Metrics)?;
    let kubelet = assemble(config, deps, metrics, &shutdown);
    let (cgroups, capacity) = (kubelet.cgroups.clone(), kubelet.capacity.clone());
    let made = tokio::task::spawn_blocking(move || cgroups.set_up(&capacity)).await;
    made.map_err(|error| KubeletError::Cgroups(error.into()))?
        .map_err(|error| KubeletError::Cgroups(error.into()))?;
    drop(stdx::task::spawn("cri-events", follow_runtime(Arc::clone(&kubelet), events)));
    server::start(&kubelet).await?;
    static_pods::follow(&kubelet).await;
    drop(stdx::task::spawn("housekeeping", housekeeping::keep(Arc::clone(&kubelet))));
    let wake = Arc::new(Notify::new());
    let mut keeper = NodeKeeper::new(Arc::clone(&kubelet), Arc::clone(&wake)).await;
    tokio::select! {
        () = keeper.register() => {}
        () = shutdown.begun() => return Ok(()),
    }
    node::follow(&kubelet, &wake);
    drop(stdx::task::spawn("node-status", keeper.run()));
    drop(stdx::task::spawn("node-lease", node::lease::keep(Arc::clone(&kubelet))));
    follow_pods(&kubelet);
    drop(stdx::task::spawn("mirror-pods", static_pods::keep_mirrors(Arc::clone(&kubelet))));
    tokio::select! {
        () = kubelet.pods.synced() => ready.set(),
        () = shutdown.begun() => return Ok(()),
    }
    drop(stdx::task::spawn("image-gc", image::collect::keep(Arc::clone(&kubelet))));
    shutdown.begun().await;
    Ok(())
}

fn assemble(config: Config, deps: Deps, metrics: Metrics, shutdown: &Shutdown) -> Arc<Kubelet> {
    let recorder = EventRecorder::spawn(
        deps.client.clone(),
        Arc::clone(&deps.clock),
        "kubelet",
        &config.node_name,
        shutdown,
    );
    let workers = Arc::new(Workers::default());
    let wake: Wake = {
        let workers = Arc::clone(&workers);
        Arc::new(move |uid| {
            if let Some(worker) = workers.get(uid) {
                worker.objects_changed();
            }
        })
    };
    let (client, clock) = (&deps.client, &deps.clock);
    let volumes =
        Volumes::new(&config.root_dir, client, clock, shutdown, Arc::new(KernelMounts), &wake);
    let services = Informer::spawn(
        client,
        clock,
        InformerConfig::all::<Service>(),
        shutdown,
        ServiceInfo::project,
    );
    let of_node = InformerConfig {
        path: ResourcePath::of::<Pod>(),
        namespace: String::new(),
        options: ListOptions::fields(format!("spec.nodeName={}", config.node_name)),
    };
    let pods = Informer::spawn(client, clock, of_node, shutdown, Pod::of);
    let stop = shutdown.clone();
    Arc::new(Kubelet::new(config, deps, recorder, stop, volumes, services, pods, workers, metrics))
}

/// Every pod of the node gets a worker, and is told to it when it changes.
fn follow_pods(kubelet: &Arc<Kubelet>) {
    // The kubelet holds the lister, so the handler must not hold the kubelet.
    let weak: OnceLock<Weak<Kubelet>> = OnceLock::from(Arc::downgrade(kubelet));
    kubelet.pods.on_change(move |_, change| {
        let Some(kubelet) = weak.get().and_then(Weak::upgrade) else { return };
        let (Change::Added(newest) | Change::Updated { new: newest, .. } | Change::Deleted(newest)) =
            change;
        if static_pods::is_mirror(newest) {
            mirror_changed(&kubelet, newest);
            return;
        }
        match change {
            Change::Added(pod) => kubelet.workers.update(&kubelet, pod),
            Change::Updated { old, new } => {
                if spec::uid(old) != spec::uid(new) {
                    kubelet.workers.gone(spec::uid(old));
                }
                kubelet.workers.update(&kubelet, new);
            }
            Change::Deleted(pod) => kubelet.workers.gone(spec::uid(pod)),
        }
    });
}

/// A mirror pod begins nothing; whoever shows himself in it looks at it.
fn mirror_changed(kubelet: &Kubelet, mirror: &Pod) {
    kubelet.static_pods.look_at_mirrors();
    let key = ObjectKey::new(spec::namespace(mirror), spec::name(mirror));
    let shown = kubelet.static_pods.get(&key);
    if let Some(worker) = shown.and_then(|pod| kubelet.workers.get(spec::uid(&pod))) {
        worker.wake();
    }
}

async fn follow_runtime(kubelet: Arc<Kubelet>, mut events: cri::EventStream) {
    let shutdown = kubelet.shutdown.clone();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = shutdown.begun() => return,
        };
        match event {
            Some(Ok(event)) => {
                if let Some(worker) = kubelet.workers.get(&event.pod_uid) {
                    worker.wake();
                }
            }
            Some(Err(lost)) => {
                tracing::warn!(lost, "events of the runtime were lost, looking at every pod");
                kubelet.workers.wake_all();
            }
            None => return,
        }
    }
}
