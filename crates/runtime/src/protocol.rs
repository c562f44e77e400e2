//! What the agent and a shim say to each other.
//!
//! A message is its length in four bytes, little end first, and JSON. File descriptors travel
//! with the first bytes of a message. A connection carries one request and its answer; `Exec`
//! and `Subscribe` are answered by further messages as things happen.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::ProcessState;

/// Room for the longest command line that the kernel takes, twice.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Standard input, output and error.
const FDS_MAX: usize = 3;

/// What the agent asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Request {
    /// Start the container whose `spec.json` is below the sandbox's directory.
    Start { container: String },
    /// Run a command in a container. Carries the command's standard streams, unless it gets a
    /// terminal, whose other end the answer carries. Answered again when it ended.
    Exec { container: String, args: Vec<String>, tty: bool, kill_on_disconnect: bool },
    /// Send a signal to the first process, or to every process.
    Kill { container: String, signal: i32, all: bool },
    /// Copy output to the descriptors it carries: as many as `streams` has. The answer carries
    /// the container's input, when asked for.
    Attach { container: String, streams: Vec<Stream>, stdin: bool },
    /// Connect to a port of `localhost`; the answer carries the connection.
    Connect { port: u16 },
    /// Open the log file anew.
    ReopenLog { container: String },
    /// Answer the state of every container, now and whenever one changes.
    Subscribe,
    /// Forget a container that has ended.
    Forget { container: String },
    /// Kill everything and end.
    Shutdown,
}

/// An output of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Stream {
    /// Standard output, and everything that a terminal shows.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What the shim answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Response {
    /// It is done.
    Done,
    /// The command of an `Exec` ended.
    Exited { code: i32 },
    /// The state of the containers concerned.
    State { processes: Vec<ProcessState> },
    /// The state of every container, and the shim's own process.
    All { shim: i32, processes: Vec<ProcessState> },
    /// It could not be done.
    Failed { not_found: bool, message: String },
}

/// Sends one message.
pub(crate) fn send<T: Serialize>(
    stream: &UnixStream,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = frame(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors"));
    }
    let sent = loop {
        match sendmsg(stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut stream = stream;
    stream.write_all(&bytes[sent..])
}

/// Receives one message; `None` when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(
    stream: &UnixStream,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut header = [0u8; 4];
    let mut fds = Vec::new();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut buffers = [IoSliceMut::new(&mut header)];
        match recvmsg(stream.as_fd(), &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?.bytes,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received.take(FDS_MAX));
        }
    }
    if got == 0 {
        return Ok(None);
    }
    let mut stream = stream;
    stream.read_exact(&mut header[got..])?;
    let mut body = vec![0u8; body_length(header)?];
    stream.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, fds)))
}

/// A message as bytes.
pub(crate) fn frame<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0u8; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message is too long"));
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// How long the body behind a header is.
pub(crate) fn body_length(header: [u8; 4]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_le_bytes(header)).map_err(io::Error::other)?;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message is too long"));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_arrive_whole_and_with_their_descriptors() {
        let (a, b) = UnixStream::pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let args = vec!["x".repeat(300_000)];
        let exec = Request::Exec {
            container: "c".into(),
            args: args.clone(),
            tty: false,
            kill_on_disconnect: true,
        };
        let sender = std::thread::spawn(move || send(&a, &exec, &[writer.as_fd()]).unwrap());
        let (request, fds) = receive::<Request>(&b).unwrap().unwrap();
        sender.join().unwrap();
        let Request::Exec { args: got, .. } = request else { panic!("{request:?}") };
        assert_eq!(got, args);
        rustix::io::write(&fds[0], b"hi").unwrap();
        let mut buffer = [0u8; 8];
        assert_eq!(rustix::io::read(&reader, &mut buffer).unwrap(), 2);
        assert!(receive::<Request>(&b).unwrap().is_none(), "the sender is gone");
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused() {
        assert!(body_length(u32::MAX.to_le_bytes()).is_err());
    }
}
