//! Requests that end at a kubelet, played by the test.

use std::sync::Arc;

use http::Method;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::fixture::Fixture;
use crate::over_tls::connect;

/// Reads up to the end of a header.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("the peer works"));
    }
    String::from_utf8(head).expect("the peer works")
}

/// A kubelet that answers one request: with an echo when it asks for another protocol, with the
/// request line otherwise. Its port.
async fn kubelet(server: &Fixture) -> u16 {
    kubelet_saying(server, None).await
}

/// The same, with an answer of its own for requests that ask for no other protocol.
pub(crate) async fn kubelet_saying(server: &Fixture, said: Option<&'static str>) -> u16 {
    let (certificate, key) = server.authority.issue("system:node:n", &["system:nodes"]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let authority =
        CertificateDer::from_pem_slice(server.authority.pem.as_bytes()).expect("the peer works");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).expect("the peer works");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let chain =
        vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("the peer works")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("the peer works");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the peer works")
        .with_client_cert_verifier(verifier.build().expect("the peer works"))
        .with_single_cert(chain, key)
        .expect("the peer works");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the peer works");
    let port = listener.local_addr().expect("the peer works").port();
    drop(stdx::task::spawn("test kubelet", async move {
        let (stream, _) = listener.accept().await.expect("the peer works");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut stream = acceptor.accept(stream).await.expect("the peer works");
        let head = head(&mut stream).await;
        let line = head.lines().next().expect("the peer works").to_owned();
        if head.to_ascii_lowercase().contains("upgrade: echo") {
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: echo\r\n\r\n";
            stream.write_all(format!("{answer}{line}\n").as_bytes()).await.expect("the peer works");
            let (mut from, mut to) = tokio::io::split(stream);
            tokio::io::copy(&mut from, &mut to).await.ok();
        } else {
            let length = line.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{line}");
            let answer = said.map_or(answer, str::to_owned);
            stream.write_all(answer.as_bytes()).await.expect("the peer works");
            stream.shutdown().await.ok();
        }
    }));
    port
}

/// A pod on a node whose kubelet is at the port.
pub(crate) async fn pod_on_node(server: &Fixture, port: u16) {
    let node = json!({"metadata": {"name": "n"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    server.create("/api/v1/nodes", &node).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.create(accounts, &json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n",
        "containers": [{"name": "c", "image": "i"}]}});
    server.create("/api/v1/namespaces/default/pods", &pod).await;
}

#[tokio::test]
async fn logs_come_from_the_kubelet_of_the_node() {
    let server = Fixture::start().await;
    pod_on_node(&server, kubelet(&server).await).await;
    let request = http::Request::builder()
        .method(Method::GET)
        .uri("/api/v1/namespaces/default/pods/p/log?tailLines=5&follow=true")
        .body(bytes::Bytes::new())
        .unwrap();
    let response = server.handle.call(&crate::fixture::admin(), request).await;
    let text = response.into_body().collect().await.unwrap();
    assert_eq!(text, "GET /containerLogs/default/p/c?tailLines=5&follow=true HTTP/1.1");
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel() {
    let server = Fixture::start().await;
    pod_on_node(&server, kubelet(&server).await).await;
    let admin = server.authority.issue("root", &["system:masters"]);
    let mut stream = connect(&server, Some(admin)).await;
    let request = "GET /api/v1/namespaces/default/pods/p/exec?command=sh&command=-c&stdin=true\
                   &stdout=true HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let expected = "GET /exec/default/p/c?input=1&output=1&command=sh&command=-c HTTP/1.1\n";
    let mut line = vec![0; expected.len()];
    stream.read_exact(&mut line).await.unwrap();
    assert_eq!(String::from_utf8(line).unwrap(), expected);
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
}

#[tokio::test]
async fn a_pod_without_a_node_has_no_logs() {
    let server = Fixture::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.create(accounts, &json!({"metadata": {"name": "default"}})).await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    server.create("/api/v1/namespaces/default/pods", &pod).await;
    let path = "/api/v1/namespaces/default/pods/p/log";
    let (_, refused) = server.admin(Method::GET, path, &Value::Null).await;
    assert_eq!(refused["message"], "pod p does not have a host assigned");
}
