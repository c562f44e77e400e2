//! The content store, unpacked layers and archives.
