//! Websockets: channels for commands, and a tunnel for SPDY.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use crate::upgrade::Framing;

/// Larger messages end the connection. Clients send at most 32 KiB at a time.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What the tunnel holds in each direction.
const TUNNEL_BYTES: usize = 64 << 10;

/// Makes a websocket of an upgraded connection.
pub(crate) async fn accept<S>(io: S) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// A message on a channel.
pub(crate) fn message(framing: Framing, channel: u8, data: &[u8]) -> Message {
    if framing == Framing::Base64 {
        let mut text = char::from(b'0' + channel).to_string();
        STANDARD.encode_string(data, &mut text);
        return Message::text(text);
    }
    let mut bytes = Vec::with_capacity(data.len() + 1);
    bytes.push(channel);
    bytes.extend_from_slice(data);
    Message::binary(bytes)
}

/// Channel and data of a message; `None` when it has no channel.
pub(crate) fn parse(framing: Framing, message: Message) -> io::Result<Option<(u8, Bytes)>> {
    let mut data = match message {
        Message::Binary(data) => data,
        Message::Text(text) => Bytes::from(text),
        _ => return Ok(None),
    };
    if data.is_empty() {
        return Ok(None);
    }
    let channel = data.split_to(1)[0];
    if framing != Framing::Base64 {
        return Ok(Some((channel, data)));
    }
    let channel = channel.checked_sub(b'0').ok_or(io::ErrorKind::InvalidData)?;
    let data = STANDARD.decode(&data).map_err(io::Error::other)?;
    Ok(Some((channel, Bytes::from(data))))
}

/// The message that ends a connection in order.
pub(crate) fn close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// What is inside the binary messages of a websocket, as a connection.
pub(crate) async fn tunnel<S>(io: S) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let socket = accept(io).await;
    let (near, far) = tokio::io::duplex(TUNNEL_BYTES);
    // Both end with the websocket or with the connection inside.
    drop(stdx::task::spawn("websocket-tunnel", async move {
        let (mut sink, mut messages) = socket.split();
        let (mut reader, mut writer) = tokio::io::split(far);
        let inward = async {
            while let Some(Ok(message)) = messages.next().await {
                match message {
                    Message::Binary(data) => writer.write_all(&data).await?,
                    Message::Close(_) => break,
                    _ => {}
                }
            }
            io::Result::Ok(())
        };
        let outward = async {
            let mut buffer = vec![0; 32 << 10];
            while let Ok(read @ 1..) = reader.read(&mut buffer).await {
                let data = Bytes::copy_from_slice(&buffer[..read]);
                if sink.send(Message::Binary(data)).await.is_err() {
                    return;
                }
            }
            sink.send(close()).await.ok();
        };
        tokio::select! {
            // What is inside has ended, or the client has: both end the tunnel.
            result = inward => drop(result),
            () = outward => {}
        }
    }));
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_both_framings() {
        for framing in [Framing::Binary, Framing::Base64] {
            let parsed = parse(framing, message(framing, 3, b"\x00hello\xff")).unwrap().unwrap();
            assert_eq!((parsed.0, &parsed.1[..]), (3, &b"\x00hello\xff"[..]));
        }
        assert_eq!(parse(Framing::Binary, Message::Ping(Bytes::new())).unwrap(), None);
        assert!(parse(Framing::Base64, Message::text("0###")).is_err());
    }
}
