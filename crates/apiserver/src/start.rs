//! Starting the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use connection::listener;
use futures::FutureExt;
use futures::future::BoxFuture;
use stdx::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::bootstrap;
use crate::chain;
use crate::config::{Config, Deps, StartError};
use crate::handle::Handle;
use crate::metrics::Metrics;
use crate::pump::Pump;
use crate::resources::Resources;
use crate::server::{Living, Server, authorizer};
use crate::service_addresses::ServiceAddresses;
use crate::tls;
use crate::traffic::Traffic;

/// A way into the server that was started, and the task that ends when it has been drained.
pub type Started = (Handle, JoinHandle<Option<()>>);

/// The API server.
pub struct ApiServer;

impl ApiServer {
    /// Binds, loads the caches and serves. When this returns the server answers requests; the
    /// objects every cluster has are there too. The task ends after shutdown, when connections
    /// have been drained.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(
        config: Config,
        deps: Deps,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<Started, StartError>> {
        // Boxed here: otherwise the binary would compile the whole server once more.
        Box::pin(Self::start_here(config, deps, shutdown))
    }

    async fn start_here(
        mut config: Config,
        deps: Deps,
        shutdown: Shutdown,
    ) -> Result<Started, StartError> {
        let listeners = bind(&config.bind).await?;
        config.bind = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
        let addresses = config.bind.clone().into();
        let peers = Arc::new(tls::Peers::new(&config)?);
        let settings = listener::Settings {
            tls: Arc::new(tls::server_config(&config.pki)?),
            connections: Arc::new(Semaphore::new(config.max_connections)),
            header_timeout: config.header_timeout,
            lanes: Arc::default(),
            clock: deps.clock.clone(),
        };
        let server = Arc::new(build(config, deps, shutdown.clone())?);
        let loaded = server.pump.load(&server.resources).await?;
        let pump = stdx::task::spawn("apiserver watch cache", {
            let server = server.clone();
            async move { server.pump.run(&server.resources, loaded).await }
        });
        adopt_services(&server);
        let handle = Handle { server: server.clone(), addresses };
        bootstrap::run(&handle).await.map_err(|status| StartError::Bootstrap(Box::new(status)))?;
        drop(stdx::task::spawn("api services", crate::aggregation::run(handle.clone())));
        let conditions = crate::custom::conditions::run(handle.clone());
        spawn("custom resource conditions", &shutdown, conditions);
        if let Some(control) = server.traffic.flow_control() {
            let shares = control.clone().run(shutdown.clone());
            drop(stdx::task::spawn("flow control seats", shares));
            let follow = crate::flow_objects::run(handle.clone(), control.clone());
            spawn("flow control objects", &shutdown, follow);
        }
        spawn("service ranges", &shutdown, crate::service_ranges::run(handle.clone()));
        let default_range = crate::service_ranges::default_range::run(handle.clone());
        spawn("default service range", &shutdown, default_range);
        spawn("token tracking", &shutdown, crate::token_tracking::run(handle.clone()));
        spawn("identity lease", &shutdown, crate::identity_lease::run(handle.clone()));
        spawn("storage versions", &shutdown, crate::storage_versions::run(handle.clone()));
        drop(stdx::task::spawn("event expiry", crate::event_expiry::run(server.clone())));
        server.is_ready.store(true, Ordering::Relaxed);
        let accept = accept(&server, peers);
        let serving: Vec<_> = listeners
            .into_iter()
            .map(|listener| {
                let (settings, accept) = (settings.clone(), accept.clone());
                let serve = listener::serve(listener, settings, accept, shutdown.clone());
                stdx::task::spawn("apiserver listener", serve)
            })
            .collect();
        let task = stdx::task::spawn("apiserver", async move {
            futures::future::join_all(serving).await;
            shutdown.begun().await;
            end(&server, pump).await;
        });
        Ok((handle, task))
    }
}

/// When nobody is served any more: requests that were still answered found what they wrote in the
/// caches, and are recorded.
async fn end(server: &Server, pump: JoinHandle<Option<()>>) {
    server.pump.end();
    pump.await.ok();
    if let Some(auditor) = &server.auditor {
        auditor.finish().await;
    }
}

/// Starts a task that is dropped at shutdown, wherever it is: a write of it may not end then.
fn spawn(name: &'static str, shutdown: &Shutdown, work: impl Future<Output = ()> + Send + 'static) {
    let shutdown = shutdown.clone();
    drop(stdx::task::spawn(name, async move {
        tokio::select! {
            () = work => {}
            () = shutdown.begun() => {}
        }
    }));
}

/// Binds every address.
async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            std::io::ErrorKind::AddrInUse => StartError::AddressInUse { address },
            _ => StartError::Bind { address, source },
        })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// What is done with requests: TLS has verified the certificate, and it stays the same as long as the
/// connection lasts.
fn accept(server: &Arc<Server>, peers: Arc<tls::Peers>) -> listener::Accept {
    let server = server.clone();
    Arc::new(move |caller| {
        let connected = Arc::new(chain::Connected {
            address: caller.address.ip(),
            peer: peers.know(caller.certificates, server.clock.now()),
        });
        let server = server.clone();
        Arc::new(move |request| {
            chain::serve_connection(server.clone(), connected.clone(), request).boxed()
        })
    })
}

fn build(config: Config, deps: Deps, shutdown: Shutdown) -> Result<Server, StartError> {
    let resources = Arc::new(Resources::built_in());
    let pki_error =
        |what| move |error: authn::KeyError| StartError::Pki { what, source: Box::new(error) };
    let signer = authn::TokenSigner::from_pem(&config.pki.service_account_key)
        .map_err(pki_error("service account key"))?;
    let verifier = authn::TokenVerifier::new(
        config.issuer.clone(),
        &signer,
        &config.pki.service_account_public_keys,
        Arc::new(Living(resources.clone())),
    )
    .map_err(pki_error("service account public key"))?;
    let static_tokens = match &config.token_auth_file {
        Some(path) => authn::StaticTokens::read(path)?,
        None => authn::StaticTokens::default(),
    };
    let metrics = Metrics::new(deps.metrics.clone(), &config.features);
    let auditor = audit::Auditor::start(config.audit.clone(), &deps.clock, &deps.metrics)?;
    let audiences = vec![config.issuer.clone()];
    let authenticator =
        authn::Authenticator::new(config.anonymous, static_tokens, verifier, audiences);
    let has_front_proxy = !config.pki.front_proxy_ca.is_empty();
    let authenticator =
        authenticator.behind(has_front_proxy.then(|| config.request_header.clone()));
    let bootstrap = config.enable_bootstrap_token_auth.then(|| Living(resources.clone()));
    let authenticator = authenticator.bootstrapping(bootstrap.map(|living| Arc::new(living) as _));
    Ok(Server {
        authorizer: authorizer(&config, &resources),
        pump: Pump::new(deps.store.clone(), deps.clock.clone(), metrics.stored_events.clone()),
        services: ServiceAddresses::new(config.service_cluster_ip_range),
        traffic: Traffic::new(&config, &deps.clock, &deps.metrics),
        kubelet_tls: tls::kubelet_config(&config.pki)?,
        metrics,
        documents: openapi::Documents::new(),
        store: deps.store,
        clock: deps.clock,
        admission: admission::Chain::new(&config.features),
        quotas: crate::quota::Quotas::default(),
        webhooks: crate::webhook::Webhooks::new(&resources),
        backends: crate::aggregation::Backends::new(&resources),
        is_ready: AtomicBool::new(false),
        no_resource: meta::GroupResource { group: String::new(), resource: String::new() },
        auditor,
        authenticator,
        signer,
        config,
        resources,
        shutdown,
    })
}

/// Cluster IPs and node ports of the services that are there are taken.
fn adopt_services(server: &Server) {
    for service in admission::View::list(server, "", "services", "") {
        if let Ok(service) = service.decode() {
            server.services.adopt(&service);
        }
    }
}
