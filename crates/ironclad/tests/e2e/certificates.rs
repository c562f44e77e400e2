//! Certificates that the cluster signs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::Harness;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

#[test]
fn an_approved_request_is_signed_by_the_clusters_authority() {
    let harness = Harness::start();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = json!({ "metadata": { "name": "jane" }, "spec": {
        "request": STANDARD.encode(pem), "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"], "expirationSeconds": 3600 } });
    let mut created = harness.request(http::Method::POST, REQUESTS, Some(&request)).unwrap();
    created["status"]["conditions"] =
        json!([{ "type": "Approved", "status": "True", "reason": "Test", "message": "" }]);
    let path = format!("{REQUESTS}/jane");
    harness.request(http::Method::PUT, &format!("{path}/approval"), Some(&created)).unwrap();
    let certificate = harness.until("the certificate", || {
        harness.get(&path)["status"]["certificate"].as_str().map(str::to_owned)
    });
    let pem = String::from_utf8(STANDARD.decode(certificate).unwrap()).unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"));
    // Somebody else's signer signs nothing here.
    let mut other = request;
    other["metadata"]["name"] = "other".into();
    other["spec"]["usages"] = json!(["server auth"]);
    let mut created = harness.request(http::Method::POST, REQUESTS, Some(&other)).unwrap();
    created["status"]["conditions"] =
        json!([{ "type": "Approved", "status": "True", "reason": "Test", "message": "" }]);
    let path = format!("{REQUESTS}/other");
    harness.request(http::Method::PUT, &format!("{path}/approval"), Some(&created)).unwrap();
    harness.until("it is refused", || {
        let conditions = harness.get(&path)["status"]["conditions"].as_array()?.clone();
        conditions.iter().any(|c| c["reason"] == "SignerValidationFailure").then_some(())
    });
}
