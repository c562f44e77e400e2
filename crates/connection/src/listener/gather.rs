//! Writes of one turn of an HTTP/2 connection, sent together.
//!
//! Our HTTP implementation flushes after every frame of data. A connection with many streams would
//! so pay a record and a system call for each of them, although many are ready at once when a
//! crowd of watches sees the same change. Here a flush only marks what is to be sent; it is sent
//! when the connection's turn ends.
//!
//! The turn itself begins late: streams wake their connection one by one, and the scheduler likes
//! to run it at once. It goes to the back of the queue first, behind the streams that are ready.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may wait for the end of the turn.
const MOST: usize = 64 << 10;
/// So many bytes fill a record of their own; a copy would only cost.
const LARGE: usize = 16 << 10;

/// Makes a stream that gathers, and the other hold on it.
pub(super) fn gather<S>(stream: S) -> (Gather<S>, Turn<S>) {
    let state = Arc::new(Mutex::new(State { stream, waiting: Vec::new(), sent: 0 }));
    (Gather(state.clone()), Turn(state))
}

/// A stream that sends when the turn ends, or when enough has come together.
pub(super) struct Gather<S>(Arc<Mutex<State<S>>>);

/// Ends turns.
pub(super) struct Turn<S>(Arc<Mutex<State<S>>>);

struct State<S> {
    stream: S,
    waiting: Vec<u8>,
    /// How many of the waiting bytes are sent already.
    sent: usize,
}

impl<S> Turn<S> {
    /// Runs a connection turn by turn.
    pub(super) fn run<F: Future>(self, connection: F) -> Turns<S, F> {
        Turns { connection: Box::pin(connection), turn: self, is_due: false }
    }
}

/// A connection whose turns end with sending. Safe to drop.
pub(super) struct Turns<S, F> {
    connection: Pin<Box<F>>,
    turn: Turn<S>,
    /// Whether it has been to the back of the queue.
    is_due: bool,
}

impl<S: AsyncWrite + Unpin, F: Future> Future for Turns<S, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<F::Output> {
        self.is_due = !self.is_due;
        if self.is_due {
            ctx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = self.connection.as_mut().poll(ctx);
        // Errors come up at the next write; what cannot be sent now wakes the task again.
        drop(lock(&self.turn.0).flush(ctx));
        polled
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    /// Sends all that waits.
    fn drain(&mut self, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            let rest = &self.waiting[self.sent..];
            match ready!(Pin::new(&mut self.stream).poll_write(ctx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        // Idle connections are many, and keep nothing.
        (self.waiting, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(ctx))?;
        Pin::new(&mut self.stream).poll_flush(ctx)
    }

    /// Makes room for so many bytes, if they may wait at all.
    fn make_room(&mut self, count: usize, ctx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.waiting.len() + count > MOST {
            ready!(self.drain(ctx))?;
        }
        Poll::Ready(Ok(count < LARGE || !self.waiting.is_empty()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        if !ready!(state.make_room(bytes.len(), ctx))? {
            return Pin::new(&mut state.stream).poll_write(ctx, bytes);
        }
        state.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = slices.iter().map(|slice| slice.len()).sum();
        let mut state = lock(&self.0);
        if !ready!(state.make_room(count, ctx))? {
            return Pin::new(&mut state.stream).poll_write_vectored(ctx, slices);
        }
        slices.iter().for_each(|slice| state.waiting.extend_from_slice(slice));
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The end of the turn does it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        ready!(state.drain(ctx))?;
        Pin::new(&mut state.stream).poll_shutdown(ctx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(ctx, buf)
    }
}

/// Only the connection's task takes it, so nobody ever waits.
fn lock<S>(state: &Mutex<State<S>>) -> MutexGuard<'_, State<S>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Counts the writes that reach it.
    struct Counting<S> {
        inner: S,
        writes: Arc<Mutex<Vec<usize>>>,
    }

    impl<S: AsyncWrite + Unpin> AsyncWrite for Counting<S> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            ctx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let written = ready!(Pin::new(&mut self.inner).poll_write(ctx, bytes))?;
            self.writes.lock().unwrap().push(written);
            Poll::Ready(Ok(written))
        }

        fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_flush(ctx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(ctx)
        }
    }

    /// Runs `work` on a stream, with a peer that reads all of it.
    async fn sent<F: Future<Output = ()>>(
        room: usize,
        work: impl FnOnce(Gather<Counting<tokio::io::DuplexStream>>) -> F,
    ) -> (Vec<u8>, Vec<usize>) {
        let (near, mut far) = tokio::io::duplex(room);
        let writes = Arc::new(Mutex::new(Vec::new()));
        let (stream, turn) = gather(Counting { inner: near, writes: writes.clone() });
        let mut read = Vec::new();
        let reading = async { far.read_to_end(&mut read).await.map(drop) };
        let running = turn.run(work(stream));
        let ((), result) = tokio::join!(running, reading);
        result.unwrap();
        let writes = writes.lock().unwrap().clone();
        (read, writes)
    }

    #[tokio::test]
    async fn what_is_flushed_in_one_turn_is_one_write() {
        let (read, writes) = sent(1 << 20, async |mut stream| {
            for part in [b"ab", b"cd", b"ef"] {
                stream.write_all(part).await.unwrap();
                stream.flush().await.unwrap();
            }
            tokio::task::yield_now().await;
            stream.write_all(b"gh").await.unwrap();
            stream.shutdown().await.unwrap();
        })
        .await;
        assert_eq!((read.as_slice(), writes), (&b"abcdefgh"[..], vec![6, 2]));
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_keeps_its_order() {
        let mut expected = Vec::new();
        let parts: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; usize::from(n) * 997 % 9000]).collect();
        parts.iter().for_each(|part| expected.extend_from_slice(part));
        let large = vec![0xff; 3 * MOST];
        expected.extend_from_slice(&large);
        let (read, writes) = sent(1000, async |mut stream| {
            for part in &parts {
                stream.write_all(part).await.unwrap();
                assert!(lock(&stream.0).waiting.len() <= MOST);
            }
            stream.write_all(&large).await.unwrap();
            stream.shutdown().await.unwrap();
        })
        .await;
        assert!(read == expected, "something else arrived");
        assert!(writes.iter().all(|count| *count <= 1000));
    }

    #[tokio::test]
    async fn what_cannot_be_sent_at_once_is_sent_when_there_is_room() {
        let (read, _) = sent(10, async |mut stream| {
            stream.write_all(&[7; 100]).await.unwrap();
            stream.flush().await.unwrap();
            // Nobody writes or flushes again; the rest must go all the same.
            while !lock(&stream.0).waiting.is_empty() {
                tokio::task::yield_now().await;
            }
            stream.shutdown().await.unwrap();
        })
        .await;
        assert_eq!(read, [7; 100]);
    }
}
