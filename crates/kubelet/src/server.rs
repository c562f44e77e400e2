//! The kubelet's endpoints: HTTPS for those who may, `/healthz` and a read-only port for everybody
//! who reaches them.

mod auth;
mod logs;
mod metrics;
mod parameters;
mod streams;
mod summary;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::Typed;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::config::KubeletError;
use crate::kubelet::Kubelet;
use auth::{Gate, Identity};
use parameters::Parameters;

/// Connections at once, over all ports; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;

/// How long a client may take for TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) type Body = BoxBody<Bytes, io::Error>;
pub(crate) type Answer = Response<Body>;

/// Who may ask on a port, and for what.
#[derive(Clone)]
enum Door {
    /// Everything, by those who are authorized.
    Guarded(Arc<Gate>),
    /// What changes nothing, by everybody.
    ReadOnly,
    /// Whether the kubelet lives.
    Health,
}

/// Listens on all ports of the configuration; serves until the kubelet ends.
pub(crate) async fn start(kubelet: &Arc<Kubelet>) -> Result<(), KubeletError> {
    let config = &kubelet.config;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    if let Some(address) = config.healthz_address {
        serve(kubelet, bind(address).await?, None, Door::Health, &slots);
    }
    if config.read_only_port != 0 {
        let address = SocketAddr::new(config.address, config.read_only_port);
        serve(kubelet, bind(address).await?, None, Door::ReadOnly, &slots);
    }
    if let Some(tls) = &config.tls {
        let acceptor = TlsAcceptor::from(tls::server_config(tls)?);
        let listener = bind(SocketAddr::new(config.address, config.port)).await?;
        let gate = Gate::new(kubelet.deps.client.clone(), Arc::clone(&kubelet.deps.clock));
        serve(kubelet, listener, Some(acceptor), Door::Guarded(Arc::new(gate)), &slots);
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, KubeletError> {
    TcpListener::bind(address).await.map_err(|source| KubeletError::Listen { address, source })
}

/// Serves one port as a task that ends with the kubelet.
fn serve(
    kubelet: &Arc<Kubelet>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    door: Door,
    slots: &Arc<Semaphore>,
) {
    let (kubelet, slots) = (Arc::clone(kubelet), Arc::clone(slots));
    drop(stdx::task::spawn("kubelet-server", async move {
        let shutdown = kubelet.shutdown.clone();
        loop {
            // The semaphore is never closed.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.begun() => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            stream.set_nodelay(true).ok();
            let (kubelet, tls, door) = (Arc::clone(&kubelet), tls.clone(), door.clone());
            drop(stdx::task::spawn("kubelet-connection", async move {
                let _slot = slot;
                match tls {
                    None => connection(kubelet, Box::new(stream), door, None).await,
                    Some(tls) => {
                        let accepted = tokio::select! {
                            accepted = tls.accept(stream) => accepted,
                            () = kubelet.deps.clock.sleep(HANDSHAKE_TIMEOUT) => return,
                        };
                        let Ok(stream) = accepted else { return };
                        let certificate = stream.get_ref().1.peer_certificates();
                        let identity = certificate.and_then(|c| auth::of_certificate(c.first()?));
                        connection(kubelet, Box::new(stream), door, identity).await;
                    }
                }
            }));
        }
    }));
}

/// One type for both, so that HTTP is compiled once.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for S {}

async fn connection(
    kubelet: Arc<Kubelet>,
    io: Box<dyn Connection>,
    door: Door,
    identity: Option<Identity>,
) {
    let shutdown = kubelet.shutdown.clone();
    let service = service_fn(move |request| {
        let (kubelet, door, identity) = (Arc::clone(&kubelet), door.clone(), identity.clone());
        async move { Ok::<_, Infallible>(answer(&kubelet, &door, identity, request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
    tokio::select! {
        // A broken connection is the client's affair.
        result = serving => drop(result),
        () = shutdown.begun() => {}
    }
}

async fn answer(
    kubelet: &Arc<Kubelet>,
    door: &Door,
    identity: Option<Identity>,
    request: Request<Incoming>,
) -> Answer {
    let path = request.uri().path().to_owned();
    match door {
        Door::Health => {
            return if path.starts_with("/healthz") { text("ok") } else { not_found() };
        }
        Door::ReadOnly => {
            let open = ["/pods", "/metrics", "/stats", "/healthz", "/runningpods"];
            if request.method() != Method::GET || !open.iter().any(|p| path.starts_with(p)) {
                return not_found();
            }
        }
        Door::Guarded(gate) => {
            if let Err(refused) = gate.pass(kubelet, identity, &request).await {
                return refused;
            }
        }
    }
    route(kubelet, &path, request).await
}

async fn route(kubelet: &Arc<Kubelet>, path: &str, request: Request<Incoming>) -> Answer {
    let parameters = Parameters::parse(request.uri().query().unwrap_or_default());
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    let get = request.method() == Method::GET;
    match words.as_slice() {
        ["healthz", ..] if get => text("ok"),
        ["pods"] if get => pods(kubelet),
        ["runningpods"] if get => running_pods(kubelet).await,
        ["metrics"] if get => metrics::own(kubelet),
        ["metrics", "resource"] if get => metrics::resource(kubelet).await,
        ["metrics", "cadvisor"] if get => metrics::cadvisor(kubelet).await,
        ["stats", "summary"] if get => summary::summary(kubelet).await,
        ["containerLogs", namespace, pod, container] if get => {
            logs::serve(kubelet, (namespace, pod, container), &parameters).await
        }
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
            streams::exec(kubelet, (namespace, pod, container), &parameters, request).await
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            streams::attach(kubelet, (namespace, pod, container), &parameters, request).await
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            streams::port_forward(kubelet, (namespace, pod), &parameters, request).await
        }
        ["run", namespace, pod, container] | ["run", namespace, pod, _, container]
            if request.method() == Method::POST =>
        {
            streams::run(kubelet, (namespace, pod, container), &parameters).await
        }
        _ => not_found(),
    }
}

fn pods(kubelet: &Kubelet) -> Answer {
    let items: Vec<_> = kubelet
        .own_pods()
        .iter()
        .map(|pod| {
            let mut value = pod.to_tree().unwrap_or_default();
            if let Some(fields) = value.as_object_mut() {
                // Items of a list do not repeat their kind.
                fields.remove("kind");
                fields.remove("apiVersion");
            }
            value
        })
        .collect();
    json(&serde_json::json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items,
    }))
}

async fn running_pods(kubelet: &Kubelet) -> Answer {
    let filter = cri::PodSandboxFilter {
        state: Some(cri::PodSandboxState::Ready),
        ..cri::PodSandboxFilter::default()
    };
    match kubelet.deps.runtime.list_pod_sandbox(&filter).await {
        Ok(sandboxes) => {
            let items: Vec<_> = sandboxes
                .into_iter()
                .map(|sandbox| {
                    let cri::PodSandboxMetadata { name, namespace, uid, .. } = sandbox.metadata;
                    let metadata =
                        serde_json::json!({ "name": name, "namespace": namespace, "uid": uid });
                    serde_json::json!({ "metadata": metadata, "spec": {}, "status": {} })
                })
                .collect();
            json(&serde_json::json!({
                "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items,
            }))
        }
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A whole text.
pub(crate) fn text(body: impl Into<Bytes>) -> Answer {
    Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed())
}

/// A whole JSON value.
fn json(value: &serde_json::Value) -> Answer {
    let mut answer = text(value.to_string());
    let kind = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    answer
}

/// A failure in words.
pub(crate) fn failure(code: StatusCode, message: &str) -> Answer {
    let mut answer = text(format!("{message}\n"));
    *answer.status_mut() = code;
    answer
}

fn not_found() -> Answer {
    failure(StatusCode::NOT_FOUND, "404 page not found")
}
