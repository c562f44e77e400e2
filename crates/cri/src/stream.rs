//! Standard streams of exec and attach, and forwarded ports.

use std::pin::Pin;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::CriError;

/// Bytes going in. Dropping it, or shutting it down, ends the input.
pub type InputStream = Pin<Box<dyn AsyncWrite + Send>>;

/// Bytes coming out.
pub type OutputStream = Pin<Box<dyn AsyncRead + Send>>;

/// A connection.
pub trait DuplexStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> DuplexStream for T {}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A process with its streams: one started by exec, or a container's own.
///
/// With a terminal, everything comes out of `stdout` and there is no `stderr`. Dropping the
/// session closes the streams; it does not end the process.
pub struct ExecSession {
    /// Present when input was asked for and the process has one.
    pub stdin: Option<InputStream>,
    /// Present when asked for.
    pub stdout: Option<OutputStream>,
    /// Present when asked for and there is no terminal.
    pub stderr: Option<OutputStream>,
    /// Takes sizes of the client's terminal; present with a terminal.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Resolves when the process ended, to its exit code, or 128 plus the signal that ended it.
    /// Output may still be on its way.
    pub exit: BoxFuture<'static, Result<i32, CriError>>,
}

impl std::fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecSession")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .finish_non_exhaustive()
    }
}
