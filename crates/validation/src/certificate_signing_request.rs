//! CertificateSigningRequests.
//!
//! Upstream: `pkg/apis/certificates/validation`.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meta::names;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use crate::node::{Findings, Node};
use crate::{FieldError, Path, difference, printed};

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// Shortest life of a certificate that may be asked for.
const MIN_EXPIRATION_SECS: i64 = 600;
/// Longest domain of a signer's name, and its longest path: a subdomain, a dot and a label.
const MAX_DOMAIN: usize = 253;
const MAX_SIGNER: usize = MAX_DOMAIN + 1 + 253 + 63 + 1;
/// The conditions that are never taken back.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub(crate) fn create(object: &Node<'_>, out: &mut Findings) {
    validate(object, out);
}

/// A changed request. What may change depends on the subresource.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, subresource: &str, out: &mut Findings) {
    validate(new, out);
    let path = Path::new("status.conditions");
    let of = |object: &Node<'_>, kind: &str| -> Vec<serde_json::Value> {
        let list = object.get("status").get("conditions");
        let found = list.items().filter(|condition| condition.get("type").text() == kind);
        found.map(|condition| condition.value.clone()).collect()
    };
    for kind in FINAL {
        if of(new, kind).len() < of(old, kind).len() {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            out.push(FieldError::forbidden(&path, detail));
        }
    }
    if subresource != "approval" {
        for kind in &FINAL[..2] {
            let (now, before) = (of(new, kind), of(old, kind));
            if now.len() > before.len() {
                let detail = format!("updates may not add a condition of type {kind:?}");
                out.push(FieldError::forbidden(&path, detail));
            } else if now.len() == before.len() && now != before {
                let ty = "certificates/v1.CertificateSigningRequestCondition";
                let shown = |list: Vec<serde_json::Value>| printed::indented(ty, &list.into());
                let diff = difference::unified(&shown(before), &shown(now));
                let detail = format!("updates may not modify a condition of type {kind:?}\n{diff}");
                out.push(FieldError::forbidden(&path, detail));
            }
        }
    }
    let (certificate, had) =
        (new.get("status").get("certificate"), old.get("status").get("certificate"));
    if certificate.value == had.value {
        return;
    }
    if subresource != "status" {
        out.push(certificate.forbidden("updates may not set certificate content"));
    } else if !had.text().is_empty() {
        out.push(certificate.forbidden("updates may not modify existing certificate content"));
    }
}

fn validate(object: &Node<'_>, out: &mut Findings) {
    let (spec, status) = (object.get("spec"), object.get("status"));
    let request = spec.get("request");
    if let Err(why) = check_request(request.text()) {
        out.push(request.invalid_text(why));
    }
    let usages = spec.get("usages");
    if usages.len() == 0 {
        out.push(FieldError::required(&usages.path, ""));
    }
    usages.items().for_each(|usage| usage.one_of(&USAGES, out));
    let mut seen = BTreeSet::new();
    for usage in usages.items() {
        if !seen.insert(usage.text()) {
            out.push(FieldError::duplicate(&usage.path, usage.text()));
        }
    }
    let signer = spec.get("signerName");
    if signer.text() == LEGACY_SIGNER {
        out.push(signer.invalid("the legacy signerName is not allowed via this API version"));
    } else {
        signer_name(&signer, out);
    }
    let expiration = spec.get("expirationSeconds");
    if expiration.is_set() && expiration.int() < MIN_EXPIRATION_SECS {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        out.push(expiration.invalid(detail));
    }
    conditions(&status.get("conditions"), out);
    let certificate = status.get("certificate");
    if !certificate.text().is_empty()
        && let Err(why) = check_certificates(certificate.text())
    {
        out.push(certificate.invalid(why));
    }
}

fn conditions(conditions: &Node<'_>, out: &mut Findings) {
    let (mut seen, mut decisions) = (BTreeSet::new(), BTreeSet::new());
    for condition in conditions.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        kind.require(out);
        let allowed: &[&str] =
            if FINAL.contains(&kind.text()) { &["True"] } else { &["False", "True", "Unknown"] };
        status.require_one_of(allowed, out);
        if matches!(kind.text(), "Approved" | "Denied") {
            decisions.insert(kind.text());
            if decisions.len() > 1 {
                let detail = "Approved and Denied conditions are mutually exclusive";
                out.push(FieldError::invalid(&conditions.path, kind.text(), detail));
            }
        }
        if !seen.insert(kind.text()) {
            out.push(FieldError::duplicate(&kind.path, kind.text()));
        }
    }
}

/// The name of a signer: a domain and a path.
pub(crate) fn signer_name(signer: &Node<'_>, out: &mut Findings) {
    if !signer.require(out) {
        return;
    }
    let parts: Vec<&str> = signer.text().split('/').collect();
    let [domain, path] = parts[..] else {
        let detail = "must be a fully qualified domain and path of the form \
                      'example.com/signer-name'";
        out.push(signer.invalid(detail));
        return;
    };
    if domain.len() > MAX_DOMAIN {
        out.push(FieldError::too_long(&signer.path, MAX_DOMAIN));
    }
    labels(signer, domain, names::dns1123_label, out);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        out.push(FieldError::invalid(&signer.path, domain, detail));
    }
    labels(signer, path, names::dns1123_subdomain, out);
    signer.no_longer_than(MAX_SIGNER, out);
}

/// Only the first wrong label is reported.
fn labels(signer: &Node<'_>, part: &str, rule: fn(&str) -> Vec<String>, out: &mut Findings) {
    for label in part.split('.') {
        let wrong = rule(label);
        if wrong.is_empty() {
            continue;
        }
        for text in wrong {
            let detail = format!("validating label {label:?}: {text}");
            out.push(FieldError::invalid(&signer.path, part, detail));
        }
        return;
    }
}

/// The blocks of PEM that is in base64 itself.
pub(crate) fn pem_blocks(encoded: &str) -> Vec<Pem> {
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    Pem::iter_from_buffer(&bytes).filter_map(Result::ok).collect()
}

fn check_request(encoded: &str) -> Result<(), String> {
    let blocks = pem_blocks(encoded);
    let Some(block) = blocks.first().filter(|block| block.label == "CERTIFICATE REQUEST") else {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
    };
    match X509CertificationRequest::from_der(&block.contents) {
        Ok(_) => Ok(()),
        Err(_) => Err("asn1: structure error: malformed certificate request".to_owned()),
    }
}

fn check_certificates(encoded: &str) -> Result<(), String> {
    let blocks = pem_blocks(encoded);
    if blocks.is_empty() {
        return Err("must contain one or more PEM blocks".to_owned());
    }
    for block in blocks {
        if block.label != "CERTIFICATE" {
            let label = &block.label;
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {label:?}"));
        }
        if X509Certificate::from_der(&block.contents).is_err() {
            return Err("x509: malformed certificate".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tests::{check, check_update};

    const KIND: &str = "CertificateSigningRequest";
    const GROUP: &str = "certificates.k8s.io";

    fn request(spec: Value, conditions: Value) -> Value {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::default();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let mut spec = spec;
        if spec["request"].is_null() {
            spec["request"] = json!(STANDARD.encode(pem));
        }
        if spec["usages"].is_null() {
            spec["usages"] = json!(["client auth"]);
        }
        if spec["signerName"].is_null() {
            spec["signerName"] = json!("a.b/c");
        }
        json!({"metadata": {"name": "r"}, "spec": spec, "status": {"conditions": conditions}})
    }

    #[test]
    fn a_request_is_complete() {
        check(GROUP, KIND, request(json!({}), json!([])), &[]);
        check(
            GROUP,
            KIND,
            request(
                json!({"request": "YQ==", "usages": ["client auth", "client auth", "x"],
                    "signerName": "a/b", "expirationSeconds": 599}),
                json!([]),
            ),
            &[
                "spec.request: Invalid value: \"YQ==\": PEM block type must be CERTIFICATE REQUEST",
                &format!(
                    "spec.usages[2]: Unsupported value: \"x\": supported values: {}",
                    USAGES.map(|usage| format!("{usage:?}")).join(", ")
                ),
                "spec.usages[1]: Duplicate value: \"client auth\"",
                "spec.signerName: Invalid value: \"a\": should be a domain with at least two \
                 segments separated by dots",
                "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than \
                 600 seconds (10 minutes)",
            ],
        );
    }

    #[test]
    fn a_decision_is_made_once_and_by_those_who_approve() {
        let approved = json!([{"type": "Approved", "status": "True"}]);
        let (mut new, old) = (request(json!({}), approved), request(json!({}), json!([])));
        new["spec"] = old["spec"].clone();
        check_update(GROUP, KIND, "approval", (&new, &old), &[]);
        check_update(
            GROUP,
            KIND,
            "status",
            (&new, &old),
            &["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""],
        );
        check_update(
            GROUP,
            KIND,
            "approval",
            (&old, &new),
            &["status.conditions: Forbidden: updates may not remove a condition of type \
               \"Approved\""],
        );
        let both = json!([{"type": "Approved", "status": "True"},
            {"type": "Denied", "status": "False"}]);
        let mut torn = request(json!({}), both);
        torn["spec"] = old["spec"].clone();
        check_update(
            GROUP,
            KIND,
            "approval",
            (&torn, &old),
            &[
                "status.conditions[1].status: Unsupported value: \"False\": supported values: \
                 \"True\"",
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are \
                 mutually exclusive",
            ],
        );
    }

    #[test]
    fn only_signers_set_certificates() {
        let old = request(json!({}), json!([]));
        let mut new = old.clone();
        new["status"]["certificate"] = json!("eA==");
        let wrong =
            "status.certificate: Invalid value: \"eA==\": must contain one or more PEM blocks";
        check_update(GROUP, KIND, "status", (&new, &old), &[wrong]);
        check_update(
            GROUP,
            KIND,
            "approval",
            (&new, &old),
            &[wrong, "status.certificate: Forbidden: updates may not set certificate content"],
        );
    }
}
