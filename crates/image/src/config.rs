//! The documents of the OCI image format that are read, and the one that is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::session::{Layer, layers};
use crate::{Digest, ImageError};

pub(crate) const MEDIA_TYPE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const MEDIA_TYPE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const MEDIA_TYPE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The documents that a registry may answer with, the preferred ones first.
pub const MANIFEST_MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    MEDIA_TYPE_MANIFEST,
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Whether a descriptor of this type leads to more manifests.
pub(crate) fn is_index(media_type: &str) -> bool {
    MANIFEST_MEDIA_TYPES[..2].contains(&media_type)
}

/// What a registry answers for a name.
#[derive(Debug)]
pub enum Document {
    /// Leads to manifests for several platforms.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

impl Document {
    /// Reads a document. What it says of its own type counts more than what was said about it.
    ///
    /// # Errors
    /// When it cannot be understood, or is of a type that is not supported.
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            #[serde(default)]
            media_type: String,
            #[serde(default)]
            schema_version: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(ImageError::parse("manifest"))?;
        let media_type = if head.media_type.is_empty() { media_type } else { &head.media_type };
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        if head.schema_version != 2 || !MANIFEST_MEDIA_TYPES.contains(&media_type) {
            return Err(ImageError::MediaType(media_type.to_owned()));
        }
        if is_index(media_type) {
            let index = serde_json::from_slice(bytes).map_err(ImageError::parse("index"))?;
            return Ok(Self::Index(index));
        }
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(ImageError::parse("manifest"))?;
        for layer in &manifest.layers {
            // Encrypted ones, and artifacts that are no file systems.
            let tar = layer.media_type.contains("tar");
            if !tar || layer.media_type.contains("encrypted") {
                return Err(ImageError::MediaType(layer.media_type.clone()));
            }
        }
        Ok(Self::Manifest(manifest))
    }
}

impl Index {
    /// What of it runs on this machine, the best first.
    pub fn candidates(&self) -> Vec<&Descriptor> {
        let mut found: Vec<(u8, &Descriptor)> = self
            .manifests
            .iter()
            .filter_map(|descriptor| Some((fitness(descriptor.platform.as_ref())?, descriptor)))
            .collect();
        // Among equals the order of the index counts.
        found.sort_by_key(|(fitness, _)| std::cmp::Reverse(*fitness));
        found.into_iter().map(|(_, descriptor)| descriptor).collect()
    }
}

/// How well something for a platform runs here; `None` means not at all.
fn fitness(platform: Option<&Platform>) -> Option<u8> {
    // Its configuration will tell.
    let Some(platform) = platform else { return Some(0) };
    if platform.os != "linux" || platform.architecture != architecture() {
        return None;
    }
    match (platform.architecture.as_str(), platform.variant.as_str()) {
        (_, "") | ("arm64", "v8") | ("arm", "v7") => Some(3),
        ("amd64", "v1") | ("arm", "v6") => Some(2),
        ("arm", "v5") => Some(1),
        // A later processor than this one may be.
        _ => None,
    }
}

/// Points to content.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The type of the content.
    pub media_type: String,
    /// The content's digest.
    pub digest: Digest,
    /// The content's size in bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
}

/// `index.json` and everything of its form.
#[derive(Debug, Deserialize)]
pub struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

/// One image.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    /// The image's configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// Reads the configuration that belongs to it, and tells the layers.
    ///
    /// # Errors
    /// When the two do not fit, or the image is not for this machine.
    pub fn layers_by(&self, config: &[u8]) -> Result<Vec<Layer>, ImageError> {
        let id = &self.config.digest;
        let config: ImageConfig =
            serde_json::from_slice(config).map_err(ImageError::parse(format!("config {id}")))?;
        if !config.architecture.is_empty() && config.architecture != architecture() {
            return Err(ImageError::NoPlatform(format!("linux/{}", architecture())));
        }
        let diff_ids = &config.rootfs.diff_ids;
        if self.layers.len() != diff_ids.len() {
            let (manifest, config) = (self.layers.len(), diff_ids.len());
            return Err(ImageError::LayerCount { manifest, config });
        }
        layers(diff_ids)
    }

    /// Bytes of the configuration and the layers.
    pub fn size(&self) -> u64 {
        let all = self.layers.iter().chain([&self.config]);
        all.fold(0, |sum, descriptor| sum.saturating_add(descriptor.size))
    }
}

/// One entry of a docker archive's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerManifest {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    pub(crate) layers: Vec<String>,
}

/// An image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ImageConfig {
    /// The processor it is made for, by Go's name.
    #[serde(default)]
    pub architecture: String,
    /// The system it is made for.
    #[serde(default)]
    pub os: String,
    /// How to run it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: RunConfig,
    #[serde(default)]
    pub(crate) rootfs: Rootfs,
}

/// How an image wants to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// User, or user and group: names or numbers, separated by a colon.
    pub user: String,
    /// Environment, as `NAME=value`.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// The program with its first arguments.
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// The further arguments.
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// The working directory.
    pub working_dir: String,
    /// The signal that asks it to stop.
    pub stop_signal: String,
}

/// The layers as they are unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Rootfs {
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) diff_ids: Vec<Digest>,
}

/// Go writes empty lists as `null`.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The machine's processor, by Go's name.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
