//! The other server, in its own process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{AUTHORIZATION, ETAG, IF_NONE_MATCH, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{APPLES, part_path};
use crate::over_tls;

/// The variable with the path of a [`Part`].
pub(super) const PART: &str = "IRONCLAD_TEST_AGGREGATED_SERVER";

/// What the process is to do.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) api: SocketAddr,
    pub(super) authority: String,
    pub(super) token: String,
    pub(super) port: u16,
    pub(super) certificate: String,
    pub(super) key: String,
    /// Made when it serves.
    pub(super) ready: PathBuf,
}

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

/// Plays when it is told to. As one of the tests it checks that without that it does not.
#[tokio::test]
async fn plays_the_other_server() {
    let Some(path) = part_path() else {
        assert!(std::env::var(PART).is_err());
        return;
    };
    let part: Part = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    serve(Arc::new(part)).await;
}

async fn serve(part: Arc<Part>) {
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let (code, map) = part.ask(Method::GET, path, &Value::Null).await;
    assert_eq!(code, StatusCode::OK, "{map}");
    let text = |key: &str| map["data"][key].as_str().unwrap().to_owned();
    let allowed: Vec<String> = serde_json::from_str(&text("requestheader-allowed-names")).unwrap();
    let users: Vec<String> = serde_json::from_str(&text("requestheader-username-headers")).unwrap();
    assert_eq!(users, ["X-Remote-User"]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let authority = text("requestheader-client-ca-file");
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(part.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(part.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", part.port)).await.unwrap();
    std::fs::write(&part.ready, "").unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, part, allowed) = (acceptor.clone(), part.clone(), allowed.clone());
        drop(stdx::task::spawn("player", async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let chain = stream.get_ref().1.peer_certificates();
            let name = chain.and_then(|chain| authn::common_name(&chain[0]));
            let is_proxy = name.is_some_and(|name| allowed.contains(&name));
            let service = hyper::service::service_fn(move |request| {
                let part = part.clone();
                async move { Ok::<_, hyper::Error>(part.answer(request, is_proxy).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            connection.serve_connection(TokioIo::new(stream), service).await.ok();
        }));
    }
}

/// Who asks.
struct Asker {
    user: String,
    groups: Vec<String>,
}

impl Part {
    async fn answer(&self, request: Request<Incoming>, is_proxy: bool) -> Answer {
        let path = request.uri().path().to_owned();
        let Some(asker) = self.asker(&request, is_proxy).await else {
            return say(StatusCode::UNAUTHORIZED, &json!({}));
        };
        if !self.may(&asker, &path).await {
            return say(StatusCode::FORBIDDEN, &json!({"user": asker.user}));
        }
        match path.as_str() {
            "/apis/fruit.example.com/v1" => say(
                StatusCode::OK,
                &json!({
                "kind": "APIResourceList", "groupVersion": "fruit.example.com/v1",
                "resources": [{"name": "apples", "namespaced": true, "kind": "Apple",
                    "verbs": ["get", "list"]}]}),
            ),
            "/openapi/v2" => document(&request),
            APPLES => say(StatusCode::OK, &json!({"user": asker.user, "groups": asker.groups})),
            path if path.ends_with("/moved") => {
                let mut answer = say(StatusCode::FOUND, &json!({}));
                answer.headers_mut().insert(LOCATION, "https://evil.example".parse().unwrap());
                answer
            }
            path if path.ends_with("/endless") => {
                let all =
                    futures::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(b"x"))));
                let slow = all.then(|frame| async {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    frame
                });
                Response::new(BodyExt::boxed_unsync(StreamBody::new(slow)))
            }
            _ => say(StatusCode::NOT_FOUND, &json!({})),
        }
    }

    /// From the headers of the front proxy, or by asking about the token.
    async fn asker(&self, request: &Request<Incoming>, is_proxy: bool) -> Option<Asker> {
        let headers = request.headers();
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        if let (true, Some(user)) = (is_proxy, headers.get("x-remote-user")) {
            let groups = headers.get_all("x-remote-group").iter().map(text).collect();
            return Some(Asker { user: text(user), groups });
        }
        let token = text(headers.get(AUTHORIZATION)?);
        let review = json!({"spec": {"token": token.strip_prefix("Bearer ")?}});
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let (code, review) = self.ask(Method::POST, path, &review).await;
        assert_eq!(code, StatusCode::CREATED, "{review}");
        let user = review["status"]["user"]["username"].as_str()?.to_owned();
        Some(Asker { user, groups: Vec::new() })
    }

    async fn may(&self, asker: &Asker, path: &str) -> bool {
        let mut spec = json!({"user": asker.user, "groups": asker.groups});
        if path.starts_with(APPLES) {
            spec["resourceAttributes"] = json!({"verb": "list", "group": "fruit.example.com",
                "version": "v1", "resource": "apples", "namespace": "default"});
        } else {
            spec["nonResourceAttributes"] = json!({"verb": "get", "path": path});
        }
        let review = json!({ "spec": spec });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let (code, review) = self.ask(Method::POST, path, &review).await;
        assert_eq!(code, StatusCode::CREATED, "{review}");
        review["status"]["allowed"] == true
    }

    /// One request to the API server.
    async fn ask(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let stream = over_tls::connect_to(&self.authority, self.api, "localhost", None).await;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", self.token))
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        over_tls::send(stream, request).await
    }
}

/// With a tag, by which it is not sent again.
fn document(request: &Request<Incoming>) -> Answer {
    const TAG: &str = "\"one\"";
    if request.headers().get(IF_NONE_MATCH).is_some_and(|tag| tag == TAG) {
        return say(StatusCode::NOT_MODIFIED, &Value::Null);
    }
    let apples = json!({"$ref": "#/definitions/fruit.Apple"});
    let mut answer = say(
        StatusCode::OK,
        &json!({"swagger": "2.0", "info": {},
        "paths": {APPLES: {"get": {"responses": {"200": {"description": "OK",
            "schema": apples}}}}},
        "definitions": {"fruit.Apple": {"type": "object"}}}),
    );
    answer.headers_mut().insert(ETAG, TAG.parse().unwrap());
    answer
}

fn say(code: StatusCode, body: &Value) -> Answer {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    answer
}
