//! One output of a container on its way to the log and to attached clients.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};

use super::log::{Lines, Log};
use crate::protocol::Stream;

/// A pipe holds less; what is still in it when the container has ended is read in so many steps.
const DRAIN_READS_MAX: usize = 64;

/// Standard output or error of a container.
pub(super) struct Output {
    pub(super) stream: Stream,
    source: Option<OwnedFd>,
    lines: Lines,
    clients: Vec<Client>,
}

/// Somebody who watches. What did not fit yet waits here, and the container waits with it.
struct Client {
    fd: OwnedFd,
    pending: Vec<u8>,
}

impl Output {
    pub(super) fn new(stream: Stream, source: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&source)?;
        Ok(Self { stream, source: Some(source), lines: Lines::new(stream), clients: Vec::new() })
    }

    /// Copies everything from now on to `fd` too.
    pub(super) fn add_client(&mut self, fd: OwnedFd) -> io::Result<()> {
        set_nonblocking(&fd)?;
        self.clients.push(Client { fd, pending: Vec::new() });
        Ok(())
    }

    /// What to wait for before [`Output::pump`] is worth while.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        let waiting = self.clients.iter().any(|client| !client.pending.is_empty());
        if waiting { None } else { self.source.as_ref().map(AsFd::as_fd) }
    }

    /// The clients, and whether something waits for them.
    pub(super) fn clients(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.clients.iter().map(|client| (client.fd.as_fd(), !client.pending.is_empty()))
    }

    /// Reads once and passes on what was read.
    pub(super) fn pump(&mut self, buffer: &mut [u8], now: Timestamp, log: &mut Log) -> bool {
        let Some(source) = &self.source else { return false };
        match read(source, &mut *buffer) {
            Ok(count @ 1..) => {
                self.lines.push(&buffer[..count], now, log);
                log.flush();
                for client in &mut self.clients {
                    client.pending.extend_from_slice(&buffer[..count]);
                }
                self.flush_clients();
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            // A terminal that nobody has open any more answers with an error.
            Ok(0) | Err(_) => {
                self.source = None;
                self.lines.finish(now, log);
                log.flush();
                self.flush_clients();
                false
            }
        }
    }

    /// Reads what is left after the container has ended.
    pub(super) fn drain(&mut self, buffer: &mut [u8], now: Timestamp, log: &mut Log) {
        for _ in 0..DRAIN_READS_MAX {
            if !self.pump(buffer, now, log) {
                break;
            }
        }
    }

    /// Passes on what waits. Clients that left, or have everything of an ended stream, go.
    pub(super) fn flush_clients(&mut self) {
        let ended = self.source.is_none();
        self.clients.retain_mut(|client| {
            let alive = client.flush();
            alive && !(ended && client.pending.is_empty())
        });
    }

    /// Forgets the client that hung up.
    pub(super) fn remove_client(&mut self, index: usize) {
        if index < self.clients.len() {
            drop(self.clients.remove(index));
        }
    }
}

impl Client {
    /// Whether the client is still there.
    fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            match write(&self.fd, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = fcntl_getfl(fd)?;
    Ok(fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}
