//! Flags about the images of a node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kubelet::{CredentialsPolicy, ImageGcPolicy, ImagesConfig};

use super::duration;
use crate::agent;

/// Where users configure the hosts of registries.
pub(super) const REGISTRY_CONFIG_DIR: &str = "/etc/ironclad/certs.d";

/// Arguments, with the names of upstream's flags, or of the settings of its configuration file.
#[derive(clap::Args)]
pub(crate) struct Images {
    /// Mirrors and certificates of registries, as containerd has them: a directory for each
    /// registry, with a file hosts.toml.
    #[arg(long, default_value = REGISTRY_CONFIG_DIR)]
    registry_config_dir: PathBuf,
    /// Whether images are pulled one after the other.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    serialize_image_pulls: bool,
    /// How many images are pulled at once when they are not serialized; default: any number.
    #[arg(long)]
    max_parallel_image_pulls: Option<u32>,
    /// How many pulls begin in a second, over some time; 0 means any number.
    #[arg(long, default_value_t = 5)]
    registry_qps: u32,
    /// How many pulls may begin at once.
    #[arg(long, default_value_t = 10)]
    registry_burst: u32,
    /// The percentage of the disk in use at which images are removed.
    #[arg(long, default_value_t = 85)]
    image_gc_high_threshold: u8,
    /// The percentage of the disk in use at which no more images are removed.
    #[arg(long, default_value_t = 80)]
    image_gc_low_threshold: u8,
    /// How long an image is here before it may be removed for want of space.
    #[arg(long, default_value = "2m0s", value_parser = duration)]
    minimum_image_ttl_duration: Duration,
    /// How long an image may be unused; 0s means for ever.
    #[arg(long, default_value = "0s", value_parser = duration)]
    image_maximum_gc_age: Duration,
    /// Which images of the node are only for pods that could pull them.
    #[arg(long, default_value = "NeverVerifyPreloadedImages", value_parser = [
        "NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify",
    ])]
    image_pull_credentials_verification_policy: String,
    /// Repositories of images that are for all pods, by NeverVerifyAllowlistedImages; one that ends
    /// with /* stands for all below.
    #[arg(long, value_delimiter = ',')]
    preloaded_images_verification_allowlist: Vec<String>,
}

impl Images {
    /// What they say.
    pub(crate) fn read(&self, data_dir: &Path) -> anyhow::Result<agent::Images> {
        let (high, low) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        anyhow::ensure!(
            high <= 100,
            "--image-gc-high-threshold: {high} must be between 0 and 100, inclusive"
        );
        anyhow::ensure!(
            low < high,
            "--image-gc-low-threshold: {low} must be less than --image-gc-high-threshold {high}"
        );
        let parallel = self.max_parallel_image_pulls;
        anyhow::ensure!(parallel != Some(0), "--max-parallel-image-pulls: 0 must be positive");
        anyhow::ensure!(
            !self.serialize_image_pulls || parallel.is_none_or(|parallel| parallel == 1),
            "--max-parallel-image-pulls cannot be larger than 1 unless --serialize-image-pulls=false"
        );
        let (min_age, max_age) = (self.minimum_image_ttl_duration, self.image_maximum_gc_age);
        anyhow::ensure!(
            max_age.is_zero() || max_age > min_age,
            "--image-maximum-gc-age {max_age:?} must be greater than --minimum-image-ttl-duration \
             {min_age:?}"
        );
        Ok(agent::Images {
            registry_config_dir: self.registry_config_dir.clone(),
            kubelet: ImagesConfig {
                max_parallel_pulls: if self.serialize_image_pulls { Some(1) } else { parallel },
                registry_qps: self.registry_qps,
                registry_burst: self.registry_burst,
                gc: ImageGcPolicy {
                    high_threshold_percent: high,
                    low_threshold_percent: low,
                    min_age,
                    max_age,
                },
                credentials_policy: self.credentials_policy()?,
                // Where upstream's node agent looks, its own directory first.
                docker_config_dirs: directories(data_dir, ".docker"),
                dockercfg_dirs: directories(data_dir, ""),
            },
        })
    }
}

impl Images {
    fn credentials_policy(&self) -> anyhow::Result<CredentialsPolicy> {
        let list = &self.preloaded_images_verification_allowlist;
        let policy = match self.image_pull_credentials_verification_policy.as_str() {
            "NeverVerify" => CredentialsPolicy::NeverVerify,
            "AlwaysVerify" => CredentialsPolicy::AlwaysVerify,
            "NeverVerifyAllowlistedImages" => {
                return Ok(CredentialsPolicy::NeverVerifyAllowlistedImages(list.clone()));
            }
            _ => CredentialsPolicy::NeverVerifyPreloadedImages,
        };
        anyhow::ensure!(
            list.is_empty(),
            "--preloaded-images-verification-allowlist: can only be set with \
             --image-pull-credentials-verification-policy=NeverVerifyAllowlistedImages"
        );
        Ok(policy)
    }
}

/// The node agent's directory, upstream's, and one below the home directory and the root.
fn directories(data_dir: &Path, below: &str) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let mut directories = vec![data_dir.join("kubelet"), PathBuf::from("/var/lib/kubelet")];
    directories.extend(home.map(|home| home.join(below)));
    directories.push(Path::new("/").join(below));
    directories
}
