//! TLS of the server, and of its own connections to kubelets.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use stdx::tls::AnyCertificate;

use crate::config::{Config, Pki, StartError};

/// TLS for those who connect; client certificates are asked for and need not come.
pub(crate) fn server_config(pki: &Pki) -> Result<ServerConfig, StartError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = certificates(&pki.serving_certificate, "serving certificate")?;
    let key = private_key(&pki.serving_key, "serving key")?;
    let mut authorities = roots(&pki.client_ca, "client CA")?;
    if !pki.front_proxy_ca.is_empty() {
        authorities.roots.extend(roots(&pki.front_proxy_ca, "request header client CA")?.roots);
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| unusable("client CA", error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS configuration", error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| unusable("serving certificate", error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Tells by the certificate who is at the other end of a connection. TLS has verified that one of the
/// authorities issued it; this says which.
pub(crate) struct Peers {
    clients: Arc<dyn ClientCertVerifier>,
    front_proxies: Option<(Arc<dyn ClientCertVerifier>, authn::RequestHeader)>,
}

impl Peers {
    pub(crate) fn new(config: &Config) -> Result<Self, StartError> {
        let verifier = |pem: &[u8], what| -> Result<Arc<dyn ClientCertVerifier>, StartError> {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let authorities = Arc::new(roots(pem, what)?);
            WebPkiClientVerifier::builder_with_provider(authorities, provider)
                .build()
                .map_err(|error| unusable(what, error))
        };
        let pki = &config.pki;
        let front_proxies = match pki.front_proxy_ca.as_slice() {
            [] => None,
            pem => {
                Some((verifier(pem, "request header client CA")?, config.request_header.clone()))
            }
        };
        Ok(Self { clients: verifier(&pki.client_ca, "client CA")?, front_proxies })
    }

    pub(crate) fn know(&self, chain: &[CertificateDer<'static>], now: Timestamp) -> authn::Peer {
        let Some((own, others)) = chain.split_first() else { return authn::Peer::default() };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(
            u64::try_from(now.as_second()).unwrap_or(0),
        ));
        let is_by = |verifier: &Arc<dyn ClientCertVerifier>| {
            verifier.verify_client_cert(own, others, now).is_ok()
        };
        // With one kind of authority TLS has said it already.
        let is_client = self.front_proxies.is_none() || is_by(&self.clients);
        let is_front_proxy = self.front_proxies.as_ref().is_some_and(|(verifier, header)| {
            is_by(verifier) && authn::common_name(own).is_some_and(|name| header.allows(&name))
        });
        authn::Peer {
            certified: is_client.then(|| authn::Authenticator::certified(own)).flatten(),
            is_front_proxy,
            is_foreign: !is_client,
        }
    }
}

/// TLS towards kubelets; `None` when there is no certificate to show them.
pub(crate) fn kubelet_config(pki: &Pki) -> Result<Option<Arc<ClientConfig>>, StartError> {
    if pki.kubelet_client_certificate.is_empty() {
        return Ok(None);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = certificates(&pki.kubelet_client_certificate, "kubelet client certificate")?;
    let key = private_key(&pki.kubelet_client_key, "kubelet client key")?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS configuration", error))?;
    let builder = if pki.kubelet_ca.is_empty() {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(roots(&pki.kubelet_ca, "kubelet CA")?)
    };
    let config = builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| unusable("kubelet client certificate", error))?;
    Ok(Some(Arc::new(config)))
}

/// TLS towards a webhook: only the authorities of its bundle (base64 of PEM) are trusted.
pub(crate) fn webhook_config(bundle: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    let pem = base64::engine::general_purpose::STANDARD
        .decode(bundle.unwrap_or_default())
        .map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Whether a bundle (PEM in base64) has an authority, or nothing at all.
pub(crate) fn is_bundle(bundle: &str) -> bool {
    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(bundle) else { return false };
    let mut roots = RootCertStore::empty();
    pem.is_empty() || CertificateDer::pem_slice_iter(&pem).flatten().any(|it| roots.add(it).is_ok())
}

/// TLS towards an aggregated server, with the certificate of the front proxy. Trusted are the
/// authorities of a bundle (PEM), or anybody without one.
pub(crate) fn aggregated_config(
    pki: &Pki,
    bundle: Option<&[u8]>,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match bundle {
        None => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        }
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem).flatten() {
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let mut config = if pki.proxy_client_certificate.is_empty() {
        builder.with_no_client_auth()
    } else {
        let show = |error: StartError| telemetry::Chain(&error).to_string();
        let what = "front proxy certificate";
        let chain = certificates(&pki.proxy_client_certificate, what).map_err(show)?;
        let key = private_key(&pki.proxy_client_key, what).map_err(show)?;
        builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn unusable(
    what: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StartError {
    StartError::Pki { what, source: source.into() }
}

fn certificates(
    pem: &[u8],
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = parsed.map_err(|error| unusable(what, error))?;
    if chain.is_empty() {
        return Err(unusable(what, "there is no certificate in it"));
    }
    Ok(chain)
}

fn private_key(pem: &[u8], what: &'static str) -> Result<PrivateKeyDer<'static>, StartError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| unusable(what, error))
}

fn roots(pem: &[u8], what: &'static str) -> Result<RootCertStore, StartError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, what)? {
        roots.add(certificate).map_err(|error| unusable(what, error))?;
    }
    Ok(roots)
}
