//! Users from client certificates: the common name is the user, organizations are groups.
//!
//! The chain has been verified by TLS before; this only reads the subject.

use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::user::UserInfo;

/// A certificate that names nobody.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    /// Not DER.
    #[error("the client certificate cannot be parsed")]
    Malformed,
    /// No common name.
    #[error("the client certificate has no common name")]
    NoCommonName,
}

/// The common name in a certificate.
pub fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

/// The user a verified client certificate stands for.
///
/// # Errors
/// When the subject cannot be read or has no common name.
pub fn user_from_certificate(der: &[u8]) -> Result<UserInfo, BadCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| BadCertificate::Malformed)?;
    let subject = certificate.subject();
    let name = subject
        .iter_common_name()
        .next()
        .and_then(|attribute| attribute.as_str().ok())
        .filter(|name| !name.is_empty())
        .ok_or(BadCertificate::NoCommonName)?;
    let mut user = UserInfo::new(name, &[]);
    user.groups = subject
        .iter_organization()
        .filter_map(|attribute| attribute.as_str().ok().map(str::to_owned))
        .collect();
    let hash: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
    user.extra.insert(
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("X509SHA256={hash}")],
    );
    Ok(user)
}
