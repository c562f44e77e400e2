//! Errors of a container's first process, told to the shim as text.

use std::io;

/// What failed on the way to the container's program.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct StepError {
    message: String,
}

impl StepError {
    /// A failure that is complete as it is.
    pub(super) fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// Names the step that failed. The error crosses a process border, so its cause becomes text.
pub(super) trait Step<T> {
    /// Adds what was tried.
    fn step(self, what: impl FnOnce() -> String) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, StepError> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            let text = match error.raw_os_error() {
                Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
                None => error.to_string(),
            };
            StepError::plain(format!("{}: {text}", what()))
        })
    }
}
