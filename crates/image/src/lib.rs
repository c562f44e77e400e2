//! Images on the node: blobs by digest, layers unpacked once, names, and archives.
//!
//! Start reading at [`Store`]; [`Store::import`] and [`Session`] are how images come in, [`Image`]
//! what a container is started from.
//!
//! Invariants:
//! - A blob's file name is its digest; a layer's directory name is its chain identifier. Both
//!   appear complete, by rename, or not at all.
//! - A name points to an image only after all of the image's blobs and layers are durable. A layer
//!   without an image is trusted no longer than the machine runs.
//! - Nothing is written that would leave less than a reserve of the disk.
//! - Whoever changes the store holds a lock file, so that several processes can share it; who
//!   reads needs no lock, and sees what another process imported at once.
//! - Nothing in an archive is trusted: no entry can reach outside its layer's directory.
//!
//! It deliberately does not mount anything, and does not speak to registries.
//!
//! Tested by unit tests beside the code, which need the rights of root for device files.

#![forbid(unsafe_code)]

mod store;

mod session;

mod archive;
mod config;
mod digest;
mod error;
mod layer;
mod lock;
mod pipe;
mod reference;
mod space;
mod unpack;
mod usage;

pub use archive::ImportOptions;
pub use config::{
    Descriptor, Document, ImageConfig, Index, MANIFEST_MEDIA_TYPES, Manifest, RunConfig,
    architecture,
};
pub use digest::{Digest, Digester};
pub use error::ImageError;
pub use reference::Reference;
pub use session::{LAYERS_MAX, Layer, NewImage, Session};
pub use store::{Image, Store};
pub use unpack::Limits;
pub use usage::{Usage, measure};
