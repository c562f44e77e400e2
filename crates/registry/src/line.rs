//! Connections to hosts, through a proxy where there is one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::uri::Scheme;
use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::proxy::{Proxies, Proxy};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The longest answer of a proxy before the connection is the host's.
const ANSWER_BYTES_MAX: usize = 8 << 10;

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) tcp: HttpConnector,
    pub(crate) proxies: Arc<Proxies>,
}

/// A connection.
pub(crate) struct Line {
    stream: TokioIo<TcpStream>,
    /// Requests name the whole address.
    is_proxied: bool,
}

impl Service<Uri> for Connector {
    type Response = Line;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Line, Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.tcp.poll_ready(context).map_err(Error::from)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.of(&to).cloned() else {
            let direct = self.tcp.call(to);
            return Box::pin(async move { Ok(Line { stream: direct.await?, is_proxied: false }) });
        };
        let mut tcp = self.tcp.clone();
        Box::pin(async move {
            let address = Uri::builder()
                .scheme(Scheme::HTTP)
                .authority(proxy.authority.clone())
                .path_and_query("/")
                .build()?;
            let failed = |error: Error| format!("proxyconnect tcp: {}", chain(&*error));
            let stream = tcp.call(address).await.map_err(|error| failed(error.into()))?;
            if to.scheme() != Some(&Scheme::HTTPS) {
                return Ok(Line { stream, is_proxied: true });
            }
            let stream = tunnel(stream.into_inner(), &proxy, &to).await.map_err(failed)?;
            Ok(Line { stream: TokioIo::new(stream), is_proxied: false })
        })
    }
}

/// Asks the proxy for a connection to a host.
async fn tunnel(mut stream: TcpStream, proxy: &Proxy, to: &Uri) -> Result<TcpStream, Error> {
    let host = to.host().ok_or("no host")?;
    let target = format!("{host}:{}", to.port_u16().unwrap_or(443));
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(value) = proxy.authorization.as_ref().map(HeaderValue::to_str).transpose()? {
        request.push_str(&format!("Proxy-Authorization: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // What comes after the answer is the host's, which waits for the first word.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= ANSWER_BYTES_MAX {
            return Err("the proxy's answer is too long".into());
        }
        answer.push(stream.read_u8().await?);
    }
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    match status.split_once(' ') {
        Some((version, "200")) if version.starts_with("HTTP/1.") => Ok(stream),
        Some((version, told)) if version.starts_with("HTTP/1.") => match told.split_once(' ') {
            Some(("200", _)) => Ok(stream),
            Some((_, why)) if !why.is_empty() => Err(why.to_owned().into()),
            _ => Err(format!("unknown status code {told}").into()),
        },
        _ => Err(format!("malformed HTTP response {status:?}").into()),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

impl Connection for Line {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.is_proxied)
    }
}

impl Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }
}
