//! A SPDY connection, the server's end: streams that the client opens.
//!
//! One task reads frames and hands data to streams; one writes what streams send. A stream whose
//! data is not read holds the connection back, as the protocol's clients expect.

use std::collections::HashMap;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::spdy_frame::{self, Frame};
use crate::spdy_headers::{HeaderReader, HeaderWriter, Headers};

/// Streams of one connection. A client opens five for a command and two per forwarded connection.
const STREAMS_MAX: usize = 1024;
/// Frames that wait for the reader of a stream, and for the connection.
const FRAMES_MAX: usize = 32;
/// Data is sent in pieces of at most this size.
const PIECE_BYTES_MAX: usize = 32 << 10;
/// Status of `RST_STREAM`: the stream is refused.
const REFUSED_STREAM: u32 = 3;

/// A stream that the client opened.
pub(crate) struct Stream {
    pub(crate) headers: Headers,
    /// What the client sends; ends when it is done.
    pub(crate) input: mpsc::Receiver<Bytes>,
    pub(crate) output: Output,
}

impl Stream {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// The sending side of a stream. Clones send on the same stream.
#[derive(Clone)]
pub(crate) struct Output {
    stream: u32,
    frames: mpsc::Sender<Outgoing>,
}

enum Outgoing {
    Frame(Frame),
    Reply(u32),
}

impl Output {
    /// Sends data; an error means that the connection is gone.
    pub(crate) async fn send(&self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE_BYTES_MAX));
            self.frame(Frame::Data { stream: self.stream, fin: false, data: piece }).await?;
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish(&self) -> io::Result<()> {
        self.frame(Frame::Data { stream: self.stream, fin: true, data: Bytes::new() }).await
    }

    async fn frame(&self, frame: Frame) -> io::Result<()> {
        let sent = self.frames.send(Outgoing::Frame(frame)).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Serves a connection. Streams arrive in the order in which the client opens them; the receiver
/// ends with the connection. The connection ends when the client closes it, or when the receiver
/// and all outputs are dropped.
pub(crate) fn serve<S>(io: S) -> mpsc::Receiver<Stream>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (opened, streams) = mpsc::channel(FRAMES_MAX);
    let (frames, outgoing) = mpsc::channel(FRAMES_MAX);
    let (reader, writer) = tokio::io::split(io);
    // Both end with the connection: the writer when the reader and every stream are gone.
    drop(stdx::task::spawn("spdy-writer", async move {
        if let Err(error) = write(writer, outgoing).await {
            tracing::debug!(%error, "SPDY connection ended");
        }
    }));
    drop(stdx::task::spawn("spdy-reader", async move {
        let gone = opened.clone();
        let mut reading = Reading { frames, opened, inputs: HashMap::new() };
        tokio::select! {
            result = reading.run(reader) => if let Err(error) = result {
                tracing::debug!(%error, "SPDY connection ended");
            },
            () = gone.closed() => {}
        }
    }));
    streams
}

struct Reading {
    frames: mpsc::Sender<Outgoing>,
    opened: mpsc::Sender<Stream>,
    inputs: HashMap<u32, mpsc::Sender<Bytes>>,
}

impl Reading {
    async fn run(&mut self, mut io: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(16 << 10);
        let mut headers = HeaderReader::new();
        loop {
            while let Some(frame) = spdy_frame::decode(&mut buffer).map_err(io::Error::other)? {
                if !self.take(frame, &mut headers).await? {
                    return Ok(());
                }
            }
            if io.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Says whether the connection goes on.
    async fn take(&mut self, frame: Frame, headers: &mut HeaderReader) -> io::Result<bool> {
        match frame {
            Frame::SynStream { stream, fin, headers: block } => {
                // Every block must be read, or the next one could not be.
                let headers = headers.read(&block).map_err(io::Error::other)?;
                return self.open(stream, fin, headers).await;
            }
            Frame::SynReply { headers: block, .. } | Frame::Headers { headers: block, .. } => {
                headers.read(&block).map_err(io::Error::other)?;
            }
            Frame::Data { stream, fin, data } => {
                if let Some(input) = self.inputs.get(&stream)
                    && !data.is_empty()
                {
                    // Nobody reads it any more: it is dropped.
                    input.send(data).await.ok();
                }
                if fin {
                    self.inputs.remove(&stream);
                }
            }
            Frame::RstStream { stream, .. } => {
                self.inputs.remove(&stream);
            }
            Frame::Ping { id } => self.send(Outgoing::Frame(Frame::Ping { id })).await?,
            Frame::GoAway { .. } | Frame::Ignored => {}
        }
        Ok(true)
    }

    async fn open(&mut self, stream: u32, fin: bool, headers: Headers) -> io::Result<bool> {
        self.inputs.retain(|_, input| !input.is_closed());
        if self.inputs.len() >= STREAMS_MAX || self.inputs.contains_key(&stream) {
            let refused = Frame::RstStream { stream, status: REFUSED_STREAM };
            self.send(Outgoing::Frame(refused)).await?;
            return Ok(true);
        }
        let (input, receiver) = mpsc::channel(FRAMES_MAX);
        if !fin {
            self.inputs.insert(stream, input);
        }
        self.send(Outgoing::Reply(stream)).await?;
        let output = Output { stream, frames: self.frames.clone() };
        let opened = Stream { headers, input: receiver, output };
        Ok(self.opened.send(opened).await.is_ok())
    }

    async fn send(&self, outgoing: Outgoing) -> io::Result<()> {
        self.frames.send(outgoing).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

async fn write(
    mut io: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    let mut headers = HeaderWriter::new().map_err(io::Error::other)?;
    let mut buffer = BytesMut::new();
    while let Some(next) = outgoing.recv().await {
        let frame = match next {
            Outgoing::Frame(frame) => frame,
            Outgoing::Reply(stream) => {
                let headers = headers.write(&Headers::new()).map_err(io::Error::other)?;
                Frame::SynReply { stream, fin: false, headers }
            }
        };
        spdy_frame::encode(&frame, &mut buffer);
        io.write_all_buf(&mut buffer).await?;
        io.flush().await?;
    }
    io.shutdown().await
}
