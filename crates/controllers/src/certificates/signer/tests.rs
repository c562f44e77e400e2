//! What is signed, and how.

use rcgen::{BasicConstraints, CertificateParams, DnType};
use x509_parser::pem::parse_x509_pem;

use super::*;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "ca");
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let lifetime = SignedDuration::from_hours(24);
    Authority { certificate, key: key.serialize_pem(), lifetime }
}

fn asked(signer: &str, usages: &[&str], seconds: Option<i32>) -> CertificateSigningRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "jane");
    params.distinguished_name.push(DnType::OrganizationName, "staff");
    let key = KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = k8s_openapi::ByteString(pem.into_bytes());
    let value = json!({ "metadata": { "name": "jane" }, "spec": { "request": request,
        "signerName": signer, "usages": usages, "expirationSeconds": seconds } });
    serde_json::from_value(value).unwrap()
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

#[test]
fn a_client_gets_a_certificate_for_what_it_asked() {
    let found = asked(KUBE_APISERVER_CLIENT, &["client auth", "digital signature"], Some(3600));
    let signed = sign(&found, &authority(), now()).unwrap();
    let (_, pem) = parse_x509_pem(signed.as_bytes()).unwrap();
    let leaf = pem.parse_x509().unwrap();
    assert_eq!(leaf.subject().iter_common_name().next().unwrap().as_str().unwrap(), "jane");
    assert_eq!(leaf.subject().iter_organization().next().unwrap().as_str().unwrap(), "staff");
    assert!(!leaf.is_ca());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    let validity = leaf.validity();
    assert_eq!(validity.not_after.timestamp(), now().as_second() + 3600);
    assert_eq!(validity.not_before.timestamp(), now().as_second() - 300);
    let other = sign(&found, &authority(), now()).unwrap();
    let (_, other) = parse_x509_pem(other.as_bytes()).unwrap();
    assert_ne!(leaf.raw_serial(), other.parse_x509().unwrap().raw_serial());
}

#[test]
fn nobody_gets_more_time_than_the_cluster_gives() {
    let found = asked(LEGACY_UNKNOWN, &["any"], Some(1_000_000));
    let signed = sign(&found, &authority(), now()).unwrap();
    let (_, pem) = parse_x509_pem(signed.as_bytes()).unwrap();
    let end = pem.parse_x509().unwrap().validity().not_after.timestamp();
    assert_eq!(end, now().as_second() + 24 * 3600);
}

#[test]
fn what_a_signer_is_not_for_is_refused() {
    let server = asked(KUBE_APISERVER_CLIENT, &["server auth"], None);
    assert!(sign(&server, &authority(), now()).is_err());
    let node = asked(KUBELET_CLIENT, &["client auth", "digital signature"], None);
    let why = sign(&node, &authority(), now()).unwrap_err();
    assert_eq!(why, "subject organization is not system:nodes");
}

#[test]
fn only_what_is_approved_and_open_is_signed() {
    let with = |conditions: Value| {
        let mut found = asked(LEGACY_UNKNOWN, &["any"], None);
        found.status = serde_json::from_value(json!({ "conditions": conditions })).unwrap();
        is_wanted(&found)
    };
    let condition = |kind: &str| json!({ "type": kind, "status": "True" });
    assert!(with(json!([condition("Approved")])));
    assert!(!with(json!([])));
    assert!(!with(json!([condition("Approved"), condition("Denied")])));
    assert!(!with(json!([condition("Approved"), condition("Failed")])));
    let mut other = asked("example.com/own", &["any"], None);
    let status = json!({ "conditions": [condition("Approved")] });
    other.status = serde_json::from_value(status).unwrap();
    assert!(!is_wanted(&other));
}
