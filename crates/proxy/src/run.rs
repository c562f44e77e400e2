//! The component: follows services and endpoints, and changes the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::Typed;
use client::{Backoff, Change, Client, Informer, InformerConfig, ListOptions, Lister};
use clock::SharedClock;
use futures::future::BoxFuture;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, Service as ApiService};
use k8s_openapi::api::discovery::v1::EndpointSlice as ApiSlice;
use meta::{Object, ObjectKey};
use prometheus::{Histogram, HistogramOpts, IntCounter};
use stdx::ready::Ready;
use stdx::shutdown::Shutdown;
use tokio::sync::Notify;

use crate::dataplane::Dataplane;
use crate::health::Health;
use crate::plan::{Context, Plan, plan};
use crate::service::{Service, Slice};

/// Changes that arrive within this time go into one transaction.
const COALESCE: Duration = Duration::from_millis(2);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How the proxy works.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub node_name: String,
    /// The network of all pods.
    pub cluster_cidr: Ipv4Net,
    /// Where `/healthz` is served, upstream's default is port 10256; `None` serves none.
    pub healthz_bind_address: Option<SocketAddr>,
}

/// What the proxy works with.
pub struct Deps {
    /// The API, as `system:kube-proxy`.
    pub client: Client,
    /// Time.
    pub clock: SharedClock,
    /// Where metrics are registered.
    pub metrics: telemetry::Registry,
}

/// Why the proxy cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The health port cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A metric is registered twice.
    #[error("metrics cannot be registered")]
    Metrics(#[source] prometheus::Error),
}

/// Runs the proxy until `shutdown`; its rules stay in the kernel. Ready when the first
/// transaction is committed.
///
/// # Errors
/// When it cannot start. Later failures are retried.
pub fn run(
    config: Config,
    deps: Deps,
    ready: Ready,
    shutdown: Shutdown,
) -> BoxFuture<'static, Result<(), ProxyError>> {
    // Boxed here: otherwise the binary would compile the whole component once more.
    Box::pin(work(config, deps, ready, shutdown))
}

async fn work(
    config: Config,
    deps: Deps,
    ready: Ready,
    shutdown: Shutdown,
) -> Result<(), ProxyError> {
    let metrics = Metrics::register(&deps.metrics).map_err(ProxyError::Metrics)?;
    let health = Health::start(config.healthz_bind_address, &deps.clock, &shutdown).await?;
    let tracker = Arc::new(Tracker::default());
    let services = follow_services(&deps, &tracker, &shutdown);
    let slices = follow_slices(&deps, &tracker, &shutdown);
    let _node = follow_node(&deps, &config.node_name, &tracker, &shutdown);
    let zone = String::new();
    let context = Context { node: config.node_name, zone, cluster_cidr: config.cluster_cidr };
    let mut syncer = Syncer {
        context,
        tracker,
        services,
        dataplane: Arc::new(Mutex::new(Dataplane::new())),
        health,
        metrics,
        clock: deps.clock,
    };
    tokio::select! {
        () = syncer.follow(&slices, &ready) => {}
        () = shutdown.begun() => {}
    }
    Ok(())
}

struct Metrics {
    sync_seconds: Histogram,
    sync_failures: IntCounter,
}

impl Metrics {
    fn register(registry: &telemetry::Registry) -> Result<Self, prometheus::Error> {
        // Upstream's buckets: 1 ms doubling 15 times.
        let buckets = prometheus::exponential_buckets(0.001, 2.0, 15)?;
        let sync_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "kubeproxy_sync_proxy_rules_duration_seconds",
                "Time that one change of the proxy rules took, in seconds.",
            )
            .buckets(buckets),
        )?;
        let sync_failures = IntCounter::new(
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
            "Number of changes of the proxy rules that the kernel refused.",
        )?;
        registry.register(Box::new(sync_seconds.clone()))?;
        registry.register(Box::new(sync_failures.clone()))?;
        Ok(Self { sync_seconds, sync_failures })
    }
}

/// Which services have changed, and which slices belong to which service.
#[derive(Default)]
struct Tracker {
    state: Mutex<Tracked>,
    changed: Notify,
}

#[derive(Default)]
struct Tracked {
    dirty: BTreeSet<ObjectKey>,
    /// Slices by service and then by name.
    slices: BTreeMap<ObjectKey, BTreeMap<String, Arc<Slice>>>,
    /// This node's, empty as long as it is not known to have one.
    zone: String,
}

impl Tracker {
    fn update(&self, change: impl FnOnce(&mut Tracked)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    /// A slice appears at, or with `None` disappears from, its service.
    fn set_slice(&self, key: &ObjectKey, old: Option<&Arc<Slice>>, new: Option<&Arc<Slice>>) {
        let service = |slice: &Slice| ObjectKey::new(key.namespace.clone(), slice.service.clone());
        self.update(|tracked| {
            if let Some(old) = old {
                let service = service(old);
                if let Some(slices) = tracked.slices.get_mut(&service) {
                    slices.remove(&key.name);
                    if slices.is_empty() {
                        tracked.slices.remove(&service);
                    }
                }
                tracked.dirty.insert(service);
            }
            if let Some(new) = new {
                let service = service(new);
                let slices = tracked.slices.entry(service.clone()).or_default();
                slices.insert(key.name.clone(), Arc::clone(new));
                tracked.dirty.insert(service);
            }
        });
    }
}

fn follow_services(
    deps: &Deps,
    tracker: &Arc<Tracker>,
    shutdown: &Shutdown,
) -> Lister<Option<Service>> {
    let config = InformerConfig::all::<ApiService>();
    let project = |object: &Object| Ok(Service::read(&ApiService::of(object)?));
    let services = Informer::spawn(&deps.client, &deps.clock, config, shutdown, project);
    let tracker = Arc::clone(tracker);
    services.on_change(move |key, change| {
        // A change of what the proxy does not read needs no transaction.
        if matches!(&change, Change::Updated { old, new } if old == new) {
            return;
        }
        tracker.update(|tracked| {
            tracked.dirty.insert(key.clone());
        });
    });
    services
}

fn follow_slices(
    deps: &Deps,
    tracker: &Arc<Tracker>,
    shutdown: &Shutdown,
) -> Lister<Option<Arc<Slice>>> {
    let config = InformerConfig::all::<ApiSlice>();
    let project = |object: &Object| Ok(Slice::read(&ApiSlice::of(object)?).map(Arc::new));
    let slices = Informer::spawn(&deps.client, &deps.clock, config, shutdown, project);
    let tracker = Arc::clone(tracker);
    slices.on_change(move |key, change| match change {
        Change::Added(new) => tracker.set_slice(key, None, Option::as_ref(new)),
        Change::Deleted(old) => tracker.set_slice(key, Option::as_ref(old), None),
        Change::Updated { old, new } if old == new => {}
        Change::Updated { old, new } => {
            tracker.set_slice(key, Option::as_ref(old), Option::as_ref(new));
        }
    });
    slices
}

/// Plans all services again when the zone of this node is known, or another one.
fn follow_node(
    deps: &Deps,
    name: &str,
    tracker: &Arc<Tracker>,
    shutdown: &Shutdown,
) -> Lister<String> {
    let config = InformerConfig {
        options: ListOptions::fields(format!("metadata.name={name}")),
        ..InformerConfig::all::<Node>()
    };
    let project = |object: &Object| {
        let labels = Node::of(object)?.metadata.labels;
        Ok(labels.and_then(|mut labels| labels.remove(api::labels::ZONE)).unwrap_or_default())
    };
    let nodes = Informer::spawn(&deps.client, &deps.clock, config, shutdown, project);
    let tracker = Arc::clone(tracker);
    nodes.on_change(move |_, change| {
        let zone = match change {
            Change::Added(zone) | Change::Updated { new: zone, .. } => (**zone).clone(),
            Change::Deleted(_) => String::new(),
        };
        tracker.update(|tracked| {
            if tracked.zone != zone {
                tracked.zone = zone;
                tracked.dirty.extend(tracked.slices.keys().cloned());
            }
        });
    });
    nodes
}

struct Syncer {
    context: Context,
    tracker: Arc<Tracker>,
    services: Lister<Option<Service>>,
    dataplane: Arc<Mutex<Dataplane>>,
    health: Health,
    metrics: Metrics,
    clock: SharedClock,
}

impl Syncer {
    async fn follow(&mut self, slices: &Lister<Option<Arc<Slice>>>, ready: &Ready) {
        self.services.synced().await;
        slices.synced().await;
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            if self.sync().await {
                backoff.reset();
                ready.set();
                self.tracker.changed.notified().await;
                self.clock.sleep(COALESCE).await;
            } else {
                self.clock.sleep(backoff.next_delay()).await;
            }
        }
    }

    /// Applies what has changed; `false` when the kernel refused, and it must be tried again.
    async fn sync(&mut self) -> bool {
        let changes = self.changes();
        let health: Vec<_> = changes
            .iter()
            .map(|(key, plan)| {
                let service = self.services.get(key);
                let port = service.and_then(|service| (*service).as_ref()?.health_check_node_port);
                let count = plan.as_ref().map_or(0, |plan| plan.local_ready);
                (key.clone(), port.map(|port| (port, count)))
            })
            .collect();
        let dataplane = Arc::clone(&self.dataplane);
        let begun = self.clock.monotonic();
        let applied = tokio::task::spawn_blocking(move || {
            dataplane.lock().unwrap_or_else(PoisonError::into_inner).apply(changes)
        })
        .await;
        let took = self.clock.monotonic().saturating_duration_since(begun);
        self.metrics.sync_seconds.observe(took.as_secs_f64());
        match applied {
            Ok(Ok(())) => {
                self.health.synced(health).await;
                true
            }
            Ok(Err(error)) => {
                self.metrics.sync_failures.inc();
                let error = telemetry::Chain(&error).to_string();
                tracing::error!(error, "service rules cannot be changed, trying again");
                false
            }
            Err(_panic) => {
                self.metrics.sync_failures.inc();
                false
            }
        }
    }

    /// The new plan of every service that changed since the last call.
    fn changes(&self) -> Vec<(ObjectKey, Option<Plan>)> {
        let (dirty, slices, zone) = {
            let mut tracked = self.tracker.state.lock().unwrap_or_else(PoisonError::into_inner);
            let dirty = std::mem::take(&mut tracked.dirty);
            let slices: Vec<Vec<Arc<Slice>>> = dirty
                .iter()
                .map(|key| {
                    tracked
                        .slices
                        .get(key)
                        .into_iter()
                        .flat_map(BTreeMap::values)
                        .cloned()
                        .collect()
                })
                .collect();
            (dirty, slices, tracked.zone.clone())
        };
        let context = Context { zone, ..self.context.clone() };
        dirty
            .into_iter()
            .zip(slices)
            .map(|(key, slices)| {
                let service = self.services.get(&key);
                let plan = service.as_ref().and_then(|service| {
                    let slices: Vec<&Slice> = slices.iter().map(Arc::as_ref).collect();
                    Some(plan(&context, &key, (**service).as_ref()?, &slices))
                });
                (key, plan)
            })
            .collect()
    }
}
