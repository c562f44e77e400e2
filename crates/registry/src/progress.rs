//! How far a pull has come.

/// Told of a pull as it goes on. `layer` is the digest of the layer's blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The name was resolved: so many layers, so many of them to download, so many bytes of those.
    Resolved {
        /// The digest that the name points to.
        digest: image::Digest,
        /// Layers of the image.
        layers: usize,
        /// Layers to download.
        missing: usize,
        /// Bytes to download.
        bytes: u64,
    },
    /// A layer has arrived.
    Downloaded {
        /// Which.
        layer: image::Digest,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A layer is unpacked.
    Unpacked {
        /// Which.
        layer: image::Digest,
    },
    /// A connection broke, and the rest of the layer is asked for once more.
    Retrying {
        /// Which layer.
        layer: image::Digest,
        /// Why.
        why: String,
    },
}
