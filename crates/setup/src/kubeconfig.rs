//! Kubeconfig files: a component's own, and the context in a user's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::KeyedCertificate;

/// How a server is reached, and as whom.
pub struct Access<'a> {
    /// The server's URL.
    pub server: &'a str,
    /// The certificate of its authority, PEM.
    pub authority: &'a str,
    /// The caller's certificate and key.
    pub client: &'a KeyedCertificate,
}

/// Why a kubeconfig was not written.
#[derive(Debug, thiserror::Error)]
pub enum KubeConfigError {
    /// The file cannot be read or written.
    #[error("cannot {operation} kubeconfig {path}")]
    File {
        /// `read` or `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file that is there is not a kubeconfig, so it is left alone.
    #[error(
        "{path} is not a kubeconfig, so nothing was added to it; choose another file with --kubeconfig"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Why, when it is not even YAML.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// Writes a file with one context, named `name`, mode 0600.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, name: &str, access: &Access<'_>) -> Result<(), KubeConfigError> {
    let mut config = json!({ "apiVersion": "v1", "kind": "Config", "preferences": {} });
    merge(&mut config, name, access);
    save(path, &config)
}

/// Adds or replaces the cluster, user and context called `name` in a user's file, and makes it the
/// current one if there is no other. Everything else in the file stays.
///
/// # Errors
/// When the file is not a kubeconfig or cannot be written; it is unchanged then.
pub fn merge_into(path: &Path, name: &str, access: &Access<'_>) -> Result<(), KubeConfigError> {
    let mut config = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return write(path, name, access),
        Err(source) => {
            return Err(KubeConfigError::File { operation: "read", path: path.into(), source });
        }
        Ok(text) if text.trim().is_empty() => return write(path, name, access),
        Ok(text) => serde_saphyr::from_str::<Value>(&text).map_err(|error| {
            KubeConfigError::Foreign { path: path.into(), source: Some(Box::new(error)) }
        })?,
    };
    let is_kubeconfig = config.is_object()
        && ["clusters", "users", "contexts"]
            .iter()
            .all(|list| config.get(*list).is_none_or(|value| value.is_array() || value.is_null()));
    if !is_kubeconfig {
        return Err(KubeConfigError::Foreign { path: path.into(), source: None });
    }
    let before = config.clone();
    merge(&mut config, name, access);
    if config == before { Ok(()) } else { save(path, &config) }
}

/// Removes the cluster, user and context called `name` from a user's file.
///
/// # Errors
/// When the file cannot be read or written. A file that is absent or not a kubeconfig is fine.
pub fn remove_from(path: &Path, name: &str) -> Result<(), KubeConfigError> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(()) };
    let Ok(mut config) = serde_saphyr::from_str::<Value>(&text) else { return Ok(()) };
    let before = config.clone();
    for list in ["clusters", "users", "contexts"] {
        if let Some(entries) = config.get_mut(list).and_then(Value::as_array_mut) {
            entries.retain(|entry| entry["name"] != name);
        }
    }
    if config["current-context"] == name {
        config["current-context"] = json!("");
    }
    if config == before { Ok(()) } else { save(path, &config) }
}

fn merge(config: &mut Value, name: &str, access: &Access<'_>) {
    let encode = |pem: &str| STANDARD.encode(pem);
    let cluster = json!({
        "server": access.server,
        "certificate-authority-data": encode(access.authority),
    });
    let user = json!({
        "client-certificate-data": encode(&access.client.certificate),
        "client-key-data": encode(&access.client.key),
    });
    let context = json!({ "cluster": name, "user": name });
    for (list, kind, value) in [
        ("clusters", "cluster", cluster),
        ("users", "user", user),
        ("contexts", "context", context),
    ] {
        let entry = json!({ "name": name, kind: value });
        if !config[list].is_array() {
            config[list] = json!([]);
        }
        let Some(entries) = config[list].as_array_mut() else { continue };
        match entries.iter_mut().find(|entry| entry["name"] == name) {
            Some(existing) => *existing = entry,
            None => entries.push(entry),
        }
    }
    if config["current-context"].as_str().is_none_or(str::is_empty) {
        config["current-context"] = json!(name);
    }
}

fn save(path: &Path, config: &Value) -> Result<(), KubeConfigError> {
    let error = |source| KubeConfigError::File { operation: "write", path: path.into(), source };
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(error)?;
    }
    let yaml = serde_saphyr::to_string(config).map_err(|e| error(io::Error::other(e)))?;
    stdx::atomic_file::write(path, yaml.as_bytes(), 0o600).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> KeyedCertificate {
        KeyedCertificate { certificate: "cert".into(), key: "key".into() }
    }

    fn access(client: &KeyedCertificate) -> Access<'_> {
        Access { server: "https://127.0.0.1:6443", authority: "ca", client }
    }

    fn read(path: &Path) -> Value {
        serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn other_contexts_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/config");
        let client = client();
        write(&path, "other", &access(&client)).unwrap();
        merge_into(&path, "ironclad", &access(&client)).unwrap();
        merge_into(&path, "ironclad", &access(&client)).unwrap();
        let config = read(&path);
        assert_eq!(config["current-context"], "other");
        assert_eq!(config["contexts"].as_array().unwrap().len(), 2);
        remove_from(&path, "ironclad").unwrap();
        assert_eq!(read(&path)["users"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        for foreign in ["- a\n- b\n", "clusters: 5\n", "{"] {
            fs::write(&path, foreign).unwrap();
            let client = client();
            let error = merge_into(&path, "ironclad", &access(&client)).unwrap_err();
            assert!(matches!(error, KubeConfigError::Foreign { .. }));
            assert_eq!(fs::read_to_string(&path).unwrap(), foreign);
        }
    }
}
