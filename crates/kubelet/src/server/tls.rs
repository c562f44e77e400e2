//! TLS of the HTTPS endpoint.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{KubeletError, ServingTls};

/// The configuration. Clients may show a certificate and need not.
pub(crate) fn server_config(tls: &ServingTls) -> Result<Arc<rustls::ServerConfig>, KubeletError> {
    make(tls).map(Arc::new).map_err(KubeletError::Certificate)
}

fn make(
    tls: &ServingTls,
) -> Result<rustls::ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain =
        CertificateDer::pem_slice_iter(&tls.certificate_pem).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&tls.key_pem)?;
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&tls.client_ca_pem) {
        roots.add(certificate?)?;
    }
    let builder = if roots.is_empty() {
        builder.with_no_client_auth()
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
