//! What a node asks for when it joins: a certificate for a key of its own.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use sha2::{Digest, Sha256};

use crate::certificate::{self, KeyedCertificate};
use crate::pki::PkiError;

/// Characters of a digest in a request's name: enough that two keys have two names.
const DIGEST_CHARACTERS: usize = 32;

/// A request for a client certificate of a node.
pub struct NodeRequest {
    /// Its name, the same for the same key.
    pub name: String,
    /// The key, and the request in the certificate's place, PEM.
    pub keyed: KeyedCertificate,
    key_path: PathBuf,
}

impl NodeRequest {
    /// The certificate is where it belongs, so the next request has another key.
    pub fn done(self) {
        // If it stays, the next request finds the certificate of this one, which is valid or not
        // whatever its key is.
        fs::remove_file(self.key_path).ok();
    }
}

/// The request of a node for its key, which is kept in the directory until it is [done].
///
/// [done]: NodeRequest::done
///
/// # Errors
/// When a file cannot be read or written.
pub fn node_request(directory: &Path, node_name: &str) -> Result<NodeRequest, PkiError> {
    let make = |source| PkiError::Make { name: format!("system:node:{node_name}"), source };
    let file = |operation, path: &Path| {
        let path = path.to_path_buf();
        move |source| PkiError::File { operation, path, source }
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(file("write", directory))?;
    let key_path = directory.join("kubelet-client.key.tmp");
    let key = match fs::read_to_string(&key_path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(make)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = certificate::make_key().map_err(make)?;
            stdx::atomic_file::write(&key_path, key.serialize_pem().as_bytes(), 0o600)
                .map_err(file("write", &key_path))?;
            key
        }
        Err(source) => return Err(file("read", &key_path)(source)),
    };
    let user = format!("system:node:{node_name}");
    let request = certificate::make_request(&key, &user, "system:nodes").map_err(make)?;
    let mut digest = Sha256::new();
    digest.update(key.public_key_pem());
    digest.update(&user);
    let name: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(NodeRequest {
        name: format!("node-csr-{}", &name[..DIGEST_CHARACTERS]),
        keyed: KeyedCertificate { certificate: request, key: key.serialize_pem() },
        key_path,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_request_has_the_same_key_and_name_until_it_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let first = node_request(directory.path(), "n1").unwrap();
        assert!(first.keyed.certificate.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
        let mode = fs::metadata(&first.key_path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = node_request(directory.path(), "n1").unwrap();
        assert_eq!((&again.name, &again.keyed.key), (&first.name, &first.keyed.key));
        assert_ne!(node_request(directory.path(), "n2").unwrap().name, first.name);
        let key = again.keyed.key.clone();
        again.done();
        assert_ne!(node_request(directory.path(), "n1").unwrap().keyed.key, key);
    }
}
