//! Commands in containers, attached clients, and forwarded ports.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use cri::{
    Code, ContainerId, ContainerState, CriError, DuplexStream, ExecRequest, ExecSession,
    ExecSyncResponse, InputStream, OutputStream, SandboxId, TerminalSize,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::container::Container;
use crate::container_ops::state_name;
use crate::handle::{Answer, Follow};
use crate::protocol::{Request, Response, Stream};
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;
use crate::tty::Terminal;

/// Upstream's limit on what a probe's or hook's command may write; the rest is read and dropped.
const EXEC_SYNC_BYTES_MAX: u64 = 16 << 20;
/// Sizes of a client's terminal that may wait to be set.
const RESIZES_MAX: usize = 8;
/// How long output may come after a command has ended, from what it left running.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

impl Runtime {
    pub(crate) async fn run_command(
        &self,
        id: &ContainerId,
        cmd: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncResponse, CriError> {
        let request =
            ExecRequest { cmd: cmd.to_vec(), stdout: true, stderr: true, ..ExecRequest::default() };
        // Dropping the session's `exit` closes the connection, and with it ends the command.
        let mut session = self.start_command(id, &request, true).await?;
        let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
        let run = async {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let exit = session.exit;
            let reading = async {
                tokio::join!(collect(stdout, &mut out), collect(stderr, &mut err));
            };
            let exit_code = {
                tokio::pin!(reading);
                let (mut exit, mut read) = (exit, false);
                let code = loop {
                    tokio::select! {
                        code = &mut exit => break code,
                        () = &mut reading, if !read => read = true,
                    }
                };
                if !read {
                    tokio::select! {
                        () = &mut reading => {}
                        () = self.0.deps.clock.sleep(OUTPUT_GRACE) => {}
                    }
                }
                code?
            };
            Ok(ExecSyncResponse { stdout: out, stderr: err, exit_code })
        };
        if timeout.is_zero() {
            return run.await;
        }
        tokio::select! {
            result = run => result,
            () = self.0.deps.clock.sleep(timeout) => Err(CriError::new(
                Code::DeadlineExceeded,
                format!(
                    "failed to exec in container: timeout {} exceeded: context deadline exceeded",
                    go_seconds(timeout),
                ),
            )),
        }
    }

    /// Starts a command and answers its streams.
    pub(crate) async fn start_command(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
        kill_on_disconnect: bool,
    ) -> Result<ExecSession, CriError> {
        let (_, sandbox) = self.running(id)?;
        let what = "failed to exec in container";
        let wrap = |error: io::Error| CriError::caused(Code::Unknown, what, error);
        let message = Request::Exec {
            container: id.to_string(),
            args: request.cmd.clone(),
            tty: request.tty,
            kill_on_disconnect,
        };
        if request.tty {
            let answer =
                sandbox.handle.call(message, Vec::new()).await.map_err(|e| e.into_cri(what))?;
            let terminal = answer
                .fds
                .into_iter()
                .next()
                .ok_or_else(|| CriError::new(Code::Internal, "the shim gave no terminal"))?;
            let terminal = Terminal::new(terminal).map_err(wrap)?;
            return Ok(terminal_session(terminal, request, exit(answer.stream).map_err(wrap)?));
        }
        let mut streams = Streams::open(request).map_err(wrap)?;
        let fds = streams.theirs();
        let answer = sandbox.handle.call(message, fds).await.map_err(|e| e.into_cri(what))?;
        Ok(ExecSession {
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            resize: None,
            exit: exit(answer.stream).map_err(wrap)?,
        })
    }

    /// Answers the streams of the container itself.
    pub(crate) async fn attach_to(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
    ) -> Result<ExecSession, CriError> {
        let (container, sandbox) = self.running(id)?;
        let what = "failed to attach to container";
        let wrap = |error: io::Error| CriError::caused(Code::Unknown, what, error);
        let tty = container.record().config.tty;
        let wanted = ExecRequest { stderr: request.stderr && !tty, ..request.clone() };
        let mut names = Vec::new();
        let mut fds = Vec::new();
        let (mut stdout, mut stderr) = (None, None);
        if wanted.stdout {
            let (ours, theirs) = output_pipe().map_err(wrap)?;
            names.push(Stream::Stdout);
            fds.push(theirs);
            stdout = Some(ours);
        }
        if wanted.stderr {
            let (ours, theirs) = output_pipe().map_err(wrap)?;
            names.push(Stream::Stderr);
            fds.push(theirs);
            stderr = Some(ours);
        }
        let message = Request::Attach {
            container: id.to_string(),
            streams: names,
            stdin: wanted.stdin || tty,
        };
        let Answer { fds, .. } =
            sandbox.handle.call(message, fds).await.map_err(|e| e.into_cri(what))?;
        let input = fds.into_iter().next();
        let ended: BoxFuture<'static, Result<i32, CriError>> = async move {
            container.ended().await;
            Ok(container.status().exit_code)
        }
        .boxed();
        let (mut stdin, mut resize): (Option<InputStream>, _) = (None, None);
        if let (true, Some(input)) = (tty, input.as_ref()) {
            let copy = input.try_clone().map_err(wrap)?;
            resize = Some(resizer(copy));
        }
        if let (true, Some(input)) = (wanted.stdin, input) {
            stdin = Some(match tty {
                true => Box::pin(Terminal::new(input).map_err(wrap)?),
                false => Box::pin(sender(input).map_err(wrap)?),
            });
        }
        Ok(ExecSession { stdin, stdout, stderr, resize, exit: ended })
    }

    /// Connects to a port inside the sandbox.
    pub(crate) async fn open_port(
        &self,
        id: &SandboxId,
        port: u16,
    ) -> Result<Box<dyn DuplexStream>, CriError> {
        let sandbox = self.0.require_sandbox(id)?;
        if !sandbox.is_alive() {
            let text = format!("sandbox container {:?} is not running", id.as_str());
            return Err(CriError::new(Code::FailedPrecondition, text));
        }
        let what = format!("failed to execute portforward in network namespace of sandbox {id}");
        let answer = sandbox
            .handle
            .call(Request::Connect { port }, Vec::new())
            .await
            .map_err(|error| error.into_cri(what.clone()))?;
        let wrap = |error: io::Error| {
            let text = format!("{what}: failed to connect to localhost:{port} inside namespace");
            CriError::caused(Code::Unknown, text, error)
        };
        let socket = answer
            .fds
            .into_iter()
            .next()
            .ok_or_else(|| CriError::new(Code::Internal, "the shim gave no connection"))?;
        let stream =
            tokio::net::TcpStream::from_std(std::net::TcpStream::from(socket)).map_err(wrap)?;
        stream.writable().await.map_err(wrap)?;
        match stream.take_error().map_err(wrap)? {
            Some(error) => Err(wrap(error)),
            None => Ok(Box::new(stream)),
        }
    }

    fn running(&self, id: &ContainerId) -> Result<(Arc<Container>, Arc<Sandbox>), CriError> {
        let container = self.0.require_container(id)?;
        let sandbox = self.0.require_sandbox(&container.sandbox_id)?;
        let state = container.status().state;
        if state != ContainerState::Running {
            let text = format!("container is in {} state", state_name(state));
            return Err(CriError::new(Code::FailedPrecondition, text));
        }
        Ok((container, sandbox))
    }
}

/// Both ends of a command's standard streams.
struct Streams {
    stdin: Option<InputStream>,
    stdout: Option<OutputStream>,
    stderr: Option<OutputStream>,
    theirs: Vec<OwnedFd>,
}

impl Streams {
    fn open(request: &ExecRequest) -> io::Result<Self> {
        let null = || std::fs::File::options().read(true).write(true).open("/dev/null");
        let mut streams = Self { stdin: None, stdout: None, stderr: None, theirs: Vec::new() };
        streams.theirs.push(if request.stdin {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            streams.stdin = Some(Box::pin(sender(ours)?));
            theirs
        } else {
            null()?.into()
        });
        for (wanted, ours) in
            [(request.stdout, &mut streams.stdout), (request.stderr, &mut streams.stderr)]
        {
            streams.theirs.push(if wanted {
                let (stream, theirs) = output_pipe()?;
                *ours = Some(stream);
                theirs
            } else {
                null()?.into()
            });
        }
        Ok(streams)
    }

    fn theirs(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.theirs)
    }
}

fn output_pipe() -> io::Result<(OutputStream, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((Box::pin(pipe::Receiver::from_owned_fd(ours)?), theirs))
}

fn sender(fd: OwnedFd) -> io::Result<pipe::Sender> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    pipe::Sender::from_owned_fd(fd)
}

fn terminal_session(
    terminal: Terminal,
    request: &ExecRequest,
    exit: BoxFuture<'static, Result<i32, CriError>>,
) -> ExecSession {
    let resize = terminal.as_fd().try_clone_to_owned().ok().map(resizer);
    let input = terminal.clone();
    ExecSession {
        stdin: request.stdin.then(|| Box::pin(input) as InputStream),
        stdout: Some(Box::pin(terminal)),
        stderr: None,
        resize,
        exit,
    }
}

/// Sets the terminal's size as often as the client's changes.
fn resizer(terminal: OwnedFd) -> mpsc::Sender<TerminalSize> {
    let (sender, mut sizes) = mpsc::channel::<TerminalSize>(RESIZES_MAX);
    // Ends when the session is dropped.
    drop(stdx::task::spawn("terminal resizer", async move {
        while let Some(size) = sizes.recv().await {
            let size = rustix::termios::Winsize {
                ws_row: size.height,
                ws_col: size.width,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            // The terminal may be gone with its container.
            rustix::termios::tcsetwinsize(&terminal, size).ok();
        }
    }));
    sender
}

/// Resolves when the shim tells that the command ended.
fn exit(
    stream: std::os::unix::net::UnixStream,
) -> io::Result<BoxFuture<'static, Result<i32, CriError>>> {
    let mut follow = Follow::new(stream)?;
    Ok(async move {
        match follow.next().await {
            Ok(Some(Response::Exited { code })) => Ok(code),
            _ => Err(CriError::new(Code::Unavailable, "the sandbox ended before the command")),
        }
    }
    .boxed())
}

async fn collect(stream: Option<OutputStream>, into: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let kept = AsyncReadExt::take(&mut stream, EXEC_SYNC_BYTES_MAX).read_to_end(into).await;
    if kept.is_ok() {
        drain(stream).await;
    }
}

/// The command must not wait for a reader of what is too much.
async fn drain(mut stream: impl AsyncRead + Unpin) {
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
}

/// A duration as Go prints whole seconds and parts of them.
fn go_seconds(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 && duration.as_secs() >= 60 {
        return format!("{}m{}s", duration.as_secs() / 60, duration.as_secs() % 60);
    }
    format!("{duration:?}")
}
