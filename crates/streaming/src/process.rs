//! Exec and attach: a process's streams on the channels of a connection.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::sink::Sink;
use crate::spdy;
use crate::upgrade::{Framing, Upgrade};
use crate::websocket;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5: the byte after it names a channel that is done.
const CLOSE: u8 = 255;
/// How long a client may take to open its SPDY streams: upstream's default.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long output may come after a process has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that wait for the process, and for the client.
const MESSAGES_MAX: usize = 32;
/// Data is read and sent in pieces of this size.
const PIECE_BYTES: usize = 32 << 10;

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Which streams the client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Input.
    pub stdin: bool,
    /// Output.
    pub stdout: bool,
    /// Errors; not together with a terminal.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// A process with its streams; those that were not asked for are absent.
pub struct Process {
    /// Its input.
    pub stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// Its output.
    pub stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Its errors.
    pub stderr: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Told the size of the client's terminal.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// What came of it.
    pub exit: BoxFuture<'static, Outcome>,
}

/// What came of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ended with this code.
    Exited {
        /// The exit code.
        code: i32,
        /// What is told when the code is not 0.
        message: String,
    },
    /// It could not be run or was lost.
    Failed(String),
}

impl Outcome {
    /// What the error channel says: a status from version 4 on, a text before.
    fn told(&self, version: u8) -> Option<String> {
        if version >= 4 {
            return Some(self.status().to_string());
        }
        match self {
            Self::Exited { code: 0, .. } => None,
            Self::Exited { message, .. } | Self::Failed(message) => Some(message.clone()),
        }
    }

    fn status(&self) -> Value {
        match self {
            Self::Exited { code: 0, .. } => json!({ "metadata": {}, "status": "Success" }),
            Self::Exited { code, message } => json!({
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": "NonZeroExitCode",
                "details": {
                    "causes": [{ "reason": "ExitCode", "message": code.to_string() }],
                },
            }),
            Self::Failed(message) => json!({
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": "InternalError",
                "details": { "causes": [{ "message": message }] },
                "code": 500,
            }),
        }
    }
}

/// Starts a process; the error is told to the client.
pub type Start = BoxFuture<'static, Result<Process, String>>;

/// Carries a process's streams over an upgraded connection, until it ends or the client leaves.
/// `start` is awaited once the client's streams are there.
///
/// # Errors
/// When the client breaks the protocol or the connection breaks.
pub async fn serve_process<S>(
    upgrade: Upgrade,
    io: S,
    wanted: Wanted,
    start: Start,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match upgrade.framing {
        Framing::Spdy => over_spdy(upgrade.version, io, wanted, start).await,
        _ => over_websocket(upgrade, io, wanted, start).await,
    }
}

struct Channels {
    version: u8,
    stdin: Option<mpsc::Receiver<Bytes>>,
    stdout: Option<Sink>,
    stderr: Option<Sink>,
    error: Sink,
    resize: Option<mpsc::Receiver<Bytes>>,
}

async fn over_websocket<S>(upgrade: Upgrade, io: S, wanted: Wanted, start: Start) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let framing = upgrade.framing;
    let (mut sink, mut messages) = websocket::accept(io).await.split();
    let (out, mut outgoing) = mpsc::channel::<(u8, Bytes)>(MESSAGES_MAX);
    let (stdin, stdin_data) = mpsc::channel(MESSAGES_MAX);
    let (resize, resize_data) = mpsc::channel(MESSAGES_MAX);
    let (mut stdin, mut resize) = (wanted.stdin.then_some(stdin), wanted.tty.then_some(resize));
    let channel = |number: u8| Sink::Channel(number, out.clone());
    let channels = Channels {
        version: upgrade.version,
        stdin: wanted.stdin.then_some(stdin_data),
        stdout: wanted.stdout.then(|| channel(STDOUT)),
        stderr: (wanted.stderr && !wanted.tty).then(|| channel(STDERR)),
        error: channel(ERROR),
        resize: wanted.tty.then_some(resize_data),
    };
    // An empty message on the first channel says that the connection stands.
    let first = if wanted.stdout {
        STDOUT
    } else if wanted.stderr {
        STDERR
    } else {
        ERROR
    };
    out.try_send((first, Bytes::new())).ok();
    drop(out);
    let reading = async {
        while let Some(message) = messages.next().await {
            let message = message.map_err(io::Error::other)?;
            if message.is_close() {
                break;
            }
            match websocket::parse(framing, message)? {
                Some((STDIN, data)) if !data.is_empty() => {
                    if let Some(stdin) = &stdin {
                        stdin.send(data).await.ok();
                    }
                }
                Some((RESIZE, data)) => {
                    if let Some(resize) = &resize {
                        resize.send(data).await.ok();
                    }
                }
                Some((CLOSE, data)) if upgrade.version >= 5 && data.first() == Some(&STDIN) => {
                    stdin = None;
                }
                _ => {}
            }
        }
        // The client left.
        (stdin, resize) = (None, None);
        io::Result::Ok(())
    };
    let writing = async {
        while let Some((channel, data)) = outgoing.recv().await {
            let message = websocket::message(framing, channel, &data);
            sink.send(message).await.map_err(io::Error::other)?;
        }
        sink.send(websocket::close()).await.map_err(io::Error::other)
    };
    let work = async { tokio::join!(drive(channels, start), writing).1 };
    tokio::select! {
        result = reading => result,
        result = work => result,
    }
}

async fn over_spdy<S>(version: u8, io: S, wanted: Wanted, start: Start) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut streams = spdy::serve(io);
    let stderr = wanted.stderr && !wanted.tty;
    let resize = wanted.tty && version >= 3;
    let expected =
        1 + [wanted.stdin, wanted.stdout, stderr, resize].iter().filter(|wanted| **wanted).count();
    let mut channels = Opened::default();
    let opening = async {
        for _ in 0..expected {
            let Some(stream) = streams.recv().await else { return false };
            channels.add(stream);
        }
        true
    };
    match tokio::time::timeout(STREAMS_TIMEOUT, opening).await {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "streams were not opened")),
    }
    let Some(channels) = channels.complete(version) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "there is no error stream"));
    };
    tokio::select! {
        () = drive(channels, start) => {}
        // Further streams mean nothing; the end of the connection does.
        () = async { while streams.recv().await.is_some() {} } => {}
    }
    Ok(())
}

#[derive(Default)]
struct Opened {
    stdin: Option<mpsc::Receiver<Bytes>>,
    stdout: Option<Sink>,
    stderr: Option<Sink>,
    error: Option<Sink>,
    resize: Option<mpsc::Receiver<Bytes>>,
}

impl Opened {
    fn add(&mut self, stream: spdy::Stream) {
        let kind = stream.header("streamtype").to_owned();
        match kind.as_str() {
            "stdin" => self.stdin = Some(stream.input),
            "resize" => self.resize = Some(stream.input),
            "stdout" => self.stdout = Some(Sink::Stream(stream.output)),
            "stderr" => self.stderr = Some(Sink::Stream(stream.output)),
            "error" => self.error = Some(Sink::Stream(stream.output)),
            other => tracing::debug!(kind = other, "stream of unknown type"),
        }
    }

    fn complete(self, version: u8) -> Option<Channels> {
        Some(Channels {
            version,
            stdin: self.stdin,
            stdout: self.stdout,
            stderr: self.stderr,
            error: self.error?,
            resize: self.resize,
        })
    }
}

/// Starts the process and carries its streams until it has ended and said everything.
async fn drive(channels: Channels, start: Start) {
    let Channels { version, stdin, stdout, stderr, error, resize } = channels;
    let outcome = match start.await {
        Ok(process) => {
            let output = async {
                tokio::join!(pump(process.stdout, stdout), pump(process.stderr, stderr));
            };
            let input = async {
                tokio::join!(feed(stdin, process.stdin), sizes(resize, process.resize));
                std::future::pending::<()>().await;
            };
            let ended = async {
                tokio::pin!(output);
                let mut exit = process.exit;
                tokio::select! {
                    outcome = &mut exit => {
                        // What it left running may hold its output open.
                        tokio::time::timeout(DRAIN_TIMEOUT, output).await.ok();
                        outcome
                    }
                    () = &mut output => exit.await,
                }
            };
            tokio::select! {
                outcome = ended => outcome,
                () = input => unreachable!("input waits for ever"),
            }
        }
        Err(message) => Outcome::Failed(message),
    };
    if let Some(told) = outcome.told(version) {
        // A client that left needs no status.
        error.send(Bytes::from(told)).await.ok();
    }
    error.finish().await;
}

async fn pump(from: Option<Pin<Box<dyn AsyncRead + Send>>>, to: Option<Sink>) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if to.send(Bytes::copy_from_slice(&buffer[..read])).await.is_err() {
            return;
        }
    }
    to.finish().await;
}

async fn feed(from: Option<mpsc::Receiver<Bytes>>, to: Option<Pin<Box<dyn AsyncWrite + Send>>>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(data) = from.recv().await {
        if to.write_all(&data).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    // The process may be gone already.
    to.shutdown().await.ok();
}

async fn sizes(from: Option<mpsc::Receiver<Bytes>>, to: Option<mpsc::Sender<TerminalSize>>) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    while let Some(data) = from.recv().await {
        if let Some(size) = size(&data)
            && to.send(size).await.is_err()
        {
            return;
        }
    }
}

fn size(data: &[u8]) -> Option<TerminalSize> {
    let value: Value = serde_json::from_slice(data).ok()?;
    let number = |name: &str| u16::try_from(value.get(name)?.as_u64()?).ok();
    Some(TerminalSize { width: number("Width")?, height: number("Height")? })
}

#[cfg(test)]
mod tests;
