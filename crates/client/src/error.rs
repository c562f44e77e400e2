//! Why a request did not give what was asked for.

use std::error::Error;

use meta::{Reason, Status};

/// The failure of one request. It says what the caller may do through its predicates.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with a failure.
    #[error("{0}")]
    Status(Box<Status>),
    /// The server could not be asked, or its answer did not arrive whole.
    #[error("request to the API server failed")]
    Transport(#[source] Box<dyn Error + Send + Sync>),
    /// The answer is not what the API promises.
    #[error("answer of the API server cannot be read")]
    Decode(#[source] Box<dyn Error + Send + Sync>),
    /// The object to send cannot be printed.
    #[error("object cannot be encoded")]
    Encode(#[source] serde_json::Error),
    /// The answer is larger than this client accepts.
    #[error("answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// No answer in time.
    #[error("no answer within {seconds} s")]
    Timeout {
        /// How long was waited.
        seconds: u64,
    },
}

impl ClientError {
    /// Wraps an error of the connection.
    pub fn transport(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Transport(source.into())
    }

    /// Wraps an error of decoding.
    pub fn decode(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Decode(source.into())
    }

    /// The status, when the server answered with one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the server gave this reason.
    pub fn is(&self, reason: Reason) -> bool {
        self.status().is_some_and(|status| status.is(reason))
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.is(Reason::NotFound)
    }

    /// The object exists already.
    pub fn is_already_exists(&self) -> bool {
        self.is(Reason::AlreadyExists)
    }

    /// The object changed in between: read it again.
    pub fn is_conflict(&self) -> bool {
        self.is(Reason::Conflict)
    }

    /// The resource version is no longer kept: list again.
    pub fn is_expired(&self) -> bool {
        self.is(Reason::Expired) || self.is(Reason::Gone)
    }

    /// The namespace is being deleted, so nothing can be created in it any more.
    pub fn is_namespace_terminating(&self) -> bool {
        self.status().and_then(|status| status.details.as_ref()).is_some_and(|details| {
            details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
        })
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}
