//! What is in a signing request, and whether it is one that a kubelet makes.
//!
//! Upstream: `ValidateKubeletClientCSR`, `ValidateKubeletServingCSR` in
//! `pkg/apis/certificates/helpers.go`.

use std::net::IpAddr;

use rcgen::string::Ia5String;
use rcgen::{SanType, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

/// The parts that are judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) dns_names: usize,
    pub(super) addresses: usize,
    pub(super) emails: usize,
    pub(super) uris: usize,
}

/// What a certificate is made of.
pub(super) struct Wanted {
    /// As it was asked for, in DER.
    pub(super) subject: Vec<u8>,
    pub(super) names: Vec<SanType>,
    pub(super) key: SubjectPublicKeyInfo,
}

/// Reads a request in PEM that whoever has its key has signed.
pub(super) fn wanted(pem: &[u8]) -> Result<Wanted, String> {
    let der = der(pem)?;
    let (_, request) =
        X509CertificationRequest::from_der(&der).map_err(|error| unreadable(&error))?;
    request.verify_signature().map_err(|error| unreadable(&error))?;
    let info = &request.certification_request_info;
    let mut names = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(asked) = extension else { continue };
        for name in &asked.general_names {
            names.extend(alternative(name)?);
        }
    }
    let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw);
    Ok(Wanted {
        subject: info.subject.as_raw().to_vec(),
        names,
        key: key.map_err(|error| unreadable(&error))?,
    })
}

/// Names of sorts that upstream does not sign are left out.
fn alternative(name: &GeneralName<'_>) -> Result<Option<SanType>, String> {
    let text = |text: &str| Ia5String::try_from(text).map_err(|error| unreadable(&error));
    Ok(Some(match name {
        GeneralName::DNSName(name) => SanType::DnsName(text(name)?),
        GeneralName::RFC822Name(name) => SanType::Rfc822Name(text(name)?),
        GeneralName::URI(name) => SanType::URI(text(name)?),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            SanType::IpAddress(address.map_err(|error| unreadable(&error))?)
        }
        _ => return Ok(None),
    }))
}

fn unreadable(error: &dyn std::fmt::Display) -> String {
    format!("unable to parse csr: {error}")
}

fn der(pem: &[u8]) -> Result<Vec<u8>, String> {
    let (_, pem) = parse_x509_pem(pem).map_err(|error| unreadable(&error))?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
    }
    Ok(pem.contents)
}

/// Reads a request in PEM.
pub(super) fn parse(pem: &[u8]) -> Result<Subject, String> {
    let der = der(pem)?;
    let (_, request) =
        X509CertificationRequest::from_der(&der).map_err(|error| unreadable(&error))?;
    let name = &request.certification_request_info.subject;
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        value.as_str().unwrap_or_default().to_owned()
    };
    let mut subject = Subject {
        common_name: name.iter_common_name().next().map(text).unwrap_or_default(),
        organizations: name.iter_organization().map(text).collect(),
        ..Subject::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(_) => subject.dns_names += 1,
                GeneralName::IPAddress(_) => subject.addresses += 1,
                GeneralName::RFC822Name(_) => subject.emails += 1,
                GeneralName::URI(_) => subject.uris += 1,
                _ => {}
            }
        }
    }
    Ok(subject)
}

/// Why a request is not one for a kubelet's client certificate.
pub(super) fn check_kubelet_client(subject: &Subject, usages: &[String]) -> Result<(), String> {
    check_node(subject)?;
    let none = [
        (subject.dns_names, "DNS subjectAltNames are not allowed"),
        (subject.emails, "Email subjectAltNames are not allowed"),
        (subject.addresses, "IP subjectAltNames are not allowed"),
        (subject.uris, "URI subjectAltNames are not allowed"),
    ];
    if let Some((_, why)) = none.iter().find(|(count, _)| *count > 0) {
        return Err((*why).to_owned());
    }
    check_usages(usages, "client auth")
}

/// Why a request is not one for a kubelet's serving certificate.
pub(super) fn check_kubelet_serving(subject: &Subject, usages: &[String]) -> Result<(), String> {
    check_node(subject)?;
    if subject.dns_names + subject.addresses == 0 {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    if subject.emails > 0 {
        return Err("Email subjectAltNames are not allowed".to_owned());
    }
    if subject.uris > 0 {
        return Err("URI subjectAltNames are not allowed".to_owned());
    }
    check_usages(usages, "server auth")
}

/// Why a request is not one for a client of the API server.
pub(super) fn check_client(usages: &[String]) -> Result<(), String> {
    let allowed = ["client auth", "digital signature", "key encipherment"];
    let fits = usages.iter().all(|usage| allowed.contains(&usage.as_str()));
    if fits && usages.iter().any(|usage| usage == "client auth") {
        return Ok(());
    }
    Err(format!("usages did not match {usages:?}"))
}

fn check_node(subject: &Subject) -> Result<(), String> {
    if subject.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes".to_owned());
    }
    if !subject.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node: ".to_owned());
    }
    Ok(())
}

/// Both, and of other usages the encipherment of keys alone.
fn check_usages(usages: &[String], auth: &str) -> Result<(), String> {
    let is_there = |wanted: &str| usages.iter().any(|usage| usage == wanted);
    let allowed = [auth, "digital signature", "key encipherment"];
    let fits = usages.iter().all(|usage| allowed.contains(&usage.as_str()));
    if fits && is_there(auth) && is_there("digital signature") {
        return Ok(());
    }
    Err(format!("usages did not match [{auth} digital signature]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Subject {
        Subject {
            common_name: "system:node:a".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            ..Subject::default()
        }
    }

    fn usages(list: &[&str]) -> Vec<String> {
        list.iter().map(|usage| (*usage).to_owned()).collect()
    }

    #[test]
    fn kubelets_ask_for_what_only_they_may_have() {
        let client = usages(&["client auth", "digital signature"]);
        let check = |change: fn(&mut Subject)| {
            let mut subject = node();
            change(&mut subject);
            check_kubelet_client(&subject, &client)
        };
        assert_eq!(check(|_| ()), Ok(()));
        assert!(check(|subject| subject.dns_names = 1).is_err());
        assert!(check(|subject| subject.organizations.push("system:masters".to_owned())).is_err());
        assert!(check(|subject| subject.common_name = "admin".to_owned()).is_err());
        let more = usages(&["client auth", "digital signature", "cert sign"]);
        assert!(check_kubelet_client(&node(), &more).is_err());
        let serving = usages(&["server auth", "digital signature", "key encipherment"]);
        assert!(check_kubelet_serving(&node(), &serving).is_err(), "it needs a name");
        let named = Subject { addresses: 1, ..node() };
        assert_eq!(check_kubelet_serving(&named, &serving), Ok(()));
        assert!(check_kubelet_serving(&named, &client).is_err());
    }

    #[test]
    fn clients_may_be_nothing_else() {
        assert_eq!(check_client(&usages(&["client auth"])), Ok(()));
        assert!(check_client(&usages(&["digital signature"])).is_err());
        assert!(check_client(&usages(&["client auth", "server auth"])).is_err());
    }

    #[test]
    fn a_request_is_read() {
        let mut params = rcgen::CertificateParams::new(vec!["host".to_owned()]).unwrap();
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::CommonName, "system:node:a");
        name.push(rcgen::DnType::OrganizationName, "system:nodes");
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let subject = parse(pem.as_bytes()).unwrap();
        assert_eq!(subject, Subject { dns_names: 1, ..node() });
        assert!(parse(b"nonsense").is_err());
    }
}
