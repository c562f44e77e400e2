//! Requests that only end-to-end tests make.

use std::path::Path;
use std::sync::Arc;

use client::KubeConfig;
use futures::StreamExt;
use http::Method;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;
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

    pub(crate) fn patch(&self, path: &str, patch: &Value) -> Value {
        self.request(Method::PATCH, path, Some(patch)).unwrap()
    }
}

async fn websocket(kubeconfig: &Path, path: &str, protocol: &str) -> Vec<Vec<u8>> {
    let config = KubeConfig::load(kubeconfig).unwrap();
    let authority = config.server.strip_prefix("https://").unwrap().trim_end_matches('/');
    let tcp = tokio::net::TcpStream::connect(authority).await.unwrap();
    let tls = client::tls_config(&config).unwrap();
    let name = ServerName::try_from(authority.rsplit_once(':').unwrap().0.to_owned()).unwrap();
    let tls = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap();
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
