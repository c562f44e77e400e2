//! Tokens that lie in Secrets.

use std::sync::Arc;

use authn::{Bound, LegacyClaims, TokenSigner};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clock::{Clock, SystemClock};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use store::{LogStore, Options};

use crate::fixture::{Fixture, admin};
use crate::over_tls::connect;

const ACCOUNT: &str = "/api/v1/namespaces/default/serviceaccounts/builder";
const SECRET: &str = "/api/v1/namespaces/default/secrets/s";
const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Who the server says that the bearer of a token is, and the headers beside.
pub(crate) async fn whoami(server: &Fixture, token: &str) -> (StatusCode, HeaderMap, Value) {
    let stream = connect(server, None).await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    drop(stdx::task::spawn("test connection", connection));
    let request = Request::post(SELF)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {token}"))
        .body(Full::new(Bytes::from_static(b"{}")))
        .expect("a request");
    let (parts, body) = sender.send_request(request).await.expect("an answer").into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).expect("JSON");
    (parts.status, parts.headers, answer["status"]["userInfo"].clone())
}

async fn labels(server: &Fixture) -> Value {
    server.admin(Method::GET, SECRET, &Value::Null).await.1["metadata"]["labels"].clone()
}

async fn patch(server: &Fixture, path: &str, change: &Value) {
    let merge = "application/merge-patch+json";
    let (code, answer) = server.call(&admin(), Method::PATCH, path, merge, change).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn a_bootstrap_token_is_accepted_where_it_is_switched_on() {
    let token = "abcdef.0123456789abcdef";
    let secret = json!({"type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abcdef"},
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:workers"}});
    let path = "/api/v1/namespaces/kube-system/secrets";
    let off = Fixture::start().await;
    off.create(path, &secret).await;
    assert_eq!(whoami(&off, token).await.0, StatusCode::UNAUTHORIZED);
    let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap();
    let on = Fixture::start_configured(Arc::new(store), |config| {
        config.enable_bootstrap_token_auth = true;
    })
    .await;
    on.create(path, &secret).await;
    let (code, _, user) = whoami(&on, token).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(user["username"], "system:bootstrap:abcdef");
    let groups = ["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"];
    assert_eq!(user["groups"], json!(groups));
    let wrong = "abcdef.0123456789abcdeg";
    assert_eq!(whoami(&on, wrong).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn it_is_told_since_when_uses_are_noted() {
    let server = Fixture::start().await;
    let path = "/api/v1/namespaces/kube-system/configmaps/\
                kube-apiserver-legacy-service-account-token-tracking";
    let (_, map) = server.admin(Method::GET, path, &Value::Null).await;
    let since = map["data"]["since"].as_str().unwrap();
    assert!(since.parse::<jiff::civil::Date>().is_ok(), "{since}");
}

#[tokio::test]
async fn a_token_of_a_secret_is_valid_as_long_as_it_lies_there_unmarked() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let signer = TokenSigner::from_pem(key.as_bytes()).unwrap();
    let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap();
    let server = Fixture::start_configured(Arc::new(store), |config| {
        config.pki.service_account_key = key.into();
    })
    .await;
    let account = json!({"metadata": {"name": "builder"}});
    let account = server.create(ACCOUNT.trim_end_matches("/builder"), &account).await;
    let uid = account["metadata"]["uid"].as_str().unwrap().to_owned();
    let bound = Bound { name: "builder".into(), uid: uid.clone() };
    let token = signer.sign_legacy(&LegacyClaims::new("default", "s", bound)).unwrap();
    assert_eq!(whoami(&server, &token).await.0, StatusCode::UNAUTHORIZED, "it lies nowhere yet");
    let secret = json!({"type": "kubernetes.io/service-account-token",
        "metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "builder"}},
        "data": {"token": STANDARD.encode(&token)}});
    server.create(SECRET.trim_end_matches("/s"), &secret).await;

    let (code, headers, user) = whoami(&server, &token).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(user["username"], "system:serviceaccount:default:builder");
    assert_eq!(user["uid"], uid.as_str());
    assert!(!headers.contains_key("warning"), "somebody made it");
    let today = SystemClock.now().to_string()[..10].to_owned();
    assert_eq!(labels(&server).await, json!({"kubernetes.io/legacy-token-last-used": today}));

    patch(&server, ACCOUNT, &json!({"secrets": [{"name": "s"}]})).await;
    let (_, headers, _) = whoami(&server, &token).await;
    assert_eq!(
        headers["warning"],
        "299 - \"Use tokens from the TokenRequest API or manually created secret-based tokens \
         instead of auto-generated secret-based tokens.\""
    );

    let since = json!({"kubernetes.io/legacy-token-invalid-since": "2026-01-01",
        "kubernetes.io/legacy-token-last-used": null});
    patch(&server, SECRET, &json!({"metadata": {"labels": since}})).await;
    assert_eq!(whoami(&server, &token).await.0, StatusCode::UNAUTHORIZED);
    let used = labels(&server).await["kubernetes.io/legacy-token-last-used"].clone();
    assert_eq!(used, today.as_str(), "that it was tried is noted");
    let review = json!({"spec": {"token": token}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let status = server.create(reviews, &review).await["status"].clone();
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("the token in secret default/s"), "{error}");

    let since = json!({"kubernetes.io/legacy-token-invalid-since": null});
    patch(&server, SECRET, &json!({"metadata": {"labels": since}})).await;
    assert_eq!(whoami(&server, &token).await.0, StatusCode::CREATED);
    server.admin(Method::DELETE, SECRET, &Value::Null).await;
    assert_eq!(whoami(&server, &token).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_day_since_when_tokens_are_tracked_is_always_there() {
    let server = Fixture::start().await;
    let path = "/api/v1/namespaces/kube-system/configmaps/\
                kube-apiserver-legacy-service-account-token-tracking";
    let since = async || {
        let (_, map) = server.admin(Method::GET, path, &Value::Null).await;
        map["data"]["since"].as_str().and_then(|day| day.parse::<jiff::civil::Date>().ok())
    };
    let comes = async |what: &str| {
        for _ in 0..500 {
            if since().await.is_some() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("it does not come back when it is {what}");
    };
    comes("new").await;
    let (code, _) = server.admin(Method::DELETE, path, &Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    comes("deleted").await;
    let spoilt = json!({"metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking"},
        "data": {"since": "long ago"}});
    let (code, _) = server.admin(Method::PUT, path, &spoilt).await;
    assert_eq!(code, StatusCode::OK);
    comes("spoilt").await;
}
