//! Kubeconfig files, as far as a component needs them: upstream `client-go/tools/clientcmd/api/v1`.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// How the caller proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A client certificate and its key, PEM.
    Certificate {
        /// The certificate chain.
        certificate: Vec<u8>,
        /// The private key.
        key: Vec<u8>,
    },
    /// A bearer token.
    Token(String),
    /// A file with a bearer token that is replaced from time to time.
    TokenFile(PathBuf),
    /// None.
    Anonymous,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Certificate { .. } => "Certificate",
            Self::Token(_) => "Token",
            Self::TokenFile(_) => "TokenFile",
            Self::Anonymous => "Anonymous",
        })
    }
}

/// The current context of a kubeconfig file, with every file it names read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeConfig {
    /// The server's URL.
    pub server: String,
    /// The CA certificates the server's certificate must chain to, PEM.
    pub certificate_authority: Vec<u8>,
    /// The name to expect in the server's certificate, when it is not the URL's host.
    pub tls_server_name: Option<String>,
    /// Who calls.
    pub credentials: Credentials,
}

/// A kubeconfig file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a kubeconfig.
    #[error("{path} is not a kubeconfig")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A name that the file refers to is not in it.
    #[error("{path} has no {what} named {name:?}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// `context`, `cluster` or `user`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A setting that is not supported.
    #[error("{path}: {what} is not supported")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The setting.
        what: &'static str,
    },
}

impl KubeConfig {
    /// Reads the current context of a file. Relative paths in it are relative to the file.
    ///
    /// # Errors
    /// When the file, or one that it names, cannot be read or lacks something.
    pub fn load(path: &Path) -> Result<Self, KubeConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| KubeConfigError::Read { path: path.to_path_buf(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, KubeConfigError> {
        let parse_error = |source: Box<dyn std::error::Error + Send + Sync>| {
            KubeConfigError::Parse { path: path.to_path_buf(), source }
        };
        let file: File = serde_saphyr::from_str(text).map_err(|e| parse_error(Box::new(e)))?;
        let missing = |what, name: &str| KubeConfigError::Missing {
            path: path.to_path_buf(),
            what,
            name: name.to_owned(),
        };
        let context = named(&file.contexts, &file.current_context)
            .and_then(|entry| entry.context.as_ref())
            .ok_or_else(|| missing("context", &file.current_context))?;
        let cluster = named(&file.clusters, &context.cluster)
            .and_then(|entry| entry.cluster.as_ref())
            .ok_or_else(|| missing("cluster", &context.cluster))?;
        if cluster.insecure_skip_tls_verify {
            let what = "insecure-skip-tls-verify";
            return Err(KubeConfigError::Unsupported { path: path.to_path_buf(), what });
        }
        let default = User::default();
        let user = match named(&file.users, &context.user) {
            Some(entry) => entry.user.as_ref().unwrap_or(&default),
            None if context.user.is_empty() => &default,
            None => return Err(missing("user", &context.user)),
        };
        let reader = Reader { path };
        Ok(Self {
            server: cluster.server.clone(),
            certificate_authority: reader
                .data_or_file(&cluster.certificate_authority_data, &cluster.certificate_authority)?
                .unwrap_or_default(),
            tls_server_name: cluster.tls_server_name.clone(),
            credentials: reader.credentials(user)?,
        })
    }
}

struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn credentials(&self, user: &User) -> Result<Credentials, KubeConfigError> {
        if user.exec.is_some() {
            let what = "a credential plugin (exec)";
            return Err(KubeConfigError::Unsupported { path: self.path.to_path_buf(), what });
        }
        let certificate =
            self.data_or_file(&user.client_certificate_data, &user.client_certificate)?;
        let key = self.data_or_file(&user.client_key_data, &user.client_key)?;
        Ok(match (certificate, key) {
            (Some(certificate), Some(key)) => Credentials::Certificate { certificate, key },
            _ => match (&user.token_file, &user.token) {
                (Some(file), _) => Credentials::TokenFile(self.resolve(file)),
                (None, Some(token)) => Credentials::Token(token.clone()),
                (None, None) => Credentials::Anonymous,
            },
        })
    }

    fn data_or_file(
        &self,
        data: &Option<String>,
        file: &Option<PathBuf>,
    ) -> Result<Option<Vec<u8>>, KubeConfigError> {
        if let Some(data) = data {
            let bytes = STANDARD.decode(data.trim()).map_err(|e| KubeConfigError::Parse {
                path: self.path.to_path_buf(),
                source: Box::new(e),
            })?;
            return Ok(Some(bytes));
        }
        let Some(file) = file else { return Ok(None) };
        let path = self.resolve(file);
        std::fs::read(&path).map(Some).map_err(|source| KubeConfigError::Read { path, source })
    }

    fn resolve(&self, file: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }
}

fn named<'a, T: Named>(entries: &'a [T], name: &str) -> Option<&'a T> {
    entries.iter().find(|entry| entry.name() == name)
}

trait Named {
    fn name(&self) -> &str;
}

macro_rules! named_entry {
    ($entry:ident, $field:ident, $inner:ty) => {
        #[derive(Deserialize)]
        struct $entry {
            #[serde(default)]
            name: String,
            #[serde(default)]
            $field: Option<$inner>,
        }
        impl Named for $entry {
            fn name(&self) -> &str {
                &self.name
            }
        }
    };
}

named_entry!(NamedContext, context, Context);
named_entry!(NamedCluster, cluster, Cluster);
named_entry!(NamedUser, user, User);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct Context {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    exec: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KubeConfig, KubeConfigError> {
        KubeConfig::parse(Path::new("/etc/k/config"), text)
    }

    const FILE: &str = r"
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: 'https://127.0.0.1:6443', certificate-authority-data: YQ==}}]
users: [{name: u, user: {client-certificate-data: Yg==, client-key-data: Yw==}}]
";

    #[test]
    fn embedded_certificates_are_read() {
        let config = parse(FILE).unwrap();
        assert_eq!(config.server, "https://127.0.0.1:6443");
        assert_eq!(config.certificate_authority, b"a");
        let Credentials::Certificate { certificate, key } = config.credentials else { panic!() };
        assert_eq!((certificate, key), (b"b".to_vec(), b"c".to_vec()));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = parse(&FILE.replace("name: u, user", "name: other, user")).unwrap_err();
        assert_eq!(error.to_string(), "/etc/k/config has no user named \"u\"");
        let error = parse(&FILE.replace("current-context: c", "")).unwrap_err();
        assert_eq!(error.to_string(), "/etc/k/config has no context named \"\"");
    }

    #[test]
    fn unsupported_settings_are_refused() {
        let text = FILE.replace("server:", "insecure-skip-tls-verify: true, server:");
        assert!(matches!(parse(&text), Err(KubeConfigError::Unsupported { .. })));
    }

    #[test]
    fn credentials_are_not_printed() {
        let printed = format!("{:?}", parse(FILE).unwrap().credentials);
        assert_eq!(printed, "Certificate");
    }
}
