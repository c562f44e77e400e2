//! Answers that are streams, over a websocket: logs and watches, for browsers.
//!
//! Upstream: `apimachinery/pkg/util/httpstream/wsstream/stream.go` and `endpoints/handlers/watch.go`.
//! Each piece of the answer is one message. What the client sends is read only to see that it is
//! there: a client of this kind has nothing to say.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
use http::header::{HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use meta::Status;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::chain::OnUpgrade;
use crate::context::RequestContext;
use crate::errors::bad_request;
use crate::metrics::Held;
use connection::Body;

/// What a client may send in one message; there is nothing it should.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// How the pieces become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As binary messages; one that is empty comes first.
    Bytes,
    /// As text messages in base64; one that is empty comes first.
    Base64,
    /// As text messages: events of a watch in JSON.
    Text,
    /// As binary messages: events of a watch in protobuf.
    Binary,
}

/// Whether the client asks for a websocket.
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    words(headers, &UPGRADE).any(|word| word.eq_ignore_ascii_case("websocket"))
        && words(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"))
}

/// The framing of a log and the protocol that names it, the first that the client knows too.
pub(crate) fn log_framing(headers: &HeaderMap) -> Result<(Framing, Option<&'static str>), Status> {
    const KNOWN: [(&str, Framing); 2] =
        [("binary.k8s.io", Framing::Bytes), ("base64.binary.k8s.io", Framing::Base64)];
    let asked: Vec<&str> = words(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    if asked.is_empty() {
        return Ok((Framing::Bytes, None));
    }
    let found = asked.iter().find_map(|asked| KNOWN.iter().find(|(name, _)| name == asked));
    let (name, framing) = found.ok_or_else(|| {
        bad_request(format!("unable to negotiate protocol: client supports {asked:?}"))
    })?;
    Ok((*framing, Some(name)))
}

/// Switches protocols, and sends the body over the websocket as it comes.
pub(crate) fn carry(
    ctx: &RequestContext,
    upgrade: OnUpgrade,
    body: Body,
    framing: Framing,
    protocol: Option<&'static str>,
) -> Result<Response<Body>, Status> {
    let upgrade = upgrade
        .ok_or_else(|| bad_request("this request must come over a connection of its own"))?;
    let key = ctx.headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad_request("missing key"))?;
    let accept = derive_accept_key(key.as_bytes());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    let shutdown = ctx.server.shutdown.clone();
    let held = Held::of(ctx);
    drop(stdx::task::spawn("apiserver websocket", async move {
        let _held = held;
        let Ok(upgraded) = upgrade.await else { return };
        tokio::select! {
            sent = send(TokioIo::new(upgraded), body, framing) => {
                // The client may simply go away.
                if let Err(error) = sent {
                    tracing::debug!(%error, "a websocket broke");
                }
            }
            () = shutdown.begun() => {}
        }
    }));
    Ok(response)
}

async fn send<S>(io: S, mut body: Body, framing: Framing) -> Result<(), connection::BodyError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let (mut sink, mut messages) = socket.split();
    let sending = async {
        // So that the client knows that the stream has begun, before there is anything in it.
        match framing {
            Framing::Bytes => sink.send(Message::binary(Bytes::new())).await?,
            Framing::Base64 => sink.send(Message::text("")).await?,
            Framing::Text | Framing::Binary => {}
        }
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            sink.send(message(framing, data)).await?;
        }
        sink.send(Message::Close(None)).await?;
        Ok(())
    };
    let leaving = async {
        while let Some(Ok(message)) = messages.next().await {
            if message.is_close() {
                break;
            }
        }
    };
    tokio::select! {
        sent = sending => sent,
        () = leaving => Ok(()),
    }
}

fn message(framing: Framing, data: Bytes) -> Message {
    match framing {
        Framing::Bytes | Framing::Binary => Message::Binary(data),
        Framing::Base64 => Message::text(STANDARD.encode(&data)),
        Framing::Text => Message::text(String::from_utf8_lossy(&data).into_owned()),
    }
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().cloned();
        pairs.map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_websocket_is_asked_for_by_two_headers() {
        let both = headers(&[(UPGRADE, "WebSocket"), (CONNECTION, "keep-alive, Upgrade")]);
        assert!(is_asked(&both));
        assert!(!is_asked(&headers(&[(UPGRADE, "websocket")])));
        assert!(!is_asked(&headers(&[(UPGRADE, "SPDY/3.1"), (CONNECTION, "Upgrade")])));
    }

    #[test]
    fn logs_have_two_protocols_and_a_default() {
        let framing = |text| log_framing(&headers(&[(SEC_WEBSOCKET_PROTOCOL, text)])).ok();
        assert_eq!(framing("binary.k8s.io"), Some((Framing::Bytes, Some("binary.k8s.io"))));
        let base64 = Some((Framing::Base64, Some("base64.binary.k8s.io")));
        assert_eq!(framing("x, base64.binary.k8s.io"), base64);
        assert_eq!(framing("x"), None);
        assert_eq!(log_framing(&HeaderMap::new()).ok(), Some((Framing::Bytes, None)));
    }

    #[tokio::test]
    async fn pieces_become_messages() {
        let (near, far) = tokio::io::duplex(4096);
        let body = Body::chunks([Bytes::from_static(b"hello")].into());
        let sending = send(near, body, Framing::Base64);
        let reading = async {
            let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
            let mut texts = Vec::new();
            while let Some(Ok(Message::Text(text))) = client.next().await {
                texts.push(text.to_string());
            }
            texts
        };
        let (sent, texts) = tokio::join!(sending, reading);
        sent.unwrap();
        assert_eq!(texts, ["", "aGVsbG8="]);
    }
}
