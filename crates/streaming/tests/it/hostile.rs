//! Clients that send anything at all: connections end, nothing panics, nothing is kept.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::Request;
use proptest::prelude::*;
use streaming::{Dial, Outcome, Process, Purpose, Start, Upgrade, Wanted};
use streaming::{serve_ports, serve_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Every way in.
const PROTOCOLS: [(&str, &str, Purpose); 9] = [
    ("websocket", "v5.channel.k8s.io", Purpose::Process),
    ("websocket", "v4.channel.k8s.io", Purpose::Process),
    ("websocket", "v4.base64.channel.k8s.io", Purpose::Process),
    ("websocket", "channel.k8s.io", Purpose::Process),
    ("websocket", "base64.channel.k8s.io", Purpose::Process),
    ("SPDY/3.1", "v4.channel.k8s.io", Purpose::Process),
    ("SPDY/3.1", "portforward.k8s.io", Purpose::Ports),
    ("websocket", "SPDY/3.1+portforward.k8s.io", Purpose::Ports),
    ("websocket", "v4.base64.channel.k8s.io", Purpose::Ports),
];

fn upgrade(protocol: &str, name: &str, purpose: Purpose) -> Upgrade {
    let request = Request::builder()
        .header("connection", "Upgrade")
        .header("upgrade", protocol)
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", name)
        .header("x-stream-protocol-version", name)
        .body(())
        .expect("a request");
    Upgrade::negotiate(&request, purpose).expect("the protocol is known").0
}

/// A process that reads nothing and ends when its client does.
fn start() -> Start {
    async {
        let exit = std::future::pending::<Outcome>().boxed();
        Ok(Process { stdin: None, stdout: None, stderr: None, resize: None, exit })
    }
    .boxed()
}

/// Sends the bytes and leaves; the connection must end in time.
async fn survive(protocol: (&str, &str, Purpose), bytes: &[u8]) {
    let agreed = upgrade(protocol.0, protocol.1, protocol.2);
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let serving = async {
        // A client that breaks the protocol is an error like any other.
        match protocol.2 {
            Purpose::Process => {
                let wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
                serve_process(agreed, server, wanted, start()).await.ok();
            }
            Purpose::Ports => {
                let dial: Dial = Arc::new(|_| async { Err("closed".to_owned()) }.boxed());
                serve_ports(agreed, server, &[80], dial).await.ok();
            }
        }
    };
    let sending = async {
        client.write_all(bytes).await.ok();
        client.shutdown().await.ok();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.ok();
        rest.len()
    };
    let both = async { tokio::join!(serving, sending) };
    let done = tokio::time::timeout(Duration::from_secs(20), both).await;
    let ((), answered) = done.expect("the connection ends");
    // What comes back to a client that has left is no more than a few messages.
    assert!(answered < 64 << 10, "{answered} bytes");
}

fn run(protocol: (&str, &str, Purpose), bytes: &[u8]) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(survive(protocol, bytes));
}

/// A masked frame of a websocket.
fn websocket_frame(opcode: u8, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![opcode & 0x0f | if fin { 0x80 } else { 0 }];
    match u8::try_from(payload.len()) {
        Ok(length @ 0..=125) => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    // A mask of zeros leaves the payload as it is.
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// A control or data frame of SPDY with any content.
fn spdy_frame(head: [u8; 4], flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut frame = head.to_vec();
    frame.push(flags);
    frame.extend_from_slice(&length[1..]);
    frame.extend_from_slice(payload);
    frame
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_at_random_end_the_connection(
        which in 0..PROTOCOLS.len(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        run(PROTOCOLS[which], &bytes);
    }

    #[test]
    fn frames_at_random_end_the_connection(
        which in 0..PROTOCOLS.len(),
        frames in prop::collection::vec(
            (any::<u8>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
    ) {
        let protocol = PROTOCOLS[which];
        let mut bytes = Vec::new();
        for (byte, flag, payload) in &frames {
            if protocol.0 == "websocket" {
                // A tunnel has frames within its messages.
                let inner = if protocol.1.starts_with("SPDY") {
                    spdy_frame([0x80, 3, 0, byte % 12], u8::from(*flag), payload)
                } else {
                    payload.clone()
                };
                bytes.extend(websocket_frame(byte % 3, *flag, &inner));
            } else {
                let head = if *flag { [0x80, 3, 0, byte % 12] } else { [0, 0, 0, *byte] };
                bytes.extend(spdy_frame(head, byte & 1, payload));
            }
        }
        run(protocol, &bytes);
    }
}

#[test]
fn a_frame_that_says_it_is_huge_ends_the_connection() {
    for protocol in PROTOCOLS {
        let frame: &[u8] = if protocol.0 == "websocket" {
            b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"
        } else {
            b"\x80\x03\0\x01\0\xff\xff\xff"
        };
        run(protocol, frame);
    }
}
