//! TLS towards registries.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use stdx::tls::{AnyCertificate, certificates, system_authorities};

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
    let mut roots = system_authorities()?;
    for file in &settings.authorities {
        for certificate in certificates(file)? {
            roots.add(certificate)?;
        }
    }
    Ok(roots)
}
