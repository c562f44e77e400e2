//! Requests to other servers: kubelets, pods, webhooks, aggregated servers.

use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::Body;

/// A connection that is silent for so long is asked whether it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A stream of bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// An answer on its way.
pub type Answering<'a> = BoxFuture<'a, Result<Response<Incoming>, hyper::Error>>;

/// Sends one request over a connection of its own, HTTP/1, which may switch to another protocol.
///
/// # Errors
/// When the connection breaks, or what comes is no answer.
pub fn send(stream: Box<dyn Stream>, request: Request<Body>) -> Answering<'static> {
    // Boxed, here and below: what a crate awaits of another one is compiled in it, with all of the
    // HTTP library.
    Box::pin(send_alone(stream, request))
}

async fn send_alone(
    stream: Box<dyn Stream>,
    request: Request<Body>,
) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    drive(connection.with_upgrades());
    sender.send_request(request).await
}

/// A connection over which requests go one after the other, HTTP/1.
pub struct Serial(http1::SendRequest<Body>);

impl Serial {
    /// Begins HTTP/1 on a stream.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn begin(stream: Box<dyn Stream>) -> BoxFuture<'static, Result<Self, hyper::Error>> {
        Box::pin(Self::handshake(stream))
    }

    async fn handshake(stream: Box<dyn Stream>) -> Result<Self, hyper::Error> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        drive(connection);
        Ok(Self(sender))
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends a request, when the answer to the one before was read.
    ///
    /// # Errors
    /// When the connection breaks, as one may that was idle.
    pub fn send(&mut self, request: Request<Body>) -> Answering<'_> {
        Box::pin(async move {
            self.0.ready().await?;
            self.0.send_request(request).await
        })
    }
}

/// A connection that many requests share. Clones are the same connection.
#[derive(Clone)]
pub struct Shared(http2::SendRequest<Body>);

impl Shared {
    /// Begins HTTP/2 on a stream.
    ///
    /// # Errors
    /// When the other side does not speak it.
    pub fn begin(stream: Box<dyn Stream>) -> BoxFuture<'static, Result<Self, hyper::Error>> {
        Box::pin(Self::handshake(stream))
    }

    async fn handshake(stream: Box<dyn Stream>) -> Result<Self, hyper::Error> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).adaptive_window(true);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        drive(connection);
        Ok(Self(sender))
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends a request. Its address must be whole: scheme, host and path.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send(&mut self, request: Request<Body>) -> Answering<'_> {
        Box::pin(self.0.send_request(request))
    }
}

/// Whoever waits for an answer learns what went wrong.
fn drive(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
    drop(stdx::task::spawn("outbound connection", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to another server ended");
        }
    }));
}
