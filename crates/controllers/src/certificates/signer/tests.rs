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

/// Asks for `O = staff + O = admins, CN = jane`: one set with two organizations, as Go writes them.
const OF_TWO_GROUPS: &str = "\
-----BEGIN CERTIFICATE REQUEST-----\n\
MIIBGTCBwAIBADAuMR0wDAYDVQQKDAVzdGFmZjANBgNVBAoMBmFkbWluczENMAsG\n\
A1UEAwwEamFuZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNzj6ng17ITMnA3m\n\
U8a0Qp5adeRI5/wQVF2mzTnXQwsDH1vyudBrdZwYSqJAhT+tfcrRB+Q3qlKRG0MY\n\
l1SPAf+gMDAuBgkqhkiG9w0BCQ4xITAfMB0GA1UdEQQWMBSCDGphbmUuZXhhbXBs\n\
ZYcEwAACBzAKBggqhkjOPQQDAgNIADBFAiEAhYQuhgQJZ9tzy4j6t0YQwtzVuqII\n\
Op9VWz+fvHcGu8QCIA1iPgfEPG00C7ibF+KL5R+k1N8cAL0mHsGu3cUK8HIJ\n\
-----END CERTIFICATE REQUEST-----\n\
";

#[test]
fn a_user_of_several_groups_stays_in_all_of_them() {
    let mut found = asked(LEGACY_UNKNOWN, &["client auth"], None);
    found.spec.request = k8s_openapi::ByteString(OF_TWO_GROUPS.as_bytes().to_vec());
    let authority = authority();
    let signed = sign(&found, &authority, now()).unwrap();
    let (_, pem) = parse_x509_pem(signed.as_bytes()).unwrap();
    let leaf = pem.parse_x509().unwrap();
    let groups: Vec<_> =
        leaf.subject().iter_organization().map(|group| group.as_str().unwrap()).collect();
    assert_eq!(groups, ["staff", "admins"]);
    assert_eq!(leaf.subject().iter_common_name().next().unwrap().as_str().unwrap(), "jane");
    let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len();
    assert_eq!(names, 2);
    let (_, pem) = parse_x509_pem(authority.certificate.as_bytes()).unwrap();
    let issuer = pem.parse_x509().unwrap();
    leaf.verify_signature(Some(issuer.public_key())).unwrap();
    assert_eq!(leaf.issuer().as_raw(), issuer.subject().as_raw());
}

#[test]
fn a_request_that_its_key_has_not_signed_is_refused() {
    let mut found = asked(LEGACY_UNKNOWN, &["client auth"], None);
    let (_, pem) = parse_x509_pem(OF_TWO_GROUPS.as_bytes()).unwrap();
    let mut der = pem.contents;
    let at = der.windows(5).position(|part| part == b"staff").unwrap();
    der[at] = b'x';
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(&der);
    let forged =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n");
    found.spec.request = k8s_openapi::ByteString(forged.into_bytes());
    assert!(sign(&found, &authority(), now()).is_err());
}
