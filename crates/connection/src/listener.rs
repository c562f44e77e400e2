//! Sockets: accept, shake hands, serve HTTP/1 and HTTP/2.

mod gather;
mod lanes;
mod lenient;
mod socket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clock::SharedClock;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::pki_types::CertificateDer;
use stdx::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use self::lanes::{Considerate, Place};
pub use self::lanes::{Lane, Lanes};
use self::lenient::Lenient;
use self::socket::Socket;
use crate::body::Body;

/// A peer that has not finished its handshake by then is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a peer is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long requests may take to end after shutdown has begun.
const DRAIN: Duration = Duration::from_secs(10);
/// Upstream's limit of requests on one HTTP/2 connection.
const STREAMS: u32 = 250;
const HEADER_BYTES: usize = 64 << 10;
const HEADER_COUNT: usize = 200;
/// Pause after an accept that failed, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers the requests of one connection. Each has a [`Lane`] among its extensions.
pub type Handler =
    Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// Who is at the other end of a connection.
pub struct Caller<'a> {
    /// From where.
    pub address: SocketAddr,
    /// The verified certificate and those it came with; empty when there is none.
    pub certificates: &'a [CertificateDer<'static>],
}

/// Makes the handler of a connection.
pub type Accept = Arc<dyn Fn(&Caller<'_>) -> Handler + Send + Sync>;

/// How connections are served.
#[derive(Clone)]
pub struct Settings {
    /// TLS of the server.
    pub tls: Arc<rustls::ServerConfig>,
    /// Connections at once, over all listeners.
    pub connections: Arc<Semaphore>,
    /// How long the head of an HTTP/1 request may take.
    pub header_timeout: Duration,
    /// Where connections are served.
    pub lanes: Arc<Lanes>,
    /// Time.
    pub clock: SharedClock,
}

/// Serves one listener until shutdown, then drains it.
pub fn serve(
    listener: TcpListener,
    settings: Settings,
    accept: Accept,
    shutdown: Shutdown,
) -> BoxFuture<'static, ()> {
    // Boxed: what a crate awaits of another one is compiled in it, with all of the HTTP library.
    Box::pin(serve_until(listener, settings, accept, shutdown))
}

async fn serve_until(
    listener: TcpListener,
    settings: Settings,
    accept: Accept,
    shutdown: Shutdown,
) {
    let acceptor = TlsAcceptor::from(settings.tls.clone());
    let graceful = Arc::new(GracefulShutdown::new());
    loop {
        // A full house waits in the kernel's queue.
        let permit = tokio::select! {
            permit = settings.connections.clone().acquire_owned() => permit,
            () = shutdown.begun() => break,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.begun() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                settings.clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let peer = Peer { stream, address, permit, settings: settings.clone() };
        let connection = connection(peer, acceptor.clone(), accept.clone(), graceful.clone());
        drop(stdx::task::spawn("apiserver connection", connection));
    }
    drop(listener);
    let Some(graceful) = Arc::into_inner(graceful) else {
        // Connections hold it only while they begin; give those a moment and leave the rest.
        settings.clock.sleep(ACCEPT_PAUSE).await;
        return;
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        () = settings.clock.sleep(DRAIN) => {
            tracing::warn!("some connections did not end in time");
        }
    }
}

/// Who has connected.
struct Peer {
    stream: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
    settings: Settings,
}

async fn connection(
    peer: Peer,
    acceptor: TlsAcceptor,
    accept: Accept,
    graceful: Arc<GracefulShutdown>,
) {
    let Peer { stream, address, permit, settings } = peer;
    stream.set_nodelay(true).ok();
    let lane = Lane::default();
    let place = Place::new(lane.clone(), settings.lanes);
    let handshake = tokio::select! {
        handshake = acceptor.accept(Socket::new(stream, place.clone())) => handshake,
        () = settings.clock.sleep(HANDSHAKE) => return,
    };
    let stream = match handshake {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let handler = accept(&Caller { address, certificates });
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let mut builder = auto::Builder::new(Considerate);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_headers(HEADER_COUNT)
        .max_buf_size(HEADER_BYTES.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(KEEP_ALIVE));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(lane.clone());
        let answer = handler(request);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let served: BoxFuture<'static, _> = if is_http2 {
        let (stream, turn) = gather::gather(stream);
        let builder = builder.http2_only();
        let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        Box::pin(turn.run(graceful.watch(served.into_owned())))
    } else {
        let stream = TokioIo::new(Lenient::new(stream));
        let served = builder.serve_connection_with_upgrades(stream, service);
        Box::pin(graceful.watch(served.into_owned()))
    };
    drop(graceful);
    let served = Box::pin(async move {
        if let Err(error) = served.await {
            tracing::debug!(error = %telemetry::Chain(&*error), "a connection ended");
        }
        drop(permit);
    });
    lanes::serve(served, place, settings.clock).await;
}
