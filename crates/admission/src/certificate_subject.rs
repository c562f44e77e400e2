//! CertificateSubjectRestriction: nobody gets a client certificate of `system:masters` by asking.
//!
//! Upstream: `plugin/pkg/admission/certificates/subjectrestriction`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meta::Status;
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use crate::chain::Plugin;
use crate::refusal::forbidden;
use crate::request::{Operation, Request, View};

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

pub(crate) struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        _old: Option<&Value>,
        _view: &dyn View,
    ) -> Result<(), Status> {
        let is_for = request.is_for("certificates.k8s.io", "certificatesigningrequests");
        let Some(object) = object.filter(|_| is_for && request.operation == Operation::Create)
        else {
            return Ok(());
        };
        if object["spec"]["signerName"] != SIGNER {
            return Ok(());
        }
        let encoded = object["spec"]["request"].as_str().unwrap_or_default();
        let pem = STANDARD.decode(encoded).unwrap_or_default();
        if organizations(&pem).iter().any(|organization| organization == MASTERS) {
            let why = format!("use of {SIGNER} signer with {MASTERS} group is not allowed");
            return Err(forbidden(request, &why));
        }
        Ok(())
    }
}

/// What is not a request is for validation to refuse.
fn organizations(pem: &[u8]) -> Vec<String> {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem) else { return Vec::new() };
    let Ok((_, request)) = X509CertificationRequest::from_der(&pem.contents) else {
        return Vec::new();
    };
    let subject = &request.certification_request_info.subject;
    let organizations = subject.iter_organization();
    organizations.filter_map(|attribute| attribute.as_str().ok().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn organizations_are_read_from_a_request() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, MASTERS);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        assert_eq!(organizations(pem.as_bytes()), [MASTERS]);
        assert!(organizations(b"nonsense").is_empty());
    }
}
