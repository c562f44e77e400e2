//! The error of every call, with the status code a remote runtime would answer.

use std::error::Error;
use std::fmt;

/// The gRPC status codes that CRI gives a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The caller gave up.
    Canceled,
    /// Everything that has no better code.
    Unknown,
    /// The request itself is wrong; repeating it will not help.
    InvalidArgument,
    /// The call took longer than it was allowed to.
    DeadlineExceeded,
    /// The sandbox, container or image does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// A limit was reached.
    ResourceExhausted,
    /// The object is not in a state in which this can be done.
    FailedPrecondition,
    /// This runtime does not do this.
    Unimplemented,
    /// The runtime broke one of its own rules.
    Internal,
    /// The runtime cannot be reached now; repeat later.
    Unavailable,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What went wrong in a CRI call.
///
/// Prints as `rpc error: code = NotFound desc = …`, the form in which the text reaches events
/// and statuses; [`CriError::message`] is the description alone.
#[derive(Debug, thiserror::Error)]
#[error("rpc error: code = {code} desc = {message}")]
pub struct CriError {
    code: Code,
    message: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CriError {
    /// An error with a code and a description.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    /// An error whose description ends with the text of `source` and its causes.
    ///
    /// Over a socket only the text would arrive, so the text must be complete.
    pub fn caused(
        code: Code,
        message: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        let mut message = message.into();
        let mut cause: Option<&dyn Error> = Some(&source);
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        Self { code, message, source: Some(Box::new(source)) }
    }

    /// An error with code `NotFound`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// An error with code `InvalidArgument`.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The status code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The description without the code.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the object asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_as_a_remote_runtime_would_answer() {
        let cause = std::io::Error::other("disk is gone");
        let error = CriError::caused(Code::Unknown, "failed to create container \"a\"", cause);
        assert_eq!(
            error.to_string(),
            "rpc error: code = Unknown desc = failed to create container \"a\": disk is gone"
        );
        assert!(!error.is_not_found());
    }
}
