//! What the agent asks of a shim.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::process::Process;
use super::step::{Step, StepError};
use super::{Exec, Shim, launch};
use crate::protocol::{self, Request, Response, Stream};

/// An agent that stopped in the middle of a message must not stop the pod.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Everybody who may ask at once; more wait in the socket's queue.
const EXECS_MAX: usize = 1024;

/// Why a request was refused.
enum Refusal {
    NotFound(String),
    Failed(StepError),
}

impl From<StepError> for Refusal {
    fn from(error: StepError) -> Self {
        Self::Failed(error)
    }
}

type Answer = Result<Response, Refusal>;

impl Shim {
    pub(super) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            // A broken connection concerns the one who broke it.
            self.serve(stream).ok();
        }
    }

    fn serve(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(AGENT_TIMEOUT))?;
        stream.set_write_timeout(Some(AGENT_TIMEOUT))?;
        let Some((request, fds)) = protocol::receive::<Request>(&stream)? else {
            return Ok(());
        };
        let (answer, fd) = match request {
            Request::Start { container } => (self.start(&container), None),
            Request::Exec { container, args, tty, kill_on_disconnect } => {
                return self.exec(stream, &container, &args, tty, kill_on_disconnect, fds);
            }
            Request::Kill { container, signal, all } => (self.kill(&container, signal, all), None),
            Request::Attach { container, streams, stdin } => {
                with_fd(self.attach(&container, &streams, stdin, fds))
            }
            Request::Connect { port } => with_fd(open_port(port).map_err(Refusal::from)),
            Request::ReopenLog { container } => (self.reopen(&container), None),
            Request::Subscribe => return self.subscribe(stream),
            Request::Forget { container } => {
                self.processes.retain(|p| p.is_running() || p.spec.id != container);
                (Ok(Response::Done), None)
            }
            Request::Shutdown => {
                self.processes.iter().for_each(Process::kill_all);
                self.ending = Some(stream);
                return Ok(());
            }
        };
        let fds: Vec<BorrowedFd<'_>> = fd.as_ref().map(AsFd::as_fd).into_iter().collect();
        protocol::send(&stream, &response(answer), &fds)
    }

    fn start(&mut self, container: &str) -> Answer {
        if self.ending.is_some() {
            return Err(StepError::plain("the sandbox is being stopped").into());
        }
        if self.processes.iter().any(|process| process.spec.id == container) {
            return Err(StepError::plain("the container was started before").into());
        }
        let directory = self.directory.join("containers").join(container);
        let process = Process::start(&self.namespaces, &directory)?;
        let state = Response::State { processes: vec![process.state.clone()] };
        self.processes.push(process);
        self.publish(&state);
        Ok(state)
    }

    fn exec(
        &mut self,
        stream: UnixStream,
        container: &str,
        args: &[String],
        tty: bool,
        kill_on_disconnect: bool,
        fds: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let launched = self.launch_exec(container, args, tty, fds);
        let launched = match launched {
            Ok(launched) => launched,
            Err(refusal) => return protocol::send(&stream, &response(Err(refusal)), &[]),
        };
        let fds: Vec<BorrowedFd<'_>> =
            launched.terminal.as_ref().map(AsFd::as_fd).into_iter().collect();
        let sent = protocol::send(&stream, &Response::Done, &fds);
        self.execs.push(Exec { pid: launched.pid, stream, kill_on_disconnect });
        sent
    }

    fn launch_exec(
        &self,
        container: &str,
        args: &[String],
        tty: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<launch::Launched, Refusal> {
        let process = self.running(container)?;
        if self.execs.len() >= EXECS_MAX {
            return Err(StepError::plain("too many commands are running").into());
        }
        if args.is_empty() {
            return Err(StepError::plain("the command is empty").into());
        }
        let streams = match (tty, <[OwnedFd; 3]>::try_from(fds)) {
            (true, _) => None,
            (false, Ok(streams)) => Some(streams),
            (false, Err(_)) => return Err(StepError::plain("three streams are needed").into()),
        };
        let mut spec = process.spec.clone();
        if tty && !spec.env.iter().any(|entry| entry.starts_with("TERM=")) {
            spec.env.push("TERM=xterm".to_owned());
        }
        Ok(launch::join(&self.namespaces, &spec, process.pid(), args, streams)?)
    }

    fn kill(&self, container: &str, signal: i32, all: bool) -> Answer {
        let process = self.running(container)?;
        if all {
            process.kill_all();
        } else {
            process.signal(signal).step(|| format!("sending signal {signal}"))?;
        }
        Ok(Response::Done)
    }

    fn attach(
        &mut self,
        container: &str,
        streams: &[Stream],
        stdin: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<Option<OwnedFd>, Refusal> {
        self.running(container)?;
        let found = self.processes.iter_mut().find(|process| process.spec.id == container);
        let Some(process) = found else { return Ok(None) };
        for (stream, fd) in streams.iter().zip(fds) {
            if let Some(output) = process.outputs.iter_mut().find(|o| o.stream == *stream) {
                output.add_client(fd).step(|| "attaching".to_owned())?;
            }
        }
        if !stdin {
            return Ok(None);
        }
        Ok(process.attach_input().step(|| "attaching to the input".to_owned())?)
    }

    fn reopen(&mut self, container: &str) -> Answer {
        let process = self
            .processes
            .iter_mut()
            .find(|process| process.spec.id == container)
            .ok_or_else(|| not_running(container))?;
        process.log.reopen().step(|| "reopening the log".to_owned())?;
        Ok(Response::Done)
    }

    fn subscribe(&mut self, stream: UnixStream) -> io::Result<()> {
        let processes = self.processes.iter().map(|process| process.state.clone()).collect();
        let shim = nix::unistd::getpid().as_raw();
        protocol::send(&stream, &Response::All { shim, processes }, &[])?;
        // From now on a subscriber that does not read must not hold up the containers.
        stream.set_nonblocking(true)?;
        self.subscribers.push(stream);
        Ok(())
    }

    fn running(&self, container: &str) -> Result<&Process, Refusal> {
        self.processes
            .iter()
            .find(|process| process.spec.id == container && process.is_running())
            .ok_or_else(|| not_running(container))
    }
}

fn not_running(container: &str) -> Refusal {
    Refusal::NotFound(format!("container {container} is not running"))
}

fn with_fd(result: Result<Option<OwnedFd>, Refusal>) -> (Answer, Option<OwnedFd>) {
    match result {
        Ok(fd) => (Ok(Response::Done), fd),
        Err(refusal) => (Err(refusal), None),
    }
}

fn response(answer: Answer) -> Response {
    match answer {
        Ok(response) => response,
        Err(Refusal::NotFound(message)) => Response::Failed { not_found: true, message },
        Err(Refusal::Failed(error)) => {
            Response::Failed { not_found: false, message: error.to_string() }
        }
    }
}

/// A connection that the agent waits for; a port on which nobody listens refuses at once.
fn open_port(port: u16) -> Result<Option<OwnedFd>, StepError> {
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    // On loopback a refusal comes at once, so the second address is tried without waiting.
    dial(AddressFamily::INET, SocketAddr::new(v4, port))
        .or_else(|error| dial(AddressFamily::INET6, SocketAddr::new(v6, port)).map_err(|_| error))
        .map(Some)
        .step(|| format!("failed to connect to localhost:{port} inside namespace"))
}

fn dial(family: AddressFamily, address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}
