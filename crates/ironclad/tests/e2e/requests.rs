//! Requests that only end-to-end tests make.

use std::path::Path;
use std::sync::Arc;

use client::KubeConfig;
use futures::StreamExt;
use http::Method;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::Harness;

impl Harness {
    /// Reads what is no JSON, such as a log.
    pub(crate) fn text(&self, path: &str) -> String {
        String::from_utf8(self.bytes(Method::GET, path, None).unwrap().to_vec()).unwrap()
    }

    /// Opens a websocket as the administrator, and gives the messages until the server closes it.
    pub(crate) fn websocket(&self, path: &str, protocol: &str) -> Vec<Vec<u8>> {
        let kubeconfig = self.cluster.kubeconfig();
        let (path, protocol) = (path.to_owned(), protocol.to_owned());
        self.cluster.host().run(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(websocket(&kubeconfig, &path, &protocol))
        })
    }

    /// Asks for another protocol as the administrator; the header and the body of the answer.
    pub(crate) fn upgrade(&self, path: &str, protocol: &str) -> (String, String) {
        let kubeconfig = self.cluster.kubeconfig();
        let (path, protocol) = (path.to_owned(), protocol.to_owned());
        self.cluster.host().run(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(upgrade(&kubeconfig, &path, &protocol))
        })
    }

    pub(crate) fn patch(&self, path: &str, patch: &Value) -> Value {
        self.request(Method::PATCH, path, Some(patch)).unwrap()
    }
}

/// A connection as the administrator, and with whom.
async fn connect(kubeconfig: &Path) -> (TlsStream<TcpStream>, String) {
    let config = KubeConfig::load(kubeconfig).unwrap();
    let authority = config.server.strip_prefix("https://").unwrap().trim_end_matches('/');
    let tcp = TcpStream::connect(authority).await.unwrap();
    let mut tls = client::tls_config(&config).unwrap();
    // Only this one lets protocols be switched.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(authority.rsplit_once(':').unwrap().0.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap();
    (stream, authority.to_owned())
}

async fn upgrade(kubeconfig: &Path, path: &str, protocol: &str) -> (String, String) {
    let (mut stream, authority) = connect(kubeconfig).await;
    let (method, more) = match protocol {
        "websocket" => (
            "GET",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n",
        ),
        _ => ("POST", "X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n"),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\n\
         Upgrade: {protocol}\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(answer).unwrap();
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
    });
    let mut body = vec![0; length.unwrap_or_default()];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

pub(crate) async fn websocket(kubeconfig: &Path, path: &str, protocol: &str) -> Vec<Vec<u8>> {
    let (tls, authority) = connect(kubeconfig).await;
    let mut request = format!("wss://{authority}{path}").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    let (mut socket, answer) = tokio_tungstenite::client_async(request, tls).await.unwrap();
    assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], protocol);
    let mut messages = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() {
            break;
        }
        messages.push(message.into_data().to_vec());
    }
    messages
}
