//! The images of the node: who may pull how many at once, with which credentials, and which images
//! go when the disk is full.

pub(crate) mod collect;
pub(crate) mod keyring;
mod pulled;
pub(crate) mod puller;

use std::path::PathBuf;
use std::time::Duration;

pub use pulled::CredentialsPolicy;
pub(crate) use pulled::{Access, PulledRecords};

/// How images are pulled and removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagesConfig {
    /// How many images are pulled at once; `None` means any number. Upstream's default is to pull
    /// one after the other.
    pub max_parallel_pulls: Option<u32>,
    /// How many pulls begin in a second, over some time; 0 means any number.
    pub registry_qps: u32,
    /// How many pulls may begin at once.
    pub registry_burst: u32,
    /// When images are removed.
    pub gc: ImageGcPolicy,
    /// Which images on the node are only for those who could pull them.
    pub credentials_policy: CredentialsPolicy,
    /// Where credentials for all pods may be, in a file `config.json`. The first that there is
    /// counts.
    pub docker_config_dirs: Vec<PathBuf>,
    /// Where they may be in a file `.dockercfg`, when there is no `config.json`.
    pub dockercfg_dirs: Vec<PathBuf>,
}

impl Default for ImagesConfig {
    /// Upstream's, without credentials.
    fn default() -> Self {
        Self {
            max_parallel_pulls: Some(1),
            registry_qps: 5,
            registry_burst: 10,
            gc: ImageGcPolicy::default(),
            credentials_policy: CredentialsPolicy::default(),
            docker_config_dirs: Vec::new(),
            dockercfg_dirs: Vec::new(),
        }
    }
}

/// When images that no container uses are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageGcPolicy {
    /// The percentage of the disk in use at which images are removed.
    pub high_threshold_percent: u8,
    /// The percentage of the disk in use at which no more are.
    pub low_threshold_percent: u8,
    /// How long an image is known before it may be removed for want of space.
    pub min_age: Duration,
    /// How long an image may be unused; zero means for ever.
    pub max_age: Duration,
}

impl Default for ImageGcPolicy {
    /// Upstream's.
    fn default() -> Self {
        Self {
            high_threshold_percent: 85,
            low_threshold_percent: 80,
            min_age: Duration::from_secs(120),
            max_age: Duration::ZERO,
        }
    }
}
