//! Identity and protocol, over a socket.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use clock::SystemClock;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use store::{LogStore, Options};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::fixture::{Authority, Fixture};

/// A TLS connection to the server.
pub(crate) async fn connect(
    server: &Fixture,
    identity: Option<(String, String)>,
) -> TlsStream<TcpStream> {
    let address = server.handle.addresses()[0];
    connect_to(&server.authority.pem, address, "localhost", identity).await
}

/// A TLS connection to whoever has a certificate with this name.
pub(crate) async fn connect_to(
    authority: &str,
    address: SocketAddr,
    name: &str,
    identity: Option<(String, String)>,
) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("the peer works"))
        .expect("the peer works");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the peer works")
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![
                CertificateDer::from_pem_slice(certificate.as_bytes()).expect("the peer works"),
            ];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("the peer works");
            builder.with_client_auth_cert(chain, key).expect("the peer works")
        }
    };
    let stream = TcpStream::connect(address).await.expect("the peer works");
    let name = ServerName::try_from(name.to_owned()).expect("the peer works");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.expect("the peer works")
}

/// One request over a connection of its own.
pub(crate) async fn get(
    server: &Fixture,
    identity: Option<(String, String)>,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, Value) {
    exchange(connect(server, identity).await, path, headers).await
}

/// One GET.
pub(crate) async fn exchange(
    stream: TlsStream<TcpStream>,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, Value) {
    let mut request = Request::builder().method(Method::GET).uri(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::new())).expect("the peer works");
    send(stream, request).await
}

/// One request.
pub(crate) async fn send(
    stream: TlsStream<TcpStream>,
    request: Request<Full<Bytes>>,
) -> (StatusCode, Value) {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("the peer works");
    drop(stdx::task::spawn("test connection", connection));
    let response = sender.send_request(request).await.expect("the peer works");
    let code = response.status();
    let bytes = response.into_body().collect().await.expect("the peer works").to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::String(text)))
}

#[tokio::test]
async fn a_client_certificate_is_an_identity() {
    let server = Fixture::start().await;
    let admin = server.authority.issue("root", &["system:masters"]);
    let (code, list) = get(&server, Some(admin), "/api/v1/namespaces", &[]).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(list["items"].as_array().unwrap().len(), 4);
    let (code, refused) = get(&server, None, "/api/v1/namespaces", &[]).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(refused["message"].as_str().unwrap().contains("User \"system:anonymous\""));
}

#[tokio::test]
async fn health_and_version_are_for_everybody() {
    let server = Fixture::start().await;
    let (code, text) = get(&server, None, "/readyz", &[]).await;
    assert_eq!((code, text), (StatusCode::OK, json!("ok")));
    let (_, version) = get(&server, None, "/version", &[]).await;
    assert_eq!(version["gitVersion"], "v1.36.0");
}

#[tokio::test]
async fn a_service_account_token_is_an_identity_until_the_account_goes() {
    let server = Fixture::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.create(accounts, &json!({"metadata": {"name": "bot"}})).await;
    let token = server.create(&format!("{accounts}/bot/token"), &json!({"spec": {}})).await;
    let bearer = format!("Bearer {}", token["status"]["token"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str())];
    let (code, refused) = get(&server, None, "/api/v1/nodes", &headers).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("User \"system:serviceaccount:default:bot\""), "{message}");
    server.admin(Method::DELETE, &format!("{accounts}/bot"), &Value::Null).await;
    let (code, _) = get(&server, None, "/api/v1/nodes", &headers).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    let wrong = [("authorization", "Bearer nonsense")];
    let (code, _) = get(&server, None, "/version", &wrong).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
}

/// Headers of a front proxy, with a certificate of this authority and name.
async fn by_proxy(
    server: &Fixture,
    identity: Option<(String, String)>,
    headers: &[(&str, &str)],
) -> (StatusCode, Value) {
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let mut request = Request::post(path).header("host", "localhost");
    request = request.header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from("{}"))).expect("the peer works");
    send(connect(server, identity).await, request).await
}

#[tokio::test]
async fn a_front_proxy_says_who_asks_and_nobody_else_does() {
    let proxies = Authority::new();
    let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap();
    let pem = proxies.pem.clone();
    let server = Fixture::start_configured(Arc::new(store), |config| {
        config.pki.front_proxy_ca = pem.into();
    })
    .await;
    let says = [
        ("x-remote-user", "jane"),
        ("x-remote-uid", "7"),
        ("x-remote-group", "dev"),
        ("x-remote-extra-scopes", "view"),
    ];
    let proxy = || Some(proxies.issue("front-proxy-client", &[]));
    let (code, seen) = by_proxy(&server, proxy(), &says).await;
    assert_eq!(code, StatusCode::CREATED, "{seen}");
    assert_eq!(
        seen["status"]["userInfo"],
        json!({"username": "jane", "uid": "7", "groups": ["dev", "system:authenticated"],
            "extra": {"scopes": ["view"]}})
    );
    // Its certificate alone makes it nobody here.
    let (code, _) = by_proxy(&server, proxy(), &[]).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    let other = Some(proxies.issue("other", &[]));
    assert_eq!(by_proxy(&server, other, &says).await.0, StatusCode::UNAUTHORIZED);
    // A client's certificate makes it the client, whatever it says.
    let client = Some(server.authority.issue("front-proxy-client", &["system:masters"]));
    let (_, seen) = by_proxy(&server, client, &says).await;
    assert_eq!(seen["status"]["userInfo"]["username"], "front-proxy-client");
    let (code, _) = by_proxy(&server, None, &says).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "system:anonymous may not ask");
}
