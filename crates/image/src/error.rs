//! What can go wrong with images.

use std::io;
use std::path::{Path, PathBuf};

use crate::Digest;

/// Why an image could not be read, imported or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file system refused.
    #[error("failed to {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A reference has the wrong form.
    #[error("invalid reference format: {0:?}")]
    InvalidReference(String),
    /// A digest has the wrong form, or an algorithm that is not known.
    #[error("invalid digest format: {0:?}")]
    InvalidDigest(String),
    /// The archive cannot be read at all.
    #[error("failed to read image archive")]
    Archive(#[source] io::Error),
    /// The archive is neither an OCI nor a docker archive.
    #[error("unrecognized image format: neither index.json nor manifest.json in the archive")]
    UnrecognizedArchive,
    /// A file the archive speaks of is not in it.
    #[error("{0} is missing in the archive")]
    Missing(String),
    /// A document in the archive or the store cannot be understood.
    #[error("failed to parse {document}")]
    Parse {
        /// Which document.
        document: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A blob is not what its name says.
    #[error("unexpected digest of {name}: want {want}, got {got}")]
    DigestMismatch {
        /// Which file or layer.
        name: String,
        /// What it should be.
        want: Digest,
        /// What it is.
        got: Digest,
    },
    /// The image was made for other machines only.
    #[error("no match for platform in manifest: want {0}")]
    NoPlatform(String),
    /// The archive does not say what its image is called.
    #[error("the archive does not name its image; give a name")]
    Unnamed,
    /// The layers of the configuration are not those of the manifest.
    #[error("the manifest has {manifest} layers, the configuration {config}")]
    LayerCount {
        /// Number in the manifest.
        manifest: usize,
        /// Number in the configuration.
        config: usize,
    },
    /// A layer holds an entry that must not be.
    #[error("layer entry {path:?} {problem}")]
    Entry {
        /// Its path in the layer.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The disk would be too full.
    #[error(
        "no space left on device: {needed} bytes more were to be written below {}, where \
         {available} are available and {reserve} stay free",
        path.display()
    )]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// How much more was to be written.
        needed: u64,
        /// How much is never used.
        reserve: u64,
        /// How much there is.
        available: u64,
    },
    /// The disk would have too few files left.
    #[error("no space left on device: fewer than {reserve} files can be made below {}", path.display())]
    NoInodes {
        /// Where.
        path: PathBuf,
        /// How many are never used.
        reserve: u64,
    },
    /// A document is of a kind that is not known, or not supported.
    #[error("unsupported media type {0:?}")]
    MediaType(String),
    /// Something is larger than allowed.
    #[error("{what} exceeds the limit of {limit}")]
    Limit {
        /// What.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
}

impl ImageError {
    /// Whether the image is to blame, and not this machine.
    pub fn is_of_the_image(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::NoSpace { .. } | Self::NoInodes { .. })
    }

    /// Wraps an error of the file system.
    pub(crate) fn io(
        operation: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { operation, path, source }
    }

    /// Wraps an error of a document.
    pub(crate) fn parse(document: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let document = document.into();
        move |source| Self::Parse { document, source }
    }
}
