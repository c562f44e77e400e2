//! Images on the node.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::ImageSpec;

/// An image on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The identifier: the digest of its configuration, with `sha256:`.
    pub id: String,
    /// Its names with tags.
    pub repo_tags: Vec<String>,
    /// Its names with digests.
    pub repo_digests: Vec<String>,
    /// Its size in bytes.
    pub size: u64,
    /// The user it runs as, when given by number.
    pub uid: Option<i64>,
    /// The user it runs as, when given by name.
    pub username: String,
    /// The reference with which it was asked for, and its annotations.
    pub spec: ImageSpec,
    /// Whether it must not be garbage collected.
    pub pinned: bool,
}

/// What a registry asks for.
#[derive(Clone, Default)]
pub struct AuthConfig {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
    /// User and password in base64.
    pub auth: String,
    /// The registry these belong to.
    pub server_address: String,
    /// A token to get another token with.
    pub identity_token: String,
    /// A token to send.
    pub registry_token: String,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stay out of logs, so only the public half is printed.
        f.debug_struct("AuthConfig").field("server_address", &self.server_address).finish()
    }
}

/// What a file system of the runtime holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Bytes the runtime uses on it.
    pub used_bytes: u64,
    /// Inodes the runtime uses on it.
    pub inodes_used: u64,
}

/// The file systems of the runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFsInfo {
    /// Those with images.
    pub image_filesystems: Vec<FilesystemUsage>,
    /// Those with the containers' writable layers.
    pub container_filesystems: Vec<FilesystemUsage>,
}
