//! Why the kernel did not do what it was asked.

use std::io;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("netlink socket failed")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot {operation}")]
    Refused {
        /// What was asked, in words.
        operation: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer cannot be read.
    #[error("netlink answer cannot be read")]
    Malformed,
}

impl NetlinkError {
    pub(crate) fn refused(operation: impl Into<String>, errno: i32) -> Self {
        Self::Refused { operation: operation.into(), source: io::Error::from_raw_os_error(errno) }
    }

    fn errno(&self) -> Option<i32> {
        match self {
            Self::Socket(source) | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Malformed => None,
        }
    }

    /// What was to be made is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(rustix::io::Errno::EXIST.raw_os_error())
    }

    /// What was named is not there.
    pub fn is_absent(&self) -> bool {
        use rustix::io::Errno;
        [Errno::NODEV, Errno::NOENT, Errno::SRCH]
            .iter()
            .any(|errno| self.errno() == Some(errno.raw_os_error()))
    }

    /// The kernel lacks the feature.
    pub fn is_unsupported(&self) -> bool {
        self.errno() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error())
    }
}
