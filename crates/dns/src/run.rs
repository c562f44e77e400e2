//! The component: follows the API and serves.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use api::Typed;
use client::{Change, Client, Informer, InformerConfig};
use clock::SharedClock;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, Service as ApiService};
use k8s_openapi::api::discovery::v1::EndpointSlice as ApiSlice;
use meta::Object;
use prometheus::{IntCounterVec, Opts};
use stdx::ready::Ready;
use stdx::shutdown::Shutdown;

use crate::forward::Upstreams;
use crate::server::{Listeners, Resolver};
use crate::zone::{Service, Slice, Zone};

/// How DNS works.
pub struct Config {
    /// Where it listens, on UDP and TCP.
    pub bind_address: SocketAddr,
    /// The cluster's domain, such as `cluster.local`.
    pub cluster_domain: String,
    /// Who answers everything else.
    pub upstreams: Upstreams,
}

/// What DNS works with.
pub struct Deps {
    /// The API, as `system:kube-dns`.
    pub client: Client,
    /// Time.
    pub clock: SharedClock,
    /// Where metrics are registered.
    pub metrics: telemetry::Registry,
}

/// Why DNS cannot work.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The port cannot be used.
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

/// Serves until `shutdown`. Ready when the zone is complete; questions wait for that.
///
/// # Errors
/// When it cannot start.
pub fn run(
    config: Config,
    deps: Deps,
    ready: Ready,
    shutdown: Shutdown,
) -> BoxFuture<'static, Result<(), DnsError>> {
    // Boxed here: otherwise the binary would compile the whole component once more.
    Box::pin(work(config, deps, ready, shutdown))
}

async fn work(
    config: Config,
    deps: Deps,
    ready: Ready,
    shutdown: Shutdown,
) -> Result<(), DnsError> {
    let requests = Opts::new("coredns_dns_requests_total", "Number of DNS questions.");
    let requests = IntCounterVec::new(requests, &["proto"]).map_err(DnsError::Metrics)?;
    deps.metrics.register(Box::new(requests.clone())).map_err(DnsError::Metrics)?;
    let address = config.bind_address;
    let listeners =
        Listeners::bind(address).await.map_err(|source| DnsError::Listen { address, source })?;
    let zone = Arc::new(RwLock::new(Zone::default()));
    tokio::select! {
        () = follow(&deps, &zone, &shutdown) => {}
        () = shutdown.begun() => return Ok(()),
    }
    if let Ok(address) = listeners.address() {
        tracing::info!(%address, domain = config.cluster_domain, "serving cluster DNS");
    }
    let resolver = Resolver {
        zone,
        domain: config.cluster_domain,
        upstreams: config.upstreams,
        clock: deps.clock,
        requests,
    };
    ready.set();
    listeners.serve(Arc::new(resolver), &shutdown).await;
    Ok(())
}

/// Starts the informers that keep the zone up to date, and waits until it is complete.
async fn follow(deps: &Deps, zone: &Arc<RwLock<Zone>>, shutdown: &Shutdown) {
    let Deps { client, clock, .. } = deps;
    let namespaces = InformerConfig::all::<Namespace>();
    let namespaces = Informer::spawn(client, clock, namespaces, shutdown, |_: &Object| Ok(()));
    let target = Arc::clone(zone);
    namespaces.on_change(move |key, change| {
        update(&target, |zone| {
            zone.set_namespace(&key.name, !matches!(change, Change::Deleted(_)));
        });
    });

    let services = InformerConfig::all::<ApiService>();
    let read = |object: &Object| Ok(Service::read(&ApiService::of(object)?));
    let services = Informer::spawn(client, clock, services, shutdown, read);
    let target = Arc::clone(zone);
    services.on_change(move |key, change| match change {
        Change::Added(new) | Change::Updated { new, .. } => {
            update(&target, |zone| zone.set_service(key, (**new).clone()));
        }
        Change::Deleted(_) => update(&target, |zone| zone.set_service(key, None)),
    });

    let slices = InformerConfig::all::<ApiSlice>();
    let read = |object: &Object| Ok(Slice::read(&ApiSlice::of(object)?).map(Arc::new));
    let slices = Informer::spawn(client, clock, slices, shutdown, read);
    let target = Arc::clone(zone);
    slices.on_change(move |key, change| {
        let (old, new) = match change {
            Change::Added(new) => (None, Option::as_ref(new)),
            Change::Updated { old, new } => (Option::as_ref(old), Option::as_ref(new)),
            Change::Deleted(old) => (Option::as_ref(old), None),
        };
        update(&target, |zone| zone.set_slice(key, old, new));
    });
    namespaces.synced().await;
    services.synced().await;
    slices.synced().await;
}

fn update(zone: &RwLock<Zone>, change: impl FnOnce(&mut Zone)) {
    change(&mut zone.write().unwrap_or_else(PoisonError::into_inner));
}
