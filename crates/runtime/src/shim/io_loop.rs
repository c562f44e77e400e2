//! The one place where a shim waits.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::step::{Step, StepError};
use super::{Shim, now};
use crate::protocol::{self, Response};

/// What a descriptor that became ready belongs to.
#[derive(Clone, Copy, Debug)]
enum Token {
    Listener,
    Signals,
    Output { process: usize, output: usize },
    Client { process: usize, output: usize, client: usize },
    Exec(usize),
    Subscriber(usize),
}

impl Shim {
    /// Serves until somebody asks for the end and every container has ended.
    pub(super) fn run(mut self) -> Result<(), StepError> {
        loop {
            let idle = self.processes.iter().all(|process| !process.is_running());
            if let Some(stream) = self.ending.take_if(|_| idle) {
                self.end_init();
                // Whoever asked may have left.
                protocol::send(&stream, &Response::Done, &[]).ok();
                return Ok(());
            }
            // From the last to the first, so that removing one leaves the others' places.
            for (token, flags) in self.wait().step(|| "poll".to_owned())?.into_iter().rev() {
                self.dispatch(token, flags);
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<(Token, PollFlags)>> {
        let mut tokens = vec![Token::Listener, Token::Signals];
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
        ];
        let mut add = |token, fd, flags| {
            tokens.push(token);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        for (process, state) in self.processes.iter().enumerate() {
            for (output, out) in state.outputs.iter().enumerate() {
                if let Some(fd) = out.source() {
                    add(Token::Output { process, output }, fd, PollFlags::IN);
                }
                for (client, (fd, waits)) in out.clients().enumerate() {
                    let flags = if waits { PollFlags::OUT } else { PollFlags::empty() };
                    add(Token::Client { process, output, client }, fd, flags);
                }
            }
        }
        for (index, exec) in self.execs.iter().enumerate() {
            add(Token::Exec(index), exec.stream.as_fd(), PollFlags::RDHUP);
        }
        for (index, subscriber) in self.subscribers.iter().enumerate() {
            add(Token::Subscriber(index), subscriber.as_fd(), PollFlags::RDHUP);
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = tokens.into_iter().zip(fds.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn dispatch(&mut self, token: Token, flags: PollFlags) {
        let gone = flags.intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR);
        match token {
            Token::Listener => self.accept(),
            Token::Signals => self.reap(),
            Token::Output { process, output } => {
                let Some(process) = self.processes.get_mut(process) else { return };
                process.outputs[output].pump(&mut self.buffer, now(), &mut process.log);
            }
            Token::Client { process, output, client } => {
                let Some(process) = self.processes.get_mut(process) else { return };
                if gone {
                    process.outputs[output].remove_client(client);
                } else {
                    process.outputs[output].flush_clients();
                }
            }
            Token::Exec(index) if gone => {
                let exec = self.execs.swap_remove(index);
                if exec.kill_on_disconnect {
                    // It may have ended at this very moment.
                    kill(exec.pid, Signal::SIGKILL).ok();
                }
            }
            Token::Subscriber(index) if gone => drop(self.subscribers.swap_remove(index)),
            Token::Exec(_) | Token::Subscriber(_) => {}
        }
    }

    /// Learns which children ended.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            let (pid, code) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            self.ended(pid, code);
        }
    }

    fn ended(&mut self, pid: Pid, code: i32) {
        if let Some(index) = self.execs.iter().position(|exec| exec.pid == pid) {
            let exec = self.execs.swap_remove(index);
            // The client may have left.
            protocol::send(&exec.stream, &Response::Exited { code }, &[]).ok();
            return;
        }
        let found = self.processes.iter_mut().find(|p| p.is_running() && p.pid() == pid);
        if let Some(process) = found {
            process.finish(code, &mut self.buffer);
            let state = process.state.clone();
            self.publish(&Response::State { processes: vec![state] });
        }
    }

    /// Tells everybody who subscribed; those who cannot keep up connect again.
    pub(super) fn publish(&mut self, event: &Response) {
        self.subscribers
            .retain(|subscriber: &UnixStream| protocol::send(subscriber, event, &[]).is_ok());
    }

    fn end_init(&self) {
        if let Some(init) = self.namespaces.init {
            kill(init, Signal::SIGKILL).ok();
            waitpid(init, None).ok();
        }
    }
}
