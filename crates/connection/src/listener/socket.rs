//! A socket whose readiness is found by the threads that serve its connection.
//!
//! A runtime is told of every byte that comes for the sockets registered with it. As long as those of
//! a crowd stay where they were accepted, its bytes wake the usual threads, and who is served there
//! waits for them.
//!
//! Invariant: the socket is registered with one runtime at any time; it changes at the first use
//! after its connection has changed [lanes](super::lanes), by the task that uses it then.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::lanes::Place;

/// The socket of a connection.
pub(super) struct Socket {
    /// `None` once it could not be registered, which ends the connection.
    stream: Option<TcpStream>,
    place: Place,
    is_aside: bool,
}

impl Socket {
    /// A socket that is registered with the usual runtime.
    pub(super) fn new(stream: TcpStream, place: Place) -> Self {
        Self { stream: Some(stream), place, is_aside: false }
    }

    /// The stream, registered where its connection is served.
    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let is_aside = self.place.is_aside();
        if is_aside != self.is_aside
            && let Some(stream) = self.stream.take()
        {
            let _entered = self.place.runtime(is_aside).map(tokio::runtime::Handle::enter);
            self.stream = Some(TcpStream::from_std(stream.into_std()?)?);
            self.is_aside = is_aside;
        }
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(ctx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(ctx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(ctx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(ctx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use clock::SystemClock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::listener::{Lane, lanes};

    /// Sends back what comes, and tells on which threads it runs.
    async fn echo(mut socket: Socket, threads: Arc<Mutex<HashSet<String>>>) {
        let mut bytes = [0; 16];
        while let Ok(count @ 1..) = socket.read(&mut bytes).await {
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            threads.lock().unwrap().insert(thread);
            socket.write_all(&bytes[..count]).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_socket_goes_along_with_its_connection_and_loses_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (lane, threads) = (Lane::default(), Arc::<Mutex<HashSet<_>>>::default());
        let place = Place::new(lane.clone(), Arc::default());
        let socket = Socket::new(stream, place.clone());
        let served = Box::pin(echo(socket, threads.clone()));
        drop(stdx::task::spawn("test", lanes::serve(served, place, Arc::new(SystemClock))));
        for turn in 0..200_u8 {
            lane.serve_aside(turn % 20 > 10);
            peer.write_all(&[turn]).await.unwrap();
            let mut answer = [0];
            let read = tokio::time::timeout(Duration::from_secs(10), peer.read_exact(&mut answer));
            read.await.expect("an answer").unwrap();
            assert_eq!(answer[0], turn);
        }
        let threads = threads.lock().unwrap();
        assert!(threads.contains("aside") && threads.len() > 1, "both lanes: {threads:?}");
    }
}
