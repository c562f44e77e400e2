//! TLS towards registries.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use stdx::any_certificate::AnyCertificate;

/// Where the systems that there are keep the authorities they trust.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How a host is known, and what it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    /// Files of authorities that are trusted beside those of the system.
    pub(crate) authorities: Vec<std::path::PathBuf>,
    /// Files of a certificate and its key, which may be one.
    pub(crate) certificate: Option<(std::path::PathBuf, std::path::PathBuf)>,
    /// Whether anything is believed.
    pub(crate) skip_verify: bool,
}

/// The configuration by the settings; files are read anew each time.
pub(crate) fn client_config(settings: &TlsSettings) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = if settings.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(roots(settings)?)
    };
    let Some((certificate, key)) = &settings.certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{key:?}: {error}"))?;
    Ok(builder.with_client_auth_cert(chain, key)?)
}

fn roots(settings: &TlsSettings) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if let Some(bundle) = BUNDLES.iter().map(Path::new).find(|path| path.exists()) {
        // Some of a system's authorities may be too old to be understood.
        roots.add_parsable_certificates(certificates(bundle)?);
    }
    for file in &settings.authorities {
        for certificate in certificates(file)? {
            roots.add(certificate)?;
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| format!("{path:?}: {error}"))?;
    Ok(read.collect::<Result<_, _>>().map_err(|error| format!("{path:?}: {error}"))?)
}
