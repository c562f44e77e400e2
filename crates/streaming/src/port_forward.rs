//! Port-forward: connections to a pod's ports, each on two streams or channels.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::sink::Sink;
use crate::spdy::{self, Stream};
use crate::upgrade::{Framing, Upgrade};
use crate::websocket;

/// How long half of a pair waits for the other: upstream's default.
const PAIR_TIMEOUT: Duration = Duration::from_secs(30);
/// Halves that wait.
const HALVES_MAX: usize = 256;
/// Messages that wait in each direction.
const MESSAGES_MAX: usize = 32;
/// Ports of one websocket: their channels are numbered by one byte.
const PORTS_MAX: usize = 64;
const PIECE_BYTES: usize = 32 << 10;

/// A connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connects to a port of the pod; the error is told to the client.
pub type Dial =
    Arc<dyn Fn(u16) -> BoxFuture<'static, Result<Box<dyn Duplex>, String>> + Send + Sync>;

/// Forwards over an upgraded connection until the client leaves. `ports` are those of the request,
/// which only websockets with channels need.
///
/// # Errors
/// When the client breaks the protocol or the connection breaks.
pub async fn serve_ports<S>(upgrade: Upgrade, io: S, ports: &[u16], dial: Dial) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match upgrade.framing {
        Framing::Spdy => over_spdy(io, dial).await,
        Framing::Tunnel => over_spdy(websocket::tunnel(io).await, dial).await,
        Framing::Binary | Framing::Base64 => over_channels(upgrade.framing, io, ports, dial).await,
    }
}

async fn over_spdy<S>(io: S, dial: Dial) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut streams = spdy::serve(io);
    let mut halves: HashMap<String, Stream> = HashMap::new();
    loop {
        let next = if halves.is_empty() {
            streams.recv().await
        } else {
            match tokio::time::timeout(PAIR_TIMEOUT, streams.recv()).await {
                Ok(next) => next,
                Err(_) => {
                    halves.clear();
                    continue;
                }
            }
        };
        let Some(stream) = next else { return Ok(()) };
        let request = stream.header("requestid").to_owned();
        match halves.remove(&request) {
            Some(other) => pair(stream, other, &dial),
            None if halves.len() < HALVES_MAX => {
                halves.insert(request, stream);
            }
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "too many streams")),
        }
    }
}

/// Forwards one connection as a task of its own, which ends with it.
fn pair(one: Stream, two: Stream, dial: &Dial) {
    let (data, error) = if one.header("streamtype") == "data" { (one, two) } else { (two, one) };
    let dial = Arc::clone(dial);
    drop(stdx::task::spawn("port-forward", async move {
        let port = data.header("port").parse().unwrap_or(0);
        let forwarded = match dial(port).await {
            Ok(connection) => {
                let (reader, writer) = tokio::io::split(connection);
                let to = Sink::Stream(data.output.clone());
                let done = copy(reader, writer, data.input, &to).await;
                data.output.finish().await.ok();
                done
            }
            Err(message) => Err(message),
        };
        if let Err(message) = forwarded {
            let message = format!("error forwarding port {port} to pod: {message}");
            error.output.send(Bytes::from(message)).await.ok();
        }
        data.output.finish().await.ok();
        error.output.finish().await.ok();
    }));
}

/// Copies both ways until the pod's side has ended.
async fn copy(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    mut input: mpsc::Receiver<Bytes>,
    to: &Sink,
) -> Result<(), String> {
    let inward = async {
        while let Some(data) = input.recv().await {
            if writer.write_all(&data).await.is_err() {
                return;
            }
        }
        // The pod may have closed already.
        writer.shutdown().await.ok();
    };
    let outward = async {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    if to.send(Bytes::copy_from_slice(&buffer[..read])).await.is_err() {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    let (mut inward, mut outward) = (std::pin::pin!(inward), std::pin::pin!(outward));
    tokio::select! {
        result = &mut outward => result,
        () = &mut inward => outward.await,
    }
}

/// Port n has channel 2n for data and 2n + 1 for errors; each begins with its number.
async fn over_channels<S>(framing: Framing, io: S, ports: &[u16], dial: Dial) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if ports.is_empty() || ports.len() > PORTS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no ports, or too many"));
    }
    let (mut sink, mut messages) = websocket::accept(io).await.split();
    let (out, mut outgoing) = mpsc::channel::<(u8, Bytes)>(MESSAGES_MAX.max(2 * ports.len()));
    let mut inputs = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let channel = u8::try_from(2 * index).unwrap_or(0);
        let number = Bytes::copy_from_slice(&port.to_le_bytes());
        for channel in [channel, channel + 1] {
            // The queue has room for these.
            out.try_send((channel, number.clone())).ok();
        }
        let (input, receiver) = mpsc::channel(MESSAGES_MAX);
        inputs.push(input);
        let (dial, out, port) = (Arc::clone(&dial), out.clone(), *port);
        // It ends with the connection to the pod, or when the websocket has ended.
        drop(stdx::task::spawn("port-forward", async move {
            let to = Sink::Channel(channel, out.clone());
            let forwarded = match dial(port).await {
                Ok(connection) => {
                    let (reader, writer) = tokio::io::split(connection);
                    copy(reader, writer, receiver, &to).await
                }
                Err(message) => Err(message),
            };
            if let Err(message) = forwarded {
                let message = format!("error forwarding port {port} to pod: {message}");
                out.send((channel + 1, Bytes::from(message))).await.ok();
            }
        }));
    }
    drop(out);
    let reading = async {
        while let Some(message) = messages.next().await {
            let message = message.map_err(io::Error::other)?;
            if message.is_close() {
                break;
            }
            if let Some((channel, data)) = websocket::parse(framing, message)?
                && channel % 2 == 0
                && let Some(input) = inputs.get(usize::from(channel / 2))
            {
                input.send(data).await.ok();
            }
        }
        io::Result::Ok(())
    };
    let writing = async {
        while let Some((channel, data)) = outgoing.recv().await {
            let message = websocket::message(framing, channel, &data);
            sink.send(message).await.map_err(io::Error::other)?;
        }
        sink.send(websocket::close()).await.map_err(io::Error::other)
    };
    tokio::select! {
        result = reading => result,
        result = writing => result,
    }
}

#[cfg(test)]
mod tests;
