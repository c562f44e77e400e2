//! The agent's end of a shim's socket.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use cri::{Code, CriError};
use tokio::io::AsyncReadExt;

use crate::protocol::{self, Request, Response};

/// A container's start waits for its disk; everything else takes microseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a shim did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    /// It is not there any more, or does not answer.
    #[error("failed to reach the shim at {}", path.display())]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The container is not running.
    #[error("{0}")]
    NotRunning(String),
    /// It tried and failed.
    #[error("{0}")]
    Failed(String),
}

impl ShimError {
    /// The same for the caller of a CRI method.
    pub(crate) fn into_cri(self, what: impl Into<String>) -> CriError {
        let code = match &self {
            Self::Unreachable { .. } => Code::Unavailable,
            Self::NotRunning(_) => Code::FailedPrecondition,
            Self::Failed(_) => Code::Unknown,
        };
        CriError::caused(code, what, self)
    }
}

/// What a shim answered.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) fds: Vec<OwnedFd>,
    /// The connection, on which some answers are followed by others.
    pub(crate) stream: UnixStream,
}

/// How a shim is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShimCommand {
    /// The program.
    pub program: PathBuf,
    /// What comes before the sandbox's directory on its command line.
    pub args: Vec<String>,
}

impl Default for ShimCommand {
    /// This very program, with the word `shim`.
    fn default() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), args: vec!["shim".to_owned()] }
    }
}

/// Where a shim can be reached.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    socket: PathBuf,
}

impl Handle {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Starts a shim for the sandbox in `directory`. Blocks for about a millisecond.
    #[expect(clippy::disallowed_methods, reason = "a shim is this program run again")]
    pub(crate) fn spawn(&self, command: &ShimCommand, directory: &Path) -> io::Result<Child> {
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (_parent, short) = short_path(&self.socket)?;
        let listener = UnixListener::bind(short)?;
        let log = File::options().create(true).append(true).open(directory.join("shim.log"))?;
        std::process::Command::new(&command.program)
            .args(&command.args)
            .arg(directory)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
    }

    /// Asks and waits for the answer.
    pub(crate) async fn call(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<Answer, ShimError> {
        let handle = self.clone();
        let called = tokio::task::spawn_blocking(move || handle.call_blocking(&request, &fds));
        match called.await {
            Ok(answer) => answer,
            Err(error) => Err(self.unreachable(io::Error::other(error))),
        }
    }

    /// As [`Handle::call`], on a thread that may wait.
    pub(crate) fn call_blocking(
        &self,
        request: &Request,
        fds: &[OwnedFd],
    ) -> Result<Answer, ShimError> {
        let talk = || {
            let stream = self.connect()?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            protocol::send(&stream, request, &fds)?;
            let (response, fds) =
                protocol::receive::<Response>(&stream)?.ok_or(io::ErrorKind::ConnectionReset)?;
            Ok((response, fds, stream))
        };
        let (response, fds, stream) = talk().map_err(|source| self.unreachable(source))?;
        match response {
            Response::Failed { not_found: true, message } => Err(ShimError::NotRunning(message)),
            Response::Failed { message, .. } => Err(ShimError::Failed(message)),
            response => Ok(Answer { response, fds, stream }),
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let (_parent, short) = short_path(&self.socket)?;
        UnixStream::connect(short)
    }

    fn unreachable(&self, source: io::Error) -> ShimError {
        ShimError::Unreachable { path: self.socket.clone(), source }
    }
}

/// Socket addresses are short; a descriptor of the directory makes any path fit.
fn short_path(path: &Path) -> io::Result<(File, PathBuf)> {
    let parent = File::open(path.parent().unwrap_or(Path::new(".")))?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let short = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
    Ok((parent, short))
}

/// Reads the messages that follow an answer.
pub(crate) struct Follow(tokio::net::UnixStream);

impl Follow {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(tokio::net::UnixStream::from_std(stream)?))
    }

    /// The next message; `None` when the shim is gone. Dropping it midway loses the message.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Response>> {
        let mut header = [0u8; 4];
        match self.0.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut body = vec![0u8; protocol::body_length(header)?];
        self.0.read_exact(&mut body).await?;
        Ok(Some(serde_json::from_slice(&body)?))
    }
}
