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

/// A Secret with a bootstrap token.
fn bootstrap_token(id: &str, more: &Value) -> Value {
    let mut data = json!({ "token-id": id, "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true" });
    for (key, value) in more.as_object().unwrap() {
        data[key] = value.clone();
    }
    json!({ "type": "bootstrap.kubernetes.io/token", "stringData": data,
        "metadata": { "name": format!("bootstrap-token-{id}") } })
}

fn bind(harness: &Harness, role: &str) {
    let binding = json!({ "metadata": { "name": role },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group",
            "name": "system:bootstrappers" }] });
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    harness.request(Method::POST, path, Some(&binding)).unwrap();
}

#[test]
fn who_joins_gets_a_certificate_for_a_token_and_knows_the_cluster_by_it() {
    const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
    const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let harness = Harness::start();
    let post = |path: &str, object: &Value| {
        harness.request(Method::POST, path, Some(object)).unwrap();
    };
    post(SECRETS, &bootstrap_token("abcdef", &json!({})));
    let past = json!({ "expiration": "2020-01-01T00:00:00Z" });
    post(SECRETS, &bootstrap_token("oldold", &past));
    let old = format!("{SECRETS}/bootstrap-token-oldold");
    harness.until("an old token is deleted", || (!harness.exists(&old)).then_some(()));

    let info = json!({ "metadata": { "name": "cluster-info" },
        "data": { "kubeconfig": "apiVersion: v1" } });
    post("/api/v1/namespaces/kube-public/configmaps", &info);
    harness.until("the cluster's description is signed", || {
        let info = harness.get("/api/v1/namespaces/kube-public/configmaps/cluster-info");
        info["data"]["jws-kubeconfig-abcdef"].is_string().then_some(())
    });

    let token = "abcdef.0123456789abcdef";
    let user = review(&harness, token)["user"].clone();
    assert_eq!(user["username"], "system:bootstrap:abcdef");
    bind(&harness, "system:node-bootstrapper");
    bind(&harness, "system:certificates.k8s.io:certificatesigningrequests:nodeclient");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:joins");
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = json!({ "metadata": { "name": "joins" }, "spec": {
        "request": STANDARD.encode(pem),
        "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
        "usages": ["digital signature", "client auth"] } });
    harness.request_with_token(token, Method::POST, REQUESTS, Some(&request)).unwrap();
    let status = harness.until("the certificate", || {
        let status = harness.get(&format!("{REQUESTS}/joins"))["status"].clone();
        status["certificate"].is_string().then_some(status)
    });
    let condition = &status["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["reason"]),
        (&json!("Approved"), &json!("AutoApproved"))
    );
    assert_eq!(
        condition["message"],
        "Auto approving kubelet client certificate after SubjectAccessReview."
    );
}
