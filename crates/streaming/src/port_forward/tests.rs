//! Clients of forwarded ports, in memory.

use bytes::BytesMut;
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

/// Port 80 says back what it is told; every other one is closed.
fn dial() -> Dial {
    Arc::new(|port| {
        async move {
            if port != 80 {
                return Err("connection refused".to_owned());
            }
            let (near, far) = tokio::io::duplex(1024);
            drop(stdx::task::spawn("echo", async move {
                let (mut reader, mut writer) = tokio::io::split(far);
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            }));
            Ok(Box::new(near) as Box<dyn Duplex>)
        }
        .boxed()
    })
}

fn serve(kind: &str, protocol: &str) -> DuplexStream {
    let request = Request::builder()
        .header("connection", "upgrade")
        .header("upgrade", kind)
        .header("sec-websocket-key", "x")
        .header("sec-websocket-protocol", protocol)
        .header("x-stream-protocol-version", protocol)
        .body(())
        .unwrap();
    let upgrade = Upgrade::negotiate(&request, Purpose::Ports).unwrap().0;
    let (client, server) = tokio::io::duplex(4096);
    drop(stdx::task::spawn("server", async move {
        serve_ports(upgrade, server, &[80, 81], dial()).await.unwrap();
    }));
    client
}

/// The frames that open a pair of streams for a port and say hello on it.
fn hello(port: u16) -> BytesMut {
    let mut headers = HeaderWriter::new().unwrap();
    let mut bytes = BytesMut::new();
    for (stream, kind) in [(1, "error"), (3, "data")] {
        let block = headers
            .write(&vec![
                ("streamtype".into(), kind.into()),
                ("port".into(), port.to_string()),
                ("requestid".into(), "0".into()),
            ])
            .unwrap();
        spdy_frame::encode(&Frame::SynStream { stream, fin: false, headers: block }, &mut bytes);
    }
    let data = Bytes::from_static(b"hello");
    spdy_frame::encode(&Frame::Data { stream: 3, fin: true, data }, &mut bytes);
    bytes
}

/// What is said on the error and data streams until both are finished.
fn said(buffer: &mut BytesMut, to: &mut (Vec<u8>, Vec<u8>, usize)) {
    while let Some(frame) = spdy_frame::decode(buffer).unwrap() {
        if let Frame::Data { stream, fin, data } = frame {
            if stream == 1 { &mut to.0 } else { &mut to.1 }.extend_from_slice(&data);
            to.2 += usize::from(fin && stream == 1);
        }
    }
}

async fn over_spdy_says(port: u16) -> (Vec<u8>, Vec<u8>) {
    let mut client = serve("SPDY/3.1", "portforward.k8s.io");
    client.write_all(&hello(port)).await.unwrap();
    let (mut buffer, mut told) = (BytesMut::new(), (Vec::new(), Vec::new(), 0));
    while told.2 == 0 {
        assert_ne!(client.read_buf(&mut buffer).await.unwrap(), 0);
        said(&mut buffer, &mut told);
    }
    (told.0, told.1)
}

#[tokio::test]
async fn a_port_is_forwarded_over_spdy() {
    assert_eq!(over_spdy_says(80).await, (Vec::new(), b"hello".to_vec()));
    let (error, data) = over_spdy_says(99).await;
    assert_eq!(error, b"error forwarding port 99 to pod: connection refused");
    assert!(data.is_empty());
}

#[tokio::test]
async fn a_port_is_forwarded_over_spdy_in_a_websocket() {
    let client = serve("websocket", "SPDY/3.1+portforward.k8s.io");
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    socket.send(Message::Binary(hello(80).freeze())).await.unwrap();
    let (mut buffer, mut told) = (BytesMut::new(), (Vec::new(), Vec::new(), 0));
    while told.2 == 0 {
        let message = socket.next().await.unwrap().unwrap();
        buffer.extend_from_slice(&message.into_data());
        said(&mut buffer, &mut told);
    }
    assert_eq!(told.1, b"hello");
}

#[tokio::test]
async fn ports_are_forwarded_on_the_channels_of_a_websocket() {
    let client = serve("websocket", "v4.channel.k8s.io");
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    socket.send(Message::binary(b"\x00hello".to_vec())).await.unwrap();
    let mut channels = vec![Vec::new(); 4];
    while channels[0].len() < 7 || channels[3].len() < 10 {
        let message = socket.next().await.unwrap().unwrap();
        let (channel, data) = websocket::parse(Framing::Binary, message).unwrap().unwrap();
        channels[usize::from(channel)].extend_from_slice(&data);
    }
    assert_eq!(channels[0], b"\x50\x00hello");
    assert_eq!(channels[1], b"\x50\x00");
    assert!(channels[3].starts_with(b"\x51\x00error forwarding port 81"));
}
