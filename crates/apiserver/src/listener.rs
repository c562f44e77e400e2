//! Sockets: accept, shake hands, serve HTTP/1 and HTTP/2.

mod lenient;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use authn::{Authenticated, Authenticator};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use stdx::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use self::lenient::Lenient;
use crate::chain;
use crate::config::StartError;
use crate::server::Server;

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

/// Binds every address.
pub(crate) async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
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

/// Serves one listener until shutdown, then drains it.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    server: Arc<Server>,
    connections: Arc<Semaphore>,
    shutdown: Shutdown,
) {
    let acceptor = TlsAcceptor::from(tls);
    let graceful = Arc::new(GracefulShutdown::new());
    loop {
        // A full house waits in the kernel's queue.
        let permit = tokio::select! {
            permit = connections.clone().acquire_owned() => permit,
            () = shutdown.begun() => break,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.begun() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                server.clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection =
            connection(stream, acceptor.clone(), server.clone(), graceful.clone(), permit);
        drop(stdx::task::spawn("apiserver connection", connection));
    }
    drop(listener);
    let Some(graceful) = Arc::into_inner(graceful) else {
        // Connections hold it only while they begin; give those a moment and leave the rest.
        server.clock.sleep(ACCEPT_PAUSE).await;
        return;
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        () = server.clock.sleep(DRAIN) => {
            tracing::warn!("some connections did not end in time");
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    server: Arc<Server>,
    graceful: Arc<GracefulShutdown>,
    permit: OwnedSemaphorePermit,
) {
    stream.set_nodelay(true).ok();
    let handshake = tokio::select! {
        handshake = acceptor.accept(stream) => handshake,
        () = server.clock.sleep(HANDSHAKE) => return,
    };
    let stream = match handshake {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
    };
    // TLS has verified it, and it stays the same as long as the connection lasts.
    let certified: Option<Arc<Authenticated>> = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| Some(Arc::new(Authenticator::certified(chain.first()?)?)));
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(server.config.header_timeout)
        .max_headers(HEADER_COUNT)
        .max_buf_size(HEADER_BYTES.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(KEEP_ALIVE));
    let service = service_fn(move |request| {
        let server = server.clone();
        let certified = certified.clone();
        async move {
            let response = chain::serve_connection(server, certified, request).await;
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let served = if is_http2 {
        let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let served = graceful.watch(served.into_owned());
        drop(graceful);
        served.await
    } else {
        let stream = TokioIo::new(Lenient::new(stream));
        let served = builder.serve_connection_with_upgrades(stream, service);
        let served = graceful.watch(served.into_owned());
        drop(graceful);
        served.await
    };
    if let Err(error) = served {
        tracing::debug!(error = %telemetry::Chain(&*error), "a connection ended");
    }
    drop(permit);
}
