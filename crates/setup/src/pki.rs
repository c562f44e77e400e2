//! The cluster's keys and certificates, in kubeadm's layout.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::certificate::{self, KeyedCertificate, Purpose};

/// Why keys or certificates are not there.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("cannot {operation} {path}")]
    File {
        /// `read` or `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One half of a pair is missing.
    #[error("{present} is there but {missing} is not; restore it, or remove both to make new ones")]
    Half {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// A certificate cannot be made.
    #[error("cannot make certificate {name}")]
    Make {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
}

/// What the API server is called.
#[derive(Clone, Debug)]
pub struct ServingNames {
    /// The cluster's domain, such as `cluster.local`.
    pub cluster_domain: String,
    /// The node's name.
    pub node_name: String,
    /// Addresses it is reached at, the service address too.
    pub addresses: Vec<IpAddr>,
}

/// The cluster's keys and certificates.
#[derive(Debug)]
pub struct Pki {
    directory: PathBuf,
    authority: KeyedCertificate,
    front_proxy_authority: KeyedCertificate,
    now: Timestamp,
}

impl Pki {
    /// Opens a directory; makes it, its authorities and its token key when they are absent.
    ///
    /// # Errors
    /// When a file cannot be read or written, or one half of a pair is missing.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, PkiError> {
        let write =
            |source| PkiError::File { operation: "write", path: directory.to_path_buf(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(write)?;
        let make = |name: &str| {
            let made = certificate::make_authority(name, now);
            made.map_err(|source| PkiError::Make { name: name.to_owned(), source })
        };
        let authority = pair(directory, "ca", || make("kubernetes"))?;
        let front_proxy_authority = pair(directory, "front-proxy-ca", || make("front-proxy-ca"))?;
        let (key, public) = (directory.join("sa.key"), directory.join("sa.pub"));
        if !key.exists() {
            let (private_pem, public_pem) = certificate::make_signing_key()
                .map_err(|source| PkiError::Make { name: "sa".to_owned(), source })?;
            // The public half last: what is there without it is made whole below.
            write_file(&key, &private_pem, 0o600)?;
            write_file(&public, &public_pem, 0o644)?;
        } else if !public.exists() {
            return Err(PkiError::Half { present: key, missing: public });
        }
        Ok(Self { directory: directory.to_path_buf(), authority, front_proxy_authority, now })
    }

    /// The certificate of the cluster's authority, PEM.
    pub fn authority(&self) -> &str {
        &self.authority.certificate
    }

    /// Its key, PEM: for the controller that signs what is approved.
    pub fn authority_key(&self) -> &str {
        &self.authority.key
    }

    /// A certificate for a user, in a group or not. It is not kept.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<KeyedCertificate, PkiError> {
        self.make(user, &Purpose::Client(group.map(str::to_owned)))
    }

    /// The API server's serving certificate, kept as `apiserver.crt` and renewed when a name is
    /// missing or it is about to expire.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn api_server(&self, names: &ServingNames) -> Result<KeyedCertificate, PkiError> {
        let ServingNames { cluster_domain, node_name, addresses } = names;
        let mut all: Vec<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
                .map(str::to_owned)
                .into();
        all.push(format!("kubernetes.default.svc.{cluster_domain}"));
        all.push(node_name.clone());
        all.extend(addresses.iter().map(ToString::to_string));
        self.kept("apiserver", "kube-apiserver", Purpose::Server(all))
    }

    /// The certificate with which the API server calls kubelets, kept as
    /// `apiserver-kubelet-client.crt`.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn api_server_kubelet_client(&self) -> Result<KeyedCertificate, PkiError> {
        let group = Some("system:masters".to_owned());
        let (file, user) = ("apiserver-kubelet-client", "kube-apiserver-kubelet-client");
        self.kept(file, user, Purpose::Client(group))
    }

    /// The certificate with which the API server calls aggregated servers, kept as
    /// `front-proxy-client.crt`. Another authority than the cluster's signs it: who has it may say
    /// to be anybody.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn front_proxy_client(&self) -> Result<KeyedCertificate, PkiError> {
        let name = "front-proxy-client";
        self.kept_by(&self.front_proxy_authority, name, name, Purpose::Client(None))
    }

    /// The certificate of the front proxy's authority, PEM.
    pub fn front_proxy_authority(&self) -> &str {
        &self.front_proxy_authority.certificate
    }

    /// The kubelet's serving certificate, kept as `kubelet.crt`.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn kubelet(
        &self,
        node_name: &str,
        addresses: &[IpAddr],
    ) -> Result<KeyedCertificate, PkiError> {
        let mut names = vec![node_name.to_owned(), "localhost".to_owned()];
        names.extend(addresses.iter().map(ToString::to_string));
        let user = format!("system:node:{node_name}");
        self.kept("kubelet", &user, Purpose::Server(names))
    }

    /// The key that signs service account tokens, and its public half, PEM.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn token_keys(&self) -> Result<(String, String), PkiError> {
        let read = |name: &str| read_file(&self.directory.join(name));
        Ok((read("sa.key")?, read("sa.pub")?))
    }

    fn kept(&self, file: &str, name: &str, purpose: Purpose) -> Result<KeyedCertificate, PkiError> {
        self.kept_by(&self.authority, file, name, purpose)
    }

    fn kept_by(
        &self,
        authority: &KeyedCertificate,
        file: &str,
        name: &str,
        purpose: Purpose,
    ) -> Result<KeyedCertificate, PkiError> {
        let (certificate_path, key_path) = paths(&self.directory, file);
        if certificate_path.exists() && key_path.exists() {
            let kept = KeyedCertificate {
                certificate: read_file(&certificate_path)?,
                key: read_file(&key_path)?,
            };
            let names = match &purpose {
                Purpose::Server(names) => names.as_slice(),
                Purpose::Client(_) => &[],
            };
            if certificate::is_usable(&kept.certificate, &authority.certificate, names, self.now) {
                return Ok(kept);
            }
        }
        let made = self.make_by(authority, name, &purpose)?;
        // The key first: a crash in between leaves a certificate that does not fit, and no
        // certificate is taken for usable unless it is renewed together with its key.
        fs::remove_file(&certificate_path).or_else(absent_is_fine).map_err(|source| {
            PkiError::File { operation: "write", path: certificate_path.clone(), source }
        })?;
        write_file(&key_path, &made.key, 0o600)?;
        write_file(&certificate_path, &made.certificate, 0o644)?;
        Ok(made)
    }

    fn make(&self, name: &str, purpose: &Purpose) -> Result<KeyedCertificate, PkiError> {
        self.make_by(&self.authority, name, purpose)
    }

    fn make_by(
        &self,
        authority: &KeyedCertificate,
        name: &str,
        purpose: &Purpose,
    ) -> Result<KeyedCertificate, PkiError> {
        certificate::make_leaf(authority, name, purpose, self.now)
            .map_err(|source| PkiError::Make { name: name.to_owned(), source })
    }
}

/// A serving certificate for a kubelet that was given none, kept as `kubelet.crt` with the
/// authority that signed it and nothing else: its key is thrown away.
///
/// # Errors
/// When a file cannot be read or written.
pub fn self_signed_kubelet(
    directory: &Path,
    node_name: &str,
    addresses: &[IpAddr],
    now: Timestamp,
) -> Result<KeyedCertificate, PkiError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|source| {
        PkiError::File { operation: "write", path: directory.to_path_buf(), source }
    })?;
    let names: Vec<String> = std::iter::once(node_name.to_owned())
        .chain(addresses.iter().map(ToString::to_string))
        .collect();
    let (certificate_path, key_path) = paths(directory, "kubelet");
    if certificate_path.exists() && key_path.exists() {
        let certificate = read_file(&certificate_path)?;
        // The leaf stands first, its authority after it.
        let authority = certificate.rfind("-----BEGIN").map_or("", |at| &certificate[at..]);
        if certificate::is_usable(&certificate, authority, &names, now) {
            return Ok(KeyedCertificate { key: read_file(&key_path)?, certificate });
        }
        fs::remove_file(&certificate_path).map_err(|source| PkiError::File {
            operation: "write",
            path: certificate_path.clone(),
            source,
        })?;
    }
    let make = || {
        let name = format!("{node_name}-ca@{}", now.as_second());
        let authority = certificate::make_authority(&name, now)?;
        let name = format!("{node_name}@{}", now.as_second());
        let leaf = certificate::make_leaf(&authority, &name, &Purpose::Server(names), now)?;
        let certificate = leaf.certificate + &authority.certificate;
        Ok(KeyedCertificate { certificate, key: leaf.key })
    };
    pair(directory, "kubelet", || {
        make().map_err(|source| PkiError::Make { name: "kubelet".to_owned(), source })
    })
}

/// A serving certificate for a process that was given none, with the authority that signed it; it
/// is not kept.
///
/// # Errors
/// When it cannot be made.
pub fn self_signed(name: &str, now: Timestamp) -> Result<KeyedCertificate, PkiError> {
    let make = || {
        let names = vec![name.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
        let authority = certificate::make_authority(&format!("{name}-ca"), now)?;
        let leaf = certificate::make_leaf(&authority, name, &Purpose::Server(names), now)?;
        let certificate = leaf.certificate + &authority.certificate;
        Ok(KeyedCertificate { certificate, key: leaf.key })
    };
    make().map_err(|source| PkiError::Make { name: name.to_owned(), source })
}

/// Reads a certificate and its key, or makes and writes both.
fn pair(
    directory: &Path,
    name: &str,
    make: impl FnOnce() -> Result<KeyedCertificate, PkiError>,
) -> Result<KeyedCertificate, PkiError> {
    let (certificate, key) = paths(directory, name);
    match (certificate.exists(), key.exists()) {
        (true, true) => {
            Ok(KeyedCertificate { certificate: read_file(&certificate)?, key: read_file(&key)? })
        }
        // A key alone is what a crash in between leaves: nothing was signed with it yet.
        (false, _) => {
            let made = make()?;
            write_file(&key, &made.key, 0o600)?;
            write_file(&certificate, &made.certificate, 0o644)?;
            Ok(made)
        }
        (true, false) => Err(PkiError::Half { present: certificate, missing: key }),
    }
}

fn paths(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")))
}

fn read_file(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::File {
        operation: "read",
        path: path.to_path_buf(),
        source,
    })
}

fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    stdx::atomic_file::write(path, text.as_bytes(), mode).map_err(|source| PkiError::File {
        operation: "write",
        path: path.to_path_buf(),
        source,
    })
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn names(address: &str) -> ServingNames {
        ServingNames {
            cluster_domain: "cluster.local".into(),
            node_name: "n1".into(),
            addresses: vec![address.parse().unwrap()],
        }
    }

    #[test]
    fn a_kubelet_keeps_the_certificate_it_made_for_itself() {
        let directory = tempfile::tempdir().unwrap();
        let address = |text: &str| [text.parse().unwrap()];
        let make = |address: &[IpAddr]| {
            self_signed_kubelet(directory.path(), "n1", address, now()).unwrap().certificate
        };
        let first = make(&address("10.0.0.1"));
        assert_eq!(first.matches("-----BEGIN CERTIFICATE").count(), 2);
        assert_eq!(make(&address("10.0.0.1")), first);
        assert_ne!(make(&address("10.0.0.2")), first, "another address is wanted");
        let mode = fs::metadata(directory.path().join("kubelet.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_there_is_kept_and_keys_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let first = Pki::open(directory.path(), now()).unwrap();
        let serving = first.api_server(&names("10.0.0.1")).unwrap();
        let second = Pki::open(directory.path(), now()).unwrap();
        assert_eq!(first.authority(), second.authority());
        let same = second.api_server(&names("10.0.0.1")).unwrap();
        assert_eq!(serving.certificate, same.certificate);
        let other = second.api_server(&names("10.0.0.2")).unwrap();
        assert_ne!(serving.certificate, other.certificate, "it lacked an address");
        assert_eq!(first.token_keys().unwrap(), second.token_keys().unwrap());
        for entry in fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "key") {
                let mode = fs::metadata(&path).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{}", path.display());
            }
        }
    }

    #[test]
    fn an_authority_without_its_key_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        Pki::open(directory.path(), now()).unwrap();
        fs::remove_file(directory.path().join("ca.key")).unwrap();
        let error = Pki::open(directory.path(), now()).unwrap_err();
        assert!(matches!(error, PkiError::Half { .. }), "{error}");
    }
}
