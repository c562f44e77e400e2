//! Requests that are made, decided and issued.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

use crate::tests::{check, check_update};

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "PodCertificateRequest";

fn request(key: &KeyPair) -> Value {
    let signed = CertificateParams::default().serialize_request(key).unwrap();
    json!({"metadata": {"name": "r"}, "spec": {
        "signerName": "example.com/signer", "maxExpirationSeconds": 86400,
        "podName": "p", "podUID": "u1", "serviceAccountName": "s", "serviceAccountUID": "u2",
        "nodeName": "n", "nodeUID": "u3", "stubPKCS10Request": STANDARD.encode(signed.der())}})
}

#[test]
fn whoever_asks_shows_that_he_has_the_key() {
    let key = KeyPair::generate().unwrap();
    check(GROUP, KIND, request(&key), &[]);

    let mut tampered = request(&key);
    let mut signed =
        STANDARD.decode(tampered["spec"]["stubPKCS10Request"].as_str().unwrap()).unwrap();
    *signed.last_mut().unwrap() ^= 1;
    tampered["spec"]["stubPKCS10Request"] = json!(STANDARD.encode(signed));
    let refused = "spec.stubPKCS10Request: Invalid value: invalid signature";
    check(GROUP, KIND, tampered, &[refused]);

    let mut neither = request(&key);
    neither["spec"].as_object_mut().unwrap().remove("stubPKCS10Request");
    check(
        GROUP,
        KIND,
        neither.clone(),
        &["spec: Invalid value: exactly one of (stubPKCS10Request) or (pkixPublicKey, \
           proofOfPossession) must be set"],
    );
    let with_proof = |uid: &str| {
        let mut object = neither.clone();
        object["spec"]["pkixPublicKey"] = json!(STANDARD.encode(key.subject_public_key_info()));
        object["spec"]["proofOfPossession"] =
            json!(STANDARD.encode(key.sign(uid.as_bytes()).unwrap()));
        object
    };
    check(GROUP, KIND, with_proof("u1"), &[]);
    let refused = "spec.proofOfPossession: Invalid value: could not verify proof-of-possession \
                   signature";
    check(GROUP, KIND, with_proof("other"), &[refused]);
}

#[test]
fn a_request_ends_once_and_in_one_way() {
    let key = KeyPair::generate().unwrap();
    let with = |status: Value| {
        let mut object = request(&key);
        object["status"] = status;
        object
    };
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "R",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let denied = with(json!({"conditions": [condition("Denied")]}));
    let check = |new: &Value, old: &Value, expected: &[&str]| {
        check_update(GROUP, KIND, "status", (new, old), expected);
    };
    check(&denied, &request(&key), &[]);
    check(
        &with(json!({"conditions": [condition("Failed")]})),
        &denied,
        &["status: Invalid value: immutable after PodCertificateRequest is issued, denied, or \
           failed"],
    );
    check(
        &with(json!({"certificateChain": "x"})),
        &request(&key),
        &["status: Invalid value: status is immutable unless transitioning to \"Issued\", \
           \"Denied\", or \"Failed\""],
    );
    check(
        &with(json!({"conditions": [condition("Issued")], "certificateChain": "x"})),
        &request(&key),
        &["status.certificateChain: Invalid value: \"x\": issued certificate chain must contain \
           at least one certificate"],
    );
}

#[test]
fn an_issued_certificate_is_for_the_key_and_says_how_long() {
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let issue = |key: &KeyPair| {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 2);
        params.self_signed(key).unwrap().pem()
    };
    let with = |chain: String, refresh: &str| {
        let mut object = request(&key);
        object["status"] = json!({"certificateChain": chain,
            "conditions": [{"type": "Issued", "status": "True", "reason": "R",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-01-02T00:00:00Z",
            "beginRefreshAt": refresh});
        object
    };
    let check = |new: &Value, expected: &[&str]| {
        check_update(GROUP, KIND, "status", (new, &request(&key)), expected);
    };
    check(&with(issue(&key), "2026-01-01T12:00:00Z"), &[]);
    check(
        &with(issue(&key), "2026-01-01T00:09:00Z"),
        &["status.beginRefreshAt: Invalid value: \"2026-01-01T00:09:00Z\": must be at least 10 \
           minutes after status.notBefore"],
    );
    let foreign = issue(&other);
    let refused = format!(
        "status.certificateChain: Invalid value: {}: leaf certificate was not issued to the \
         requested public key",
        json!(foreign)
    );
    check(&with(foreign, "2026-01-01T12:00:00Z"), &[&refused]);
}
