//! Requests that only end-to-end tests make.

use std::path::Path;

use client::{ClientError, Credentials};
use futures::StreamExt;
use http::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

    /// Sends a request with a token.
    pub(crate) fn request_with_token(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let credentials = Some(Credentials::Token(token.to_owned()));
        let answer = self.send_as(credentials, (method, path), "application/json", body)?;
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    pub(crate) fn patch(&self, path: &str, patch: &Value) -> Value {
        self.request(Method::PATCH, path, Some(patch)).unwrap()
    }
}

async fn upgrade(kubeconfig: &Path, path: &str, protocol: &str) -> (String, String) {
    let (mut stream, authority) = testkit::connect(kubeconfig).await.unwrap();
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
    let mut socket = testkit::websocket(kubeconfig, path, protocol).await.unwrap();
    let mut messages = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() {
            break;
        }
        messages.push(message.into_data().to_vec());
    }
    messages
}
