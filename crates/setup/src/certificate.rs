//! Making and judging certificates.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

/// kubeadm's lifetimes: ten years for authorities, one year for the rest.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// A certificate with less than this left is renewed at start, so that a cluster that is restarted
/// every quarter never meets an expired one.
const RENEW_BEFORE: Duration = Duration::from_secs(90 * 86_400);
/// A clock that is set back must not make the cluster unreachable: hosts that take local time for
/// UTC at boot are wrong by up to 14 hours.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct KeyedCertificate {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for KeyedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedCertificate { .. }")
    }
}

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A server at these names and addresses.
    Server(Vec<String>),
    /// A client in this group, if any.
    Client(Option<String>),
}

pub(crate) fn make_authority(name: &str, now: Timestamp) -> Result<KeyedCertificate, rcgen::Error> {
    let mut params = named(name, now, CA_LIFETIME)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok(KeyedCertificate { certificate: certificate.pem(), key: key.serialize_pem() })
}

pub(crate) fn make_leaf(
    authority: &KeyedCertificate,
    name: &str,
    purpose: &Purpose,
    now: Timestamp,
) -> Result<KeyedCertificate, rcgen::Error> {
    let mut params = named(name, now, LEAF_LIFETIME)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.use_authority_key_identifier_extension = true;
    match purpose {
        Purpose::Server(names) => {
            params.subject_alt_names = CertificateParams::new(names.clone())?.subject_alt_names;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
        Purpose::Client(group) => {
            if let Some(group) = group {
                params.distinguished_name.push(DnType::OrganizationName, group.clone());
            }
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
    }
    let issuer_key = KeyPair::from_pem(&authority.key)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, issuer_key)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(KeyedCertificate { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A new key for a certificate.
pub(crate) fn make_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

/// A request for a client certificate of a user in a group, PEM.
pub(crate) fn make_request(key: &KeyPair, user: &str, group: &str) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, user);
    params.serialize_request(key)?.pem()
}

/// Whether now is within the time in which a certificate, the first of these in PEM, is valid.
pub fn is_current(certificate: &[u8], now: Timestamp) -> bool {
    let Ok((_, pem)) = parse_x509_pem(certificate) else { return false };
    let Ok(leaf) = pem.parse_x509() else { return false };
    let validity = leaf.validity();
    (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now.as_second())
}

/// A key pair for signing tokens: private and public, PEM.
pub(crate) fn make_signing_key() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

/// Whether a certificate can go on being used: readable, from this authority, for all these names,
/// and not about to expire.
pub(crate) fn is_usable(
    certificate: &str,
    authority: &str,
    names: &[String],
    now: Timestamp,
) -> bool {
    let Ok((_, pem)) = parse_x509_pem(certificate.as_bytes()) else { return false };
    let Ok(leaf) = pem.parse_x509() else { return false };
    let Ok((_, authority_pem)) = parse_x509_pem(authority.as_bytes()) else { return false };
    let Ok(issuer) = authority_pem.parse_x509() else { return false };
    let left = leaf.validity().not_after.timestamp() - now.as_second();
    let begun = leaf.validity().not_before.timestamp() <= now.as_second();
    let lasts = u64::try_from(left).is_ok_and(|left| left > RENEW_BEFORE.as_secs());
    let same_key = leaf.extensions().iter().find_map(|extension| {
        use x509_parser::extensions::ParsedExtension;
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.clone(),
            _ => None,
        }
    });
    let issuer_key = issuer.extensions().iter().find_map(|extension| {
        use x509_parser::extensions::ParsedExtension;
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.clone()),
            _ => None,
        }
    });
    begun && lasts && same_key.is_some() && same_key == issuer_key && has_names(&leaf, names)
}

fn has_names(leaf: &x509_parser::certificate::X509Certificate<'_>, names: &[String]) -> bool {
    use x509_parser::extensions::GeneralName;
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let present: Vec<String> = alternatives
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes {
                [a, b, c, d] => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
                bytes => <[u8; 16]>::try_from(*bytes)
                    .ok()
                    .map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
            },
            _ => None,
        })
        .collect();
    names.iter().all(|name| present.contains(name))
}

fn named(
    name: &str,
    now: Timestamp,
    lifetime: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.to_owned());
    let now = OffsetDateTime::from_unix_timestamp(now.as_second())
        .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    params.not_before = now - BACKDATE;
    params.not_after = now + lifetime;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * 86_400).unwrap()
    }

    #[test]
    fn a_certificate_is_usable_until_it_is_about_to_expire() {
        let authority = make_authority("ca", at(0)).unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = make_leaf(&authority, "s", &Purpose::Server(names.clone()), at(0)).unwrap();
        let usable = |names: &[String], now| {
            is_usable(&leaf.certificate, &authority.certificate, names, now)
        };
        assert!(usable(&names, at(0)));
        assert!(usable(&names, at(274)));
        assert!(!usable(&names, at(276)), "less than 90 days are left");
        assert!(usable(&names, at(-1)), "a clock may be set back by hours");
        assert!(!usable(&names, at(-2)), "it is of the future");
        assert!(!usable(&["10.0.0.1".to_owned()], at(0)), "another name is wanted");
        let other = make_authority("ca", at(0)).unwrap();
        assert!(!is_usable(&leaf.certificate, &other.certificate, &names, at(0)));
        assert!(!is_usable("nonsense", &authority.certificate, &names, at(0)));
    }
}
