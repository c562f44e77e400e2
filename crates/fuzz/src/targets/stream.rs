//! Frames of SPDY and websockets, of exec and port-forward: the connection ends, and in time.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::Request;
use streaming::{
    Dial, Outcome, Process, Purpose, Start, Upgrade, Wanted, serve_ports, serve_process,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Target;

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
/// A connection that goes on for longer hangs.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const TARGET: Target = Target {
    dictionary: &[
        "\u{1}",
        "\u{3}\0\u{1}",
        "streamtype",
        "stdin",
        "error",
        "resize",
        "data",
        "port",
        "requestid",
        "{\"Width\":1,\"Height\":2}",
    ],
    // Buffers of streams are a fixed size each, and the time includes a runtime of its own.
    memory_per_byte: 4096,
    memory_base: 8 << 20,
    nanos_per_byte: 100_000,
    time_base: Duration::from_millis(100),
    ..Target::new("stream", seeds, run)
};

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (at, protocol) in PROTOCOLS.iter().enumerate() {
        let frames: [&[u8]; 3] = if protocol.0 == "websocket" {
            [
                b"\x82\x82\0\0\0\0\0a",
                b"\x82\x98\0\0\0\0\x04{\"Width\":1,\"Height\":2}",
                b"\x89\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8",
            ]
        } else {
            [
                b"\x80\x03\0\x04\0\0\0\x0c\0\0\0\x01\0\0\0\x04\0\0\0\x64",
                b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x01",
                b"\0\0\0\x01\x01\0\0\x02hi",
            ]
        };
        for frame in frames {
            let at = u8::try_from(at).unwrap_or(0);
            seeds.push([&[at], frame].concat());
        }
    }
    seeds
}

fn run(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else { return };
    let protocol = PROTOCOLS[usize::from(*which) % PROTOCOLS.len()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(survive(protocol, bytes));
}

/// Sends the bytes and leaves.
async fn survive((kind, name, purpose): (&str, &str, Purpose), bytes: &[u8]) {
    let request = Request::builder()
        .header("connection", "Upgrade")
        .header("upgrade", kind)
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", name)
        .header("x-stream-protocol-version", name)
        .body(())
        .expect("a request");
    let (agreed, _) = Upgrade::negotiate(&request, purpose).expect("the protocol is known");
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let serving = async {
        match purpose {
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
    let done = tokio::time::timeout(PATIENCE, both).await;
    let ((), answered) = done.expect("the connection ends");
    assert!(answered < 64 << 10, "{answered} bytes for a client that has left");
}

/// A process that reads nothing and ends when its client does.
fn start() -> Start {
    async {
        let exit = std::future::pending::<Outcome>().boxed();
        Ok(Process { stdin: None, stdout: None, stderr: None, resize: None, exit })
    }
    .boxed()
}
