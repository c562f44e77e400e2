//! Tokens that lie in Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::harness::Harness;

const CORE: &str = "/api/v1/namespaces/default";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

fn review(harness: &Harness, token: &str) -> Value {
    let review = json!({ "spec": { "token": token } });
    harness.request(Method::POST, REVIEWS, Some(&review)).unwrap()["status"].clone()
}

#[test]
fn a_secret_for_a_token_gets_one_that_works_and_both_go_with_the_account() {
    let harness = Harness::start();
    harness.create("serviceaccounts", &json!({ "metadata": { "name": "builder" } }));
    let annotations = json!({ "kubernetes.io/service-account.name": "builder" });
    let secret = json!({ "type": "kubernetes.io/service-account-token",
        "metadata": { "name": "s", "annotations": annotations } });
    harness.create("secrets", &secret);
    let path = format!("{CORE}/secrets/s");
    let data = harness.until("the token is there", || {
        let data = harness.get(&path)["data"].clone();
        data["token"].is_string().then_some(data)
    });
    let text = |key: &str| {
        String::from_utf8(STANDARD.decode(data[key].as_str().unwrap()).unwrap()).unwrap()
    };
    assert!(text("ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(text("namespace"), "default");
    let token = text("token");
    let status = review(&harness, &token);
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:builder", "{status}");
    let labels = harness.get(&path)["metadata"]["labels"].clone();
    assert!(labels["kubernetes.io/legacy-token-last-used"].is_string(), "{labels}");
    harness.delete(&format!("{CORE}/serviceaccounts/builder"));
    harness.until("the Secret goes", || (!harness.exists(&path)).then_some(()));
    assert_ne!(review(&harness, &token)["authenticated"], true);
}
