//! Why an image was not pulled.

use std::error::Error;

use image::ImageError;

use crate::hosts::HostsError;

/// Why an image was not pulled. Texts are the ones that containerd's users know.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No host that stands for the registry has it.
    #[error("{0}: not found")]
    NotFound(String),
    /// The registry wants other credentials, or has no such repository.
    #[error(
        "pull access denied, repository does not exist or may require authorization: \
         authorization failed: {0}"
    )]
    Denied(String),
    /// The registry limits how often it is asked, and the limit is reached.
    #[error(
        "registry asks for fewer requests: unexpected status from {method} request to {url}: {status}"
    )]
    TooManyRequests {
        /// The request's method.
        method: http::Method,
        /// Its address.
        url: String,
        /// The answer's status.
        status: http::StatusCode,
    },
    /// An answer that the protocol does not have at this place.
    #[error("unexpected status from {method} request to {url}: {status}")]
    Status {
        /// The request's method.
        method: http::Method,
        /// Its address.
        url: String,
        /// The answer's status.
        status: http::StatusCode,
    },
    /// No answer.
    #[error("failed to do request: {method} {url:?}")]
    Request {
        /// The request's method.
        method: http::Method,
        /// Its address.
        url: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An answer broke off.
    #[error("failed to copy: {url:?}")]
    Body {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The registry sends nothing, or next to nothing.
    #[error("no progress from {url:?} for {seconds} s")]
    Stalled {
        /// What was asked for.
        url: String,
        /// For how long.
        seconds: u64,
    },
    /// The registry sends us from place to place, or to one that must not be used.
    #[error("refused to follow a redirect from {url:?}: {problem}")]
    Redirect {
        /// Which request.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What came is not what was asked for.
    #[error("unexpected content of {what}: want {want}, got {got}")]
    Content {
        /// Which blob.
        what: String,
        /// The digest or size that it should have.
        want: String,
        /// The digest or size that it has.
        got: String,
    },
    /// An answer is larger than allowed.
    #[error("{what} exceeds the limit of {limit} bytes")]
    TooLarge {
        /// What.
        what: String,
        /// How much is allowed.
        limit: u64,
    },
    /// The token server does not give a token.
    #[error("failed to fetch token")]
    Token(#[source] Box<PullError>),
    /// The registry asks for credentials in a way that is not known or must not be used.
    #[error("failed to authorize: {0}")]
    Challenge(String),
    /// The configuration of the registry's hosts cannot be used.
    #[error("failed to read hosts configuration")]
    Hosts(#[source] HostsError),
    /// TLS cannot be used as configured.
    #[error("failed to prepare TLS for {host}")]
    Tls {
        /// For which host.
        host: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store refused, or the image is damaged.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A task that did a part of the work ended before it was done.
    #[error("pulling ended before it was done")]
    Aborted,
}

impl PullError {
    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Request { .. } | Self::Body { .. } | Self::Stalled { .. } => true,
            Self::Status { status, .. } => status.is_server_error(),
            _ => false,
        }
    }

    /// The text with all causes.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
