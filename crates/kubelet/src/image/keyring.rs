//! Which credentials are for which image: upstream `credentialprovider.BasicDockerKeyring`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use cri::AuthConfig;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A longer file holds no credentials.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Where Docker's clients note what is for Docker Hub.
const HUB: &str = "index.docker.io";

/// Credentials by what they are for. The most specific are tried first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyring(BTreeMap<String, Vec<TrackedAuth>>);

/// Credentials, and the secret that they are of; without one they are the node's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrackedAuth {
    pub(crate) auth: AuthConfig,
    pub(crate) source: Option<SecretSource>,
}

/// A secret, and a hash of the credentials in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecretSource {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    #[serde(rename = "credentialHash")]
    pub(crate) hash: String,
}

impl SecretSource {
    /// Whether it is the same secret, whatever is in it now.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name)
    }
}

/// Credentials that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyringError {
    /// They are no JSON, or of another form.
    #[error("failed to parse registry credentials: {0}")]
    Parse(#[source] serde_json::Error),
    /// An `auth` is not `user:password` in base64.
    #[error(
        "failed to parse registry credentials: unable to parse auth field, must be formatted as base64(username:password)"
    )]
    Auth,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: Entries,
}

type Entries = BTreeMap<String, Entry>;

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
}

impl Keyring {
    /// Adds what a `config.json`, or a secret of type `kubernetes.io/dockerconfigjson`, holds.
    pub(crate) fn add_docker_config(
        &mut self,
        json: &[u8],
        of: Option<&SecretSource>,
    ) -> Result<(), KeyringError> {
        let config: DockerConfig = serde_json::from_slice(json).map_err(KeyringError::Parse)?;
        self.add(config.auths, of)
    }

    /// Adds what a `.dockercfg`, or a secret of type `kubernetes.io/dockercfg`, holds.
    pub(crate) fn add_dockercfg(
        &mut self,
        json: &[u8],
        of: Option<&SecretSource>,
    ) -> Result<(), KeyringError> {
        self.add(serde_json::from_slice(json).map_err(KeyringError::Parse)?, of)
    }

    /// The credentials for an image, in the order in which to try them.
    pub(crate) fn lookup(&self, image: &str) -> Vec<TrackedAuth> {
        let image = repository(image);
        let matching = self.0.iter().rev().filter(|(pattern, _)| matches(pattern, &image));
        let found: Vec<TrackedAuth> = matching.flat_map(|(_, found)| found.clone()).collect();
        if !found.is_empty() || !image.starts_with("docker.io/") {
            return found;
        }
        self.0.get(HUB).cloned().unwrap_or_default()
    }

    fn add(&mut self, entries: Entries, of: Option<&SecretSource>) -> Result<(), KeyringError> {
        for (location, entry) in entries {
            let auth = entry.credentials()?;
            let source = of.map(|secret| SecretSource { hash: hash(&auth), ..secret.clone() });
            // What is no address is for nothing.
            if let Some(pattern) = pattern(&location) {
                self.0.entry(pattern).or_default().push(TrackedAuth { auth, source });
            }
        }
        Ok(())
    }
}

impl Entry {
    fn credentials(self) -> Result<AuthConfig, KeyringError> {
        let (mut username, mut password) = (self.username, self.password);
        if !self.auth.is_empty() {
            let text = self.auth.trim();
            let bytes = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text));
            let pair = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = pair.ok_or(KeyringError::Auth)?;
            let (user, secret) = pair.split_once(':').ok_or(KeyringError::Auth)?;
            (username, password) = (user.to_owned(), secret.to_owned());
        }
        let identity_token = self.identitytoken;
        Ok(AuthConfig { username, password, identity_token, ..AuthConfig::default() })
    }
}

/// Tells credentials apart without telling them.
fn hash(auth: &AuthConfig) -> String {
    let mut hasher = Sha256::new();
    for part in [&auth.username, &auth.password, &auth.identity_token] {
        hasher.update(part.len().to_be_bytes());
        hasher.update(part.as_bytes());
    }
    STANDARD.encode(hasher.finalize())
}

/// The node's own credentials: upstream `ReadDockerConfigJSONFile`, then `ReadDockercfgFile`. Files
/// that cannot be understood are passed over.
pub(crate) fn of_node(config_dirs: &[PathBuf], dockercfg_dirs: &[PathBuf]) -> Keyring {
    let read = |path: &Path| {
        let length = std::fs::metadata(path).ok()?.len();
        (length <= FILE_BYTES_MAX).then(|| std::fs::read(path).ok()).flatten()
    };
    let configs = config_dirs.iter().map(|dir| (dir.join("config.json"), true));
    let old = dockercfg_dirs.iter().map(|dir| (dir.join(".dockercfg"), false));
    for (path, is_config) in configs.chain(old) {
        let Some(json) = read(&path) else { continue };
        let mut keyring = Keyring::default();
        let added = match is_config {
            true => keyring.add_docker_config(&json, None),
            false => keyring.add_dockercfg(&json, None),
        };
        match added {
            Ok(()) => return keyring,
            Err(error) => tracing::warn!(path = %path.display(), %error, "credentials not used"),
        }
    }
    Keyring::default()
}

/// Host and path of a location, without scheme and the protocol's version.
fn pattern(location: &str) -> Option<String> {
    let rest = location.strip_prefix("https://").or_else(|| location.strip_prefix("http://"));
    let rest = rest.unwrap_or(location);
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) => (host, format!("/{path}")),
        None => (rest, String::new()),
    };
    let versions = ["/v1/", "/v2/"];
    let path = if versions.iter().any(|version| path.starts_with(version)) {
        &path["/v1".len()..]
    } else {
        &path
    };
    let path = if path == "/" { "" } else { path };
    (!host.is_empty()).then(|| format!("{host}{path}"))
}

/// The image's repository in its full form, without tag and digest.
pub(crate) fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some(("index.docker.io", path)) => format!("docker.io/{path}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

/// Upstream `urlsMatch`: the same port, each label of the host by its glob, and the path's start.
fn matches(pattern: &str, image: &str) -> bool {
    let split = |text: &str| -> (String, String, String) {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let (host, port) = host.split_once(':').unwrap_or((host, ""));
        (host.to_owned(), port.to_owned(), path.to_owned())
    };
    let (glob_host, glob_port, glob_path) = split(pattern);
    let (host, port, path) = split(image);
    let (globs, labels): (Vec<_>, Vec<_>) =
        (glob_host.split('.').collect(), host.split('.').collect());
    glob_port == port
        && globs.len() == labels.len()
        && globs.iter().zip(&labels).all(|(glob, label)| {
            glob_matches(&glob.chars().collect::<Vec<_>>(), &label.chars().collect::<Vec<_>>())
        })
        && path.starts_with(&glob_path)
}

/// `*` and `?` within one label.
fn glob_matches(glob: &[char], text: &[char]) -> bool {
    // Where to go on when what followed the last `*` did not match: linear in memory, and at most
    // the product of both in time.
    let (mut g, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                g += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (g, t) = (at + 1, taken + 1);
            }
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(locations: &[&str]) -> Keyring {
        let mut keyring = Keyring::default();
        for location in locations {
            let config = serde_json::json!({"auths": {*location: {"username": location}}});
            keyring.add_docker_config(config.to_string().as_bytes(), None).unwrap();
        }
        keyring
    }

    fn users(locations: &[&str], image: &str) -> Vec<String> {
        keyring(locations).lookup(image).into_iter().map(|found| found.auth.username).collect()
    }

    #[test]
    fn credentials_match_by_host_port_glob_and_path() {
        for (location, image, expected) in [
            ("r.example", "r.example/a/b:1", true),
            ("https://r.example/v2/", "r.example/a", true),
            ("http://r.example/v1/a", "r.example/a/b", true),
            ("r.example/a", "r.example/b", false),
            ("r.example:5000", "r.example:5000/a", true),
            ("r.example", "r.example:5000/a", false),
            ("*.example", "r.example/a", true),
            ("*.example", "a.b.example/a", false),
            ("r*x.*", "registry-x.io/a", true),
            ("r?.io", "r1.io/a", true),
            ("r?.io", "r12.io/a", false),
            ("https://index.docker.io/v1/", "nginx", true),
            ("https://index.docker.io/v1/", "a/b@sha256:0", true),
            ("https://index.docker.io/v1/", "r.example/nginx", false),
            ("docker.io", "nginx:1", true),
            ("docker.io/library", "nginx", true),
            ("localhost:5000", "localhost:5000/a:1", true),
            ("https://", "r.example/a", false),
        ] {
            assert_eq!(!users(&[location], image).is_empty(), expected, "{location} {image}");
        }
    }

    #[test]
    fn the_most_specific_credentials_come_first() {
        let all = ["r.example", "r.example/a/b", "r.example/a", "other.example"];
        assert_eq!(users(&all, "r.example/a/b/c"), ["r.example/a/b", "r.example/a", "r.example"]);
        let two = ["https://index.docker.io/v1/", "docker.io/a"];
        assert_eq!(users(&two, "a/b"), ["docker.io/a"]);
    }

    #[test]
    fn both_forms_and_encoded_pairs_are_read() {
        let mut keyring = Keyring::default();
        keyring.add_dockercfg(br#"{"r.example":{"auth":"dTpwOnE="}}"#, None).unwrap();
        keyring
            .add_docker_config(br#"{"auths":{"r.example":{"auth":"dTpw","username":"x"}}}"#, None)
            .unwrap();
        let found = keyring.lookup("r.example/a");
        let pairs: Vec<_> = found.iter().map(|a| (&*a.auth.username, &*a.auth.password)).collect();
        assert_eq!(pairs, [("u", "p:q"), ("u", "p")]);
        for bad in [r#"{"auths":{"r":{"auth":"?"}}}"#, r#"{"auths":{"r":{"auth":"dQ"}}}"#, "x"] {
            assert!(Keyring::default().add_docker_config(bad.as_bytes(), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_file_of_the_node_counts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["broken", "second", "third", "old"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::write(at("broken/config.json"), "{").unwrap();
        let auths = |user: &str| format!(r#"{{"auths":{{"r.io":{{"username":"{user}"}}}}}}"#);
        std::fs::write(at("third/config.json"), auths("third")).unwrap();
        std::fs::write(at("old/.dockercfg"), r#"{"r.io":{"username":"old"}}"#).unwrap();
        let dirs = ["absent", "broken", "second", "third"].map(at);
        let user = |dirs: &[PathBuf]| {
            of_node(dirs, &[at("old")]).lookup("r.io/a")[0].auth.username.clone()
        };
        assert_eq!(user(&dirs), "third");
        assert_eq!(user(&dirs[..3]), "old");
    }

    #[test]
    fn a_hostile_glob_ends() {
        let glob = format!("{}b.io", "*a".repeat(200));
        let image = format!("{}.io/x", "a".repeat(4000));
        assert!(!matches(&glob, &image));
    }
}
