//! Bodies: what a request brings, and what an answer carries.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clock::SharedClock;
use futures::FutureExt;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use meta::{Reason, Status, StatusDetails};

/// Upstream's limit of a request body.
pub const REQUEST_BYTES: usize = 3 * 1024 * 1024;
/// Small chunks are joined up to this size: a TLS record holds 16 KiB, and a frame has a price.
const JOIN_BYTES: usize = 64 << 10;

/// An error while a body is streamed.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub enum Body {
    /// Everything at once.
    Full(Option<Bytes>),
    /// Shared pieces of known total size, joined while they are sent.
    Chunks {
        /// What is left.
        chunks: VecDeque<Bytes>,
        /// Bytes in it.
        left: u64,
    },
    /// As it comes.
    Stream(BoxStream<'static, Result<Bytes, BodyError>>),
    /// The answer of another server.
    Incoming(Incoming),
    /// A body that keeps something for as long as it lasts.
    Held {
        /// What is sent.
        body: Box<Body>,
        /// What is kept.
        held: Box<dyn Send + Sync>,
    },
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::Full(None)
    }

    /// Shared pieces.
    pub fn chunks(chunks: VecDeque<Bytes>) -> Self {
        let left = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self::Chunks { chunks, left }
    }

    /// Everything in one piece.
    ///
    /// # Errors
    /// When a streamed body breaks off.
    pub async fn collect(self) -> Result<Bytes, BodyError> {
        Ok(BodyExt::collect(self).await?.to_bytes())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Chunks { chunks, left } => Poll::Ready(next_chunk(chunks).map(|bytes| {
                *left -= bytes.len() as u64;
                Ok(Frame::data(bytes))
            })),
            Self::Stream(stream) => {
                stream.as_mut().poll_next(ctx).map(|next| next.map(|next| next.map(Frame::data)))
            }
            Self::Incoming(incoming) => {
                Pin::new(incoming).poll_frame(ctx).map(|next| next.map(|next| Ok(next?)))
            }
            Self::Held { body, .. } => Pin::new(&mut **body).poll_frame(ctx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Chunks { chunks, .. } => chunks.is_empty(),
            Self::Stream(_) => false,
            Self::Incoming(incoming) => incoming.is_end_stream(),
            Self::Held { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Chunks { left, .. } => SizeHint::with_exact(*left),
            Self::Stream(_) => SizeHint::default(),
            Self::Incoming(incoming) => incoming.size_hint(),
            Self::Held { body, .. } => body.size_hint(),
        }
    }
}

fn next_chunk(chunks: &mut VecDeque<Bytes>) -> Option<Bytes> {
    let first = chunks.pop_front()?;
    if first.len() >= JOIN_BYTES || chunks.is_empty() {
        return Some(first);
    }
    let mut joined = BytesMut::with_capacity(JOIN_BYTES);
    joined.extend_from_slice(&first);
    while let Some(next) = chunks.front() {
        if joined.len() + next.len() > JOIN_BYTES {
            break;
        }
        joined.extend_from_slice(next);
        chunks.pop_front();
    }
    Some(joined.freeze())
}

/// The body of a request: in one piece already, or still on its way.
pub enum RequestBody {
    /// In one piece.
    Whole(Bytes),
    /// On its way.
    Incoming(Incoming),
}

impl RequestBody {
    /// Reads all of it, up to the limit, and not for longer than the patience.
    ///
    /// What is too large is read on for as much again before it is refused: HTTP/1 would break the
    /// connection under a client that is still writing.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn read(self, clock: &SharedClock, patience: Duration) -> Result<Bytes, Status> {
        let mut incoming = match self {
            Self::Whole(bytes) if bytes.len() > REQUEST_BYTES => return Err(too_large()),
            Self::Whole(bytes) => return Ok(bytes),
            Self::Incoming(incoming) => incoming,
        };
        let mut collected = BytesMut::new();
        let mut total = 0;
        // Most bodies have come with their head: then there is nothing to be patient about.
        let mut end = None;
        loop {
            let frame = match incoming.frame().now_or_never() {
                Some(frame) => frame,
                None => tokio::select! {
                    frame = incoming.frame() => frame,
                    () = end.get_or_insert_with(|| clock.sleep(patience)) => return Err(too_slow()),
                },
            };
            let Some(frame) = frame else { break };
            let frame =
                frame.map_err(|error| Status::failure(Reason::BadRequest, error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            total += data.len();
            if total > 2 * REQUEST_BYTES {
                break;
            }
            if total <= REQUEST_BYTES {
                collected.extend_from_slice(&data);
            }
        }
        if total > REQUEST_BYTES { Err(too_large()) } else { Ok(collected.freeze()) }
    }
}

/// 504 as upstream's filter for requests that take too long gives it.
fn too_slow() -> Status {
    let message = "Timeout: request did not complete within the allotted timeout";
    Status::failure(Reason::Timeout, message).with_details(StatusDetails::default())
}

fn too_large() -> Status {
    Status::failure(
        Reason::RequestEntityTooLarge,
        format!("Request entity too large: limit is {REQUEST_BYTES}"),
    )
}
