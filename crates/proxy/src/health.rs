//! Health endpoints: the proxy's own, and one per service whose load balancer asks for it.
//!
//! Answers are shaped as upstream's `pkg/proxy/healthcheck`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use clock::SharedClock;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use meta::ObjectKey;
use serde_json::json;
use stdx::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::run::ProxyError;

/// Connections of one health port at once; load balancers use one or two.
const CONNECTIONS_MAX: usize = 64;

type Answer = Arc<dyn Fn(&str) -> (StatusCode, serde_json::Value) + Send + Sync>;

struct NodePort {
    port: u16,
    local_endpoints: Arc<Mutex<usize>>,
    /// Ends the listener when the service goes or changes its port.
    stop: Shutdown,
}

pub(crate) struct Health {
    last_updated: Arc<Mutex<Option<Timestamp>>>,
    clock: SharedClock,
    shutdown: Shutdown,
    node_ports: BTreeMap<ObjectKey, NodePort>,
}

impl Health {
    pub(crate) async fn start(
        address: Option<SocketAddr>,
        clock: &SharedClock,
        shutdown: &Shutdown,
    ) -> Result<Self, ProxyError> {
        let last_updated = Arc::new(Mutex::new(None));
        if let Some(address) = address {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|source| ProxyError::Listen { address, source })?;
            let (updated, clock) = (Arc::clone(&last_updated), Arc::clone(clock));
            let answer: Answer = Arc::new(move |path| healthz(path, &updated, &clock));
            serve(listener, answer, shutdown.clone());
        }
        let node_ports = BTreeMap::new();
        Ok(Self { last_updated, clock: Arc::clone(clock), shutdown: shutdown.clone(), node_ports })
    }

    /// Called after every transaction: which services want a health port, and how many endpoints
    /// they have on this node.
    pub(crate) async fn synced(&mut self, services: Vec<(ObjectKey, Option<(u16, usize)>)>) {
        *self.last_updated.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.now());
        for (key, wanted) in services {
            let current = self.node_ports.get(&key).map(|open| open.port);
            if current != wanted.map(|(port, _)| port)
                && let Some(closed) = self.node_ports.remove(&key)
            {
                closed.stop.begin();
            }
            let Some((port, count)) = wanted else { continue };
            if !self.node_ports.contains_key(&key) {
                self.open(&key, port).await;
            }
            if let Some(open) = self.node_ports.get(&key) {
                *open.local_endpoints.lock().unwrap_or_else(PoisonError::into_inner) = count;
            }
        }
    }

    async fn open(&mut self, key: &ObjectKey, port: u16) {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(service = %key, port, %error, "health check port cannot be opened");
                return;
            }
        };
        let local_endpoints = Arc::new(Mutex::new(0));
        let (name, count) = (key.clone(), Arc::clone(&local_endpoints));
        let answer: Answer = Arc::new(move |_path| {
            let count = *count.lock().unwrap_or_else(PoisonError::into_inner);
            let code = if count > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let service = json!({ "namespace": name.namespace, "name": name.name });
            let body =
                json!({ "service": service, "localEndpoints": count, "serviceProxyHealthy": true });
            (code, body)
        });
        let stop = self.shutdown.child();
        serve(listener, answer, stop.clone());
        self.node_ports.insert(key.clone(), NodePort { port, local_endpoints, stop });
    }
}

fn healthz(
    path: &str,
    updated: &Mutex<Option<Timestamp>>,
    clock: &SharedClock,
) -> (StatusCode, serde_json::Value) {
    if !matches!(path, "/healthz" | "/livez") {
        return (StatusCode::NOT_FOUND, json!("404 page not found"));
    }
    let now = clock.now();
    let updated = *updated.lock().unwrap_or_else(PoisonError::into_inner);
    let code = if updated.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "lastUpdated": updated.unwrap_or(now).to_string(),
        "currentTime": now.to_string(),
        "nodeEligible": true,
    });
    (code, body)
}

fn serve(listener: TcpListener, answer: Answer, stop: Shutdown) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    drop(stdx::task::spawn("proxy-health", async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.begun() => return,
            };
            // An error of accept concerns one connection; too many of them are turned away.
            let Ok((stream, _)) = accepted else { continue };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let answer = Arc::clone(&answer);
            drop(stdx::task::spawn("proxy-health-connection", async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let (code, body) = answer(request.uri().path());
                    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
                    *response.status_mut() = code;
                    let json = http::HeaderValue::from_static("application/json");
                    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "health connection ended");
                }
                drop(place);
            }));
        }
    }));
}
