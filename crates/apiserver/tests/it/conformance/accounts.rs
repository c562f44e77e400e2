//! `[sig-auth] ServiceAccounts` and `Certificates API`, as far as no pod has to run.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{MERGE, delete, names, patch, put, read};
use crate::fixture::{Fixture, admin};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const PODS: &str = "/api/v1/namespaces/default/pods";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// Part of `ServiceAccounts should mount projected service account token`: what a review of such a
/// token says of its bearer.
#[tokio::test]
async fn a_review_tells_the_pod_and_the_node_of_a_bound_token() {
    let server = Fixture::start().await;
    server.create(ACCOUNTS, &json!({"metadata": {"name": "default"}})).await;
    let node = server.create("/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await;
    let spec = json!({"nodeName": "n", "containers": [{"name": "c", "image": "i"}]});
    let pod = server.create(PODS, &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p"});
    let request = json!({"spec": {"boundObjectRef": bound, "expirationSeconds": 600}});
    let token = server.create(&format!("{ACCOUNTS}/default/token"), &request).await;
    let review = json!({"spec": {"token": token["status"]["token"]}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let status = server.create(reviews, &review).await["status"].clone();
    assert_eq!(status["authenticated"], true, "{status}");
    let user = &status["user"];
    assert_eq!(user["username"], "system:serviceaccount:default:default");
    let groups =
        ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(user["groups"], json!(groups));
    let extra = |key: &str| user["extra"][format!("authentication.kubernetes.io/{key}")].clone();
    assert_eq!(extra("pod-name"), json!(["p"]));
    assert_eq!(extra("pod-uid"), json!([pod["metadata"]["uid"]]));
    assert_eq!(extra("node-name"), json!(["n"]));
    assert_eq!(extra("node-uid"), json!([node["metadata"]["uid"]]));
    let credential = extra("credential-id");
    assert!(credential[0].as_str().unwrap().starts_with("JTI="), "{credential}");
    server.admin(Method::DELETE, &format!("{PODS}/p?gracePeriodSeconds=0"), &Value::Null).await;
    let after = server.create(reviews, &review).await;
    assert_ne!(after["status"]["authenticated"], true, "it goes with its pod");
}

/// `ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account
/// issuer`: the documents lead to the key that tokens are signed with.
#[tokio::test]
async fn the_issuer_is_discovered() {
    let server = Fixture::start().await;
    let found = read(&server, "/.well-known/openid-configuration").await;
    assert_eq!(found["issuer"], "https://kubernetes.default.svc.cluster.local");
    let at = found["jwks_uri"].as_str().unwrap();
    assert!(at.ends_with("/openid/v1/jwks"), "{at}");
    let keys = read(&server, "/openid/v1/jwks").await;
    server.create(ACCOUNTS, &json!({"metadata": {"name": "a"}})).await;
    let token = server.create(&format!("{ACCOUNTS}/a/token"), &json!({"spec": {}})).await;
    let token = token["status"]["token"].as_str().unwrap();
    let part = |at: usize| -> Value {
        let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let (header, claims) = (part(0), part(1));
    assert_eq!(claims["iss"], found["issuer"]);
    let known = keys["keys"].as_array().unwrap();
    assert!(known.iter().any(|key| key["kid"] == header["kid"]), "{keys} {header}");
    let algorithms = found["id_token_signing_alg_values_supported"].as_array().unwrap();
    assert!(algorithms.contains(&header["alg"]), "{found} {header}");
}

/// `Certificates API should support CSR API operations`.
#[tokio::test]
async fn a_signing_request_is_approved_signed_and_deleted() {
    let server = Fixture::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let encoded = STANDARD.encode(request.pem().unwrap());
    let spec = json!({"request": encoded, "signerName": "example.com/e2e",
        "expirationSeconds": 3600, "usages": ["client auth"]});
    for name in ["one", "two"] {
        server.create(REQUESTS, &json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    let one = format!("{REQUESTS}/one");
    let change = json!({"metadata": {"annotations": {"patched": "true"}}});
    assert_eq!(
        patch(&server, &one, MERGE, &change).await["metadata"]["annotations"],
        change["metadata"]["annotations"]
    );

    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E"});
    let approval = format!("{one}/approval");
    let change = json!({"metadata": {"annotations": {"patchedapproval": "true"}},
        "status": {"conditions": [condition("ApprovalPatch")]}});
    let patched = patch(&server, &approval, MERGE, &change).await;
    assert_eq!(patched["status"]["conditions"][0]["type"], "ApprovalPatch");
    let mut found = read(&server, &approval).await;
    let conditions = found["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(condition("Approved"));
    let approved = put(&server, &approval, &found).await;
    assert_eq!(approved["status"]["conditions"][1]["type"], "Approved");

    let mut found = read(&server, &format!("{one}/status")).await;
    let certificate = server.authority.pem.as_bytes();
    found["status"]["certificate"] = json!(STANDARD.encode(certificate));
    let signed = put(&server, &format!("{one}/status"), &found).await;
    assert_eq!(signed["status"]["certificate"], found["status"]["certificate"]);

    let selected = format!("{REQUESTS}?fieldSelector=spec.signerName%3Dexample.com%2Fe2e");
    assert_eq!(names(&server, &selected).await, ["one", "two"]);
    delete(&server, &one).await;
    let (code, _) = server.call(&admin(), Method::GET, &one, MERGE, &Value::Null).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    delete(&server, &selected).await;
    assert!(names(&server, &selected).await.is_empty());
}

/// `ServiceAccounts should run through the lifecycle of a ServiceAccount` and `should update a
/// ServiceAccount`.
#[tokio::test]
async fn an_account_is_created_changed_found_everywhere_and_deleted_by_label() {
    let server = Fixture::start().await;
    let account = json!({"metadata": {"name": "testserviceaccount", "labels": {"static": "true"}}});
    server.create(ACCOUNTS, &account).await;
    let path = format!("{ACCOUNTS}/testserviceaccount");
    let off = json!({"automountServiceAccountToken": false});
    let patched = patch(&server, &path, MERGE, &off).await;
    assert_eq!(patched["automountServiceAccountToken"], false);
    let mut found = read(&server, &path).await;
    found["automountServiceAccountToken"] = json!(true);
    assert_eq!(put(&server, &path, &found).await["automountServiceAccountToken"], true);
    let everywhere = "/api/v1/serviceaccounts?labelSelector=static%3Dtrue";
    assert_eq!(names(&server, everywhere).await, ["testserviceaccount"]);
    delete(&server, &format!("{ACCOUNTS}?labelSelector=static%3Dtrue")).await;
    assert!(names(&server, everywhere).await.is_empty());
}
