//! Clients of commands, in memory.

use std::collections::HashMap;

use futures::FutureExt;
use http::Request;
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::spdy_frame::{self, Frame};
use crate::spdy_headers::HeaderWriter;
use crate::upgrade::Purpose;

const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };

fn upgrade(kind: &str, protocol: &str) -> Upgrade {
    let request = Request::builder()
        .header("connection", "upgrade")
        .header("upgrade", kind)
        .header("sec-websocket-key", "x")
        .header("sec-websocket-protocol", protocol)
        .header("x-stream-protocol-version", protocol)
        .body(())
        .unwrap();
    Upgrade::negotiate(&request, Purpose::Process).unwrap().0
}

/// A process that says what it reads, and ends with 3 when its input ends.
fn echo() -> Process {
    let (stdin, near) = tokio::io::duplex(1024);
    let (mut near_out, stdout) = tokio::io::duplex(1024);
    let (mut near_err, stderr) = tokio::io::duplex(1024);
    let exit = async move {
        let mut near = near;
        let mut read = Vec::new();
        near.read_to_end(&mut read).await.unwrap();
        near_out.write_all(&read).await.unwrap();
        near_err.write_all(b"oops").await.unwrap();
        Outcome::Exited { code: 3, message: "command failed".into() }
    };
    Process {
        stdin: Some(Box::pin(stdin)),
        stdout: Some(Box::pin(stdout)),
        stderr: Some(Box::pin(stderr)),
        resize: None,
        exit: exit.boxed(),
    }
}

fn serve(upgrade: Upgrade, wanted: Wanted) -> DuplexStream {
    let (client, server) = tokio::io::duplex(4096);
    drop(stdx::task::spawn("server", async move {
        serve_process(upgrade, server, wanted, async { Ok(echo()) }.boxed()).await.unwrap();
    }));
    client
}

async fn collect(socket: &mut WebSocketStream<DuplexStream>, framing: Framing) -> Vec<Vec<u8>> {
    let mut channels = vec![Vec::new(); 4];
    while let Some(Ok(message)) = socket.next().await {
        if let Some((channel, data)) = websocket::parse(framing, message).unwrap() {
            channels[usize::from(channel)].extend_from_slice(&data);
        }
    }
    channels
}

#[tokio::test]
async fn a_command_speaks_on_the_channels_of_a_websocket() {
    let client = serve(upgrade("websocket", "v5.channel.k8s.io"), ALL);
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    socket.send(Message::binary(b"\x00hello".to_vec())).await.unwrap();
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    let channels = collect(&mut socket, Framing::Binary).await;
    assert_eq!(channels[1], b"hello");
    assert_eq!(channels[2], b"oops");
    let status: Value = serde_json::from_slice(&channels[3]).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0]["message"], "3");
}

#[tokio::test]
async fn a_command_without_input_speaks_in_base64() {
    let client =
        serve(upgrade("websocket", "base64.channel.k8s.io"), Wanted { stdin: false, ..ALL });
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let channels = collect(&mut socket, Framing::Base64).await;
    assert_eq!(channels[2], b"oops");
    assert_eq!(channels[3], b"command failed", "the oldest version tells a text");
}

#[tokio::test]
async fn every_protocol_of_a_websocket_tells_how_the_command_ended() {
    for (protocol, framing, tells_status) in [
        ("v5.channel.k8s.io", Framing::Binary, true),
        ("v4.channel.k8s.io", Framing::Binary, true),
        ("v4.base64.channel.k8s.io", Framing::Base64, true),
        ("channel.k8s.io", Framing::Binary, false),
        ("base64.channel.k8s.io", Framing::Base64, false),
    ] {
        let client = serve(upgrade("websocket", protocol), Wanted { stdin: false, ..ALL });
        let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let channels = collect(&mut socket, framing).await;
        assert_eq!(channels[2], b"oops", "{protocol}");
        let status: Option<Value> = serde_json::from_slice(&channels[3]).ok();
        let reason = status.map(|status| status["reason"].clone());
        let expected = tells_status.then(|| json!("NonZeroExitCode"));
        assert_eq!(reason, expected, "{protocol}");
    }
}

#[tokio::test]
async fn a_command_speaks_on_the_streams_of_spdy() {
    let mut client = serve(upgrade("SPDY/3.1", "v4.channel.k8s.io"), ALL);
    let mut headers = HeaderWriter::new().unwrap();
    let mut bytes = bytes::BytesMut::new();
    for (number, kind) in ["error", "stdin", "stdout", "stderr"].into_iter().enumerate() {
        let block = headers.write(&vec![("streamType".into(), kind.into())]).unwrap();
        let stream = u32::try_from(2 * number + 1).unwrap();
        spdy_frame::encode(&Frame::SynStream { stream, fin: false, headers: block }, &mut bytes);
    }
    let data = Bytes::from_static(b"hello");
    spdy_frame::encode(&Frame::Data { stream: 3, fin: true, data }, &mut bytes);
    spdy_frame::encode(&Frame::Ping { id: 7 }, &mut bytes);
    client.write_all(&bytes).await.unwrap();
    let mut buffer = bytes::BytesMut::new();
    let (mut said, mut replies, mut pings) = (HashMap::<u32, Vec<u8>>::new(), 0, 0);
    let mut finished = std::collections::BTreeSet::new();
    while finished.len() < 3 {
        assert_ne!(client.read_buf(&mut buffer).await.unwrap(), 0);
        while let Some(frame) = spdy_frame::decode(&mut buffer).unwrap() {
            match frame {
                Frame::SynReply { .. } => replies += 1,
                Frame::Ping { id } => pings += id,
                Frame::Data { stream, fin, data } => {
                    said.entry(stream).or_default().extend_from_slice(&data);
                    if fin {
                        finished.insert(stream);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((replies, pings), (4, 7));
    assert_eq!(said[&5], b"hello");
    assert_eq!(said[&7], b"oops");
    assert!(String::from_utf8_lossy(&said[&1]).contains("NonZeroExitCode"));
}

#[tokio::test]
async fn the_size_of_the_clients_terminal_reaches_the_process() {
    let (client, server) = tokio::io::duplex(4096);
    let wanted = Wanted { stdin: true, stdout: true, stderr: false, tty: true };
    let (resize, mut sizes) = mpsc::channel(4);
    let process = Process { resize: Some(resize), ..echo() };
    drop(stdx::task::spawn("server", async move {
        let upgrade = upgrade("websocket", "v5.channel.k8s.io");
        let start = async move { Ok(process) }.boxed();
        serve_process(upgrade, server, wanted, start).await.unwrap();
    }));
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let message = [&[4], &br#"{"Width":80,"Height":24}"#[..]].concat();
    socket.send(Message::binary(message)).await.unwrap();
    assert_eq!(sizes.recv().await, Some(TerminalSize { width: 80, height: 24 }));
}
