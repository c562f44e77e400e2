//! Who may use an image that is on the node: upstream `pullmanager`, KEP-2535.
//!
//! An image that was pulled with a secret is for those pods alone that have the secret; others have
//! to ask the registry. What was pulled without one, or with the node's own credentials, is for
//! all, and so are images that nobody pulled, unless the policy says otherwise.
//!
//! ```text
//! <root>/image_manager/pulling/<hash of the name>    a pull under way, or one that was cut off
//! <root>/image_manager/pulled/<hash of the image>    who pulled it, by repository
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::keyring::{SecretSource, TrackedAuth, repository};
use crate::kubelet::lock;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// More secrets of one image are not remembered: their pods ask the registry each time.
const SECRETS_MAX: usize = 1000;

/// Which images on the node are only for those who could pull them: upstream
/// `imagePullCredentialsVerificationPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CredentialsPolicy {
    /// None.
    NeverVerify,
    /// Those that were pulled.
    #[default]
    NeverVerifyPreloadedImages,
    /// All but those whose repositories are listed; one that ends with `/*` stands for all below.
    NeverVerifyAllowlistedImages(Vec<String>),
    /// All.
    AlwaysVerify,
}

impl CredentialsPolicy {
    fn asks(&self, repository: &str, preloaded: bool) -> bool {
        match self {
            Self::NeverVerify => false,
            Self::NeverVerifyPreloadedImages => !preloaded,
            Self::NeverVerifyAllowlistedImages(list) => {
                !list.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(below) if below.ends_with('/') => repository.starts_with(below),
                    _ => pattern == repository,
                })
            }
            Self::AlwaysVerify => true,
        }
    }
}

/// Whether a pod may use an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Any pod may.
    Everybody,
    /// A pod with one of these, or with the same credentials.
    Secrets(Vec<SecretSource>),
    /// Who may is for the registry to say.
    Unknown,
}

impl Access {
    /// Whether credentials that a pod has for the image are among those that it was pulled with.
    pub(crate) fn admits(&self, credentials: &[TrackedAuth]) -> bool {
        match self {
            Self::Everybody => true,
            Self::Unknown => false,
            Self::Secrets(known) => {
                let own = credentials.iter().filter_map(|auth| auth.source.as_ref());
                own.into_iter().any(|own| {
                    known.iter().any(|known| own.is_same(known) || own.hash == known.hash)
                })
            }
        }
    }
}

/// What was pulled by whom.
pub(crate) struct PulledRecords {
    directory: PathBuf,
    policy: CredentialsPolicy,
    /// Pulls under way, by name.
    pulling: Mutex<BTreeMap<String, usize>>,
}

/// A pull under way, as long as it lives.
pub(crate) struct Pulling<'a> {
    records: &'a PulledRecords,
    image: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    kind: String,
    api_version: String,
    last_updated_time: Timestamp,
    image_ref: String,
    #[serde(default)]
    credential_mapping: BTreeMap<String, Mapping>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<SecretSource>,
}

impl PulledRecords {
    /// Below the kubelet's directory.
    pub(crate) fn new(root_dir: &Path, policy: CredentialsPolicy) -> Self {
        let directory = root_dir.join("image_manager");
        Self { directory, policy, pulling: Mutex::default() }
    }

    /// Who may use the image `id`, which is here and was asked for by a name.
    pub(crate) fn access(&self, image: &str, id: &str) -> Access {
        let repository = repository(image);
        let Some(record) = self.read(id) else {
            // A pull that was cut off may have brought it.
            let preloaded = !self.intent(image).exists();
            let asks = self.policy.asks(&repository, preloaded);
            return if asks { Access::Unknown } else { Access::Everybody };
        };
        if !self.policy.asks(&repository, false) {
            return Access::Everybody;
        }
        match record.credential_mapping.get(&repository) {
            None => Access::Unknown,
            Some(mapping) if mapping.node_pods_accessible => Access::Everybody,
            Some(mapping) => Access::Secrets(mapping.kubernetes_secrets.clone()),
        }
    }

    /// A pull begins.
    pub(crate) fn begin(&self, image: &str) -> std::io::Result<Pulling<'_>> {
        let path = self.intent(image);
        let mut pulling = lock(&self.pulling);
        let intent = serde_json::json!({
            "kind": "ImagePullIntent", "apiVersion": API_VERSION, "image": image,
        });
        self.write(&path, intent.to_string().as_bytes())?;
        *pulling.entry(image.to_owned()).or_default() += 1;
        Ok(Pulling { records: self, image: image.to_owned() })
    }

    /// An image was pulled with these credentials, or without any.
    pub(crate) fn pulled(
        &self,
        image: &str,
        id: &str,
        used: Option<&TrackedAuth>,
        now: Timestamp,
    ) -> std::io::Result<()> {
        let _one_at_a_time = lock(&self.pulling);
        let mut record = self.read(id).unwrap_or_else(|| Record {
            kind: "ImagePulledRecord".to_owned(),
            api_version: API_VERSION.to_owned(),
            last_updated_time: now,
            image_ref: id.to_owned(),
            credential_mapping: BTreeMap::new(),
        });
        record.last_updated_time = now;
        let mapping = record.credential_mapping.entry(repository(image)).or_default();
        match used.and_then(|auth| auth.source.as_ref()) {
            None => {
                mapping.node_pods_accessible = true;
                mapping.kubernetes_secrets.clear();
            }
            Some(_) if mapping.node_pods_accessible => {}
            Some(source) => {
                let known = &mut mapping.kubernetes_secrets;
                known.retain(|other| !other.is_same(source));
                if known.len() < SECRETS_MAX {
                    known.push(source.clone());
                }
            }
        }
        let json = serde_json::to_vec(&record).map_err(std::io::Error::other)?;
        self.write(&self.record(id), &json)
    }

    /// Forgets images that are gone.
    pub(crate) fn prune(&self, present: &BTreeSet<String>) {
        let kept: BTreeSet<PathBuf> = present.iter().map(|id| self.record(id)).collect();
        let entries = std::fs::read_dir(self.directory.join("pulled"));
        for path in entries.into_iter().flatten().flatten().map(|entry| entry.path()) {
            if !kept.contains(&path)
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "record of an image not removed");
            }
        }
    }

    fn intent(&self, image: &str) -> PathBuf {
        self.directory.join("pulling").join(file_name(image))
    }

    fn record(&self, id: &str) -> PathBuf {
        self.directory.join("pulled").join(file_name(id))
    }

    /// A record that cannot be read is none: the image is then as one that nobody pulled, unless
    /// it is there and damaged, which tells nothing about who may use it.
    fn read(&self, id: &str) -> Option<Record> {
        let bytes = std::fs::read(self.record(id)).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| Record {
            kind: String::new(),
            api_version: String::new(),
            last_updated_time: Timestamp::UNIX_EPOCH,
            image_ref: id.to_owned(),
            credential_mapping: BTreeMap::new(),
        }))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        std::fs::create_dir_all(path.parent().unwrap_or(&self.directory))?;
        stdx::atomic_file::write(path, bytes, 0o600)
    }
}

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        let mut pulling = lock(&self.records.pulling);
        let count = pulling.get(&self.image).copied().unwrap_or(0);
        if count > 1 {
            pulling.insert(self.image.clone(), count - 1);
            return;
        }
        pulling.remove(&self.image);
        // When it stays, whoever wants the image asks the registry.
        std::fs::remove_file(self.records.intent(&self.image)).ok();
    }
}

fn file_name(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().fold("sha256-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, hash: &str) -> TrackedAuth {
        let source = SecretSource {
            uid: format!("uid-{name}"),
            namespace: "n".into(),
            name: name.into(),
            hash: hash.into(),
        };
        TrackedAuth { auth: cri::AuthConfig::default(), source: Some(source) }
    }

    fn records(dir: &tempfile::TempDir, policy: CredentialsPolicy) -> PulledRecords {
        PulledRecords::new(dir.path(), policy)
    }

    #[test]
    fn an_image_is_for_those_whose_secret_it_was_pulled_with() {
        let dir = tempfile::tempdir().unwrap();
        let records = records(&dir, CredentialsPolicy::default());
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(records.access("r.io/a:1", "id"), Access::Everybody, "nobody pulled it");
        records.pulled("r.io/a:1", "id", Some(&secret("one", "h1")), now).unwrap();
        let admits = |auth: &[TrackedAuth]| records.access("r.io/a:2", "id").admits(auth);
        assert!(admits(&[secret("one", "h1")]));
        assert!(admits(&[secret("one", "changed")]), "the same secret");
        assert!(admits(&[secret("other", "h1")]), "the same password");
        assert!(!admits(&[secret("other", "h2")]) && !admits(&[]));
        assert!(!records.access("mirror.io/a:1", "id").admits(&[secret("one", "h1")]));
        records.pulled("r.io/a:1", "id", None, now).unwrap();
        assert!(admits(&[]));
        records.prune(&BTreeSet::from(["other".to_owned()]));
        assert_eq!(std::fs::read_dir(dir.path().join("image_manager/pulled")).unwrap().count(), 0);
    }

    #[test]
    fn a_pull_that_was_cut_off_makes_everybody_ask() {
        let dir = tempfile::tempdir().unwrap();
        let records = records(&dir, CredentialsPolicy::default());
        let first = records.begin("a:1").unwrap();
        let second = records.begin("a:1").unwrap();
        drop(first);
        assert_eq!(records.access("a:1", "id"), Access::Unknown);
        drop(second);
        assert_eq!(records.access("a:1", "id"), Access::Everybody);
        std::mem::forget(records.begin("a:1").unwrap());
        let after = PulledRecords::new(dir.path(), CredentialsPolicy::default());
        assert_eq!(after.access("a:1", "id"), Access::Unknown);
    }

    #[test]
    fn policies_decide_about_images_that_nobody_pulled() {
        let list = vec!["docker.io/library/a".to_owned(), "r.io/team/*".to_owned()];
        for (policy, image, expected) in [
            (CredentialsPolicy::NeverVerify, "a", Access::Everybody),
            (CredentialsPolicy::AlwaysVerify, "a", Access::Unknown),
            (
                CredentialsPolicy::NeverVerifyAllowlistedImages(list.clone()),
                "a:1",
                Access::Everybody,
            ),
            (
                CredentialsPolicy::NeverVerifyAllowlistedImages(list.clone()),
                "r.io/team/x/y",
                Access::Everybody,
            ),
            (
                CredentialsPolicy::NeverVerifyAllowlistedImages(list),
                "r.io/teams/x",
                Access::Unknown,
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            assert_eq!(records(&dir, policy).access(image, "id"), expected, "{image}");
        }
    }

    #[test]
    fn a_damaged_record_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let records = records(&dir, CredentialsPolicy::default());
        records.pulled("a:1", "id", None, Timestamp::UNIX_EPOCH).unwrap();
        std::fs::write(records.record("id"), "{").unwrap();
        assert_eq!(records.access("a:1", "id"), Access::Unknown);
    }
}
