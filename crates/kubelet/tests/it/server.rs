//! The HTTPS endpoint, as the API server and others see it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use kubelet::ServingTls;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::world::{World, one};

/// An address of the loopback network that no other test and no other process of tests uses.
fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    IpAddr::from([127, high, low, NEXT.fetch_add(1, Ordering::Relaxed)])
}

struct Endpoint {
    world: World,
    address: IpAddr,
    authority: String,
    client: (String, String),
}

impl Endpoint {
    async fn new() -> Self {
        let address = own_address();
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(vec![]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let serving = CertificateParams::new(vec![address.to_string()]).unwrap();
        let serving = serving.signed_by(&key, &issuer).unwrap().pem();
        let client_key = KeyPair::generate().unwrap();
        let mut client = CertificateParams::new(vec![]).unwrap();
        client.distinguished_name.push(DnType::CommonName, "admin");
        client.distinguished_name.push(DnType::OrganizationName, "system:masters");
        let client = client.signed_by(&client_key, &issuer).unwrap().pem();
        let tls = ServingTls {
            certificate_pem: serving.into_bytes(),
            key_pem: key.serialize_pem().into_bytes(),
            client_ca_pem: authority.clone().into_bytes(),
        };
        let world = World::serving(Some((address, tls))).await;
        Self { world, address, authority, client: (client, client_key.serialize_pem()) }
    }

    async fn connect(&self, with_certificate: bool) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = if with_certificate {
            let chain = vec![CertificateDer::from_pem_slice(self.client.0.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(self.client.1.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        let stream = TcpStream::connect((self.address, 10250)).await.unwrap();
        let name = ServerName::from(self.address);
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// Code and body of a GET, with a token or else with the certificate.
    async fn get(&self, path: &str, token: Option<&str>) -> (StatusCode, String) {
        let stream = self.connect(token.is_none()).await;
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        drop(stdx::task::spawn("client", connection));
        let mut request = Request::get(path).header("host", "node");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer =
            sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let code = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn only_those_who_may_are_answered() {
    let endpoint = Endpoint::new().await;
    assert_eq!(endpoint.get("/healthz", None).await, (StatusCode::OK, "ok".into()));
    assert_eq!(endpoint.get("/healthz", Some("good")).await.0, StatusCode::OK);
    assert_eq!(endpoint.get("/healthz", Some("bad")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(
        endpoint.get("/stats/summary", Some("other")).await,
        (
            StatusCode::FORBIDDEN,
            "Forbidden (user=other, verb=get, resource=nodes, subresource(s)=[stats])\n".into()
        )
    );
}

#[tokio::test]
async fn pods_metrics_and_the_summary_are_served() {
    let endpoint = Endpoint::new().await;
    endpoint.world.create_pod("p", one(json!({})));
    endpoint.world.until_ready("p").await;
    let (_, pods) = endpoint.get("/pods", None).await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    assert_eq!(pods["items"][0]["metadata"]["name"], "p");
    let (_, summary) = endpoint.get("/stats/summary", None).await;
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["node"]["nodeName"], "node");
    let (_, metrics) = endpoint.get("/metrics/resource", None).await;
    assert!(metrics.contains("\nnode_memory_working_set_bytes "), "{metrics}");
    let (_, metrics) = endpoint.get("/metrics", None).await;
    assert!(metrics.contains("\nkubelet_started_pods_total 1\n"), "{metrics}");
    assert_eq!(endpoint.get("/absent", None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn logs_are_served_and_followed_to_their_end() {
    let endpoint = Endpoint::new().await;
    let log = endpoint.world.dir.path().join("0.log");
    endpoint.world.runtime.set_log_path(&log);
    let line = |text: &str| format!("2026-01-01T00:00:00Z stdout F {text}\n");
    std::fs::write(&log, line("one") + &line("two")).unwrap();
    let mut spec = one(json!({}));
    spec["restartPolicy"] = "Never".into();
    endpoint.world.create_pod("p", spec);
    endpoint.world.until_ready("p").await;
    let logs = "/containerLogs/n/p/c";
    assert_eq!(endpoint.get(logs, None).await.1, "one\ntwo\n");
    assert_eq!(endpoint.get(&format!("{logs}?tailLines=1"), None).await.1, "two\n");
    assert_eq!(endpoint.get(&format!("{logs}?limitBytes=2"), None).await.1, "on");
    let path = format!("{logs}?follow=true");
    let following = endpoint.get(&path, None);
    let more = async {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        file.write_all(line("three").as_bytes()).unwrap();
        tokio::task::yield_now().await;
        endpoint.world.runtime.exit("c", 0);
    };
    let (followed, ()) = tokio::join!(following, more);
    assert_eq!(followed.1, "one\ntwo\nthree\n");
    let previous = endpoint.get(&format!("{logs}?previous=true"), None).await;
    assert_eq!(previous.0, StatusCode::BAD_REQUEST);
    assert_eq!(previous.1, "previous terminated container \"c\" in pod \"p\" not found\n");
}

#[tokio::test]
async fn logs_are_served_from_a_time_on_and_by_stream() {
    let endpoint = Endpoint::new().await;
    let log = endpoint.world.dir.path().join("0.log");
    endpoint.world.runtime.set_log_path(&log);
    let lines = [
        "2026-01-01T00:00:00Z stdout F one\n",
        "2026-01-01T00:00:05Z stderr F two\n",
        "2026-01-01T00:00:10Z stdout F three\n",
    ];
    std::fs::write(&log, lines.concat()).unwrap();
    endpoint.world.create_pod("p", one(json!({})));
    endpoint.world.until_ready("p").await;
    for (query, expected) in [
        ("sinceTime=2026-01-01T00:00:05Z", "two\nthree\n"),
        ("sinceTime=2026-01-01T00:00:06Z", "three\n"),
        ("sinceSeconds=100000000", "one\ntwo\nthree\n"),
        ("stream=Stderr", "two\n"),
        ("stream=Stdout", "one\nthree\n"),
        ("stream=All&tailLines=2", "two\nthree\n"),
        ("timestamps=true&tailLines=1", "2026-01-01T00:00:10Z three\n"),
        ("tailLines=0", ""),
    ] {
        let (code, text) = endpoint.get(&format!("/containerLogs/n/p/c?{query}"), None).await;
        assert_eq!((code, text.as_str()), (StatusCode::OK, expected), "{query}");
    }
    let both = "/containerLogs/n/p/c?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z";
    assert_ne!(endpoint.get(both, None).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_command_runs_over_a_websocket() {
    let endpoint = Endpoint::new().await;
    endpoint.world.create_pod("p", one(json!({})));
    endpoint.world.until_ready("p").await;
    let stream = endpoint.connect(true).await;
    let url = "wss://node/exec/n/p/c?command=hello&command=world&output=1";
    let mut request = url.into_client_request().unwrap();
    let protocol = "v5.channel.k8s.io".parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let mut channels = vec![Vec::new(); 4];
    while let Some(Ok(message)) = socket.next().await {
        if message.is_binary() {
            let data = message.into_data();
            channels[usize::from(data[0])].extend_from_slice(&data[1..]);
        }
    }
    assert_eq!(channels[1], b"hello world");
    let status: Value = serde_json::from_slice(&channels[3]).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7");
}

/// What a client may send after the upgrade: nothing, half a frame, one that says it is huge, one
/// for a stream that there is not, one of the other protocol, noise.
fn malformed() -> Vec<Vec<u8>> {
    let mut noise = vec![0x5a; 4096];
    for at in 1..noise.len() {
        let before = usize::from(noise[at - 1]);
        noise[at] = u8::try_from((before * 73 + at * 151 + 7) % 256).unwrap();
    }
    vec![
        vec![],
        vec![0x82],
        vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        vec![0x82, 0x82, 0, 0, 0, 0, 0x63, 0x63],
        vec![0x80, 0x03, 0, 1, 0, 0xff, 0xff, 0xff],
        vec![0x80, 0x03, 0, 1, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        vec![0, 0, 0, 9, 0, 0, 0, 4, 1, 2, 3, 4],
        noise,
    ]
}

#[tokio::test]
async fn clients_that_send_anything_at_all_leave_nothing_running() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let endpoint = Endpoint::new().await;
    endpoint.world.create_pod("p", one(json!({})));
    endpoint.world.until_ready("p").await;
    let exec = "/exec/n/p/c?command=hang&input=1&output=1";
    let ways = [
        (exec, "websocket", "v5.channel.k8s.io"),
        (exec, "SPDY/3.1", "v4.channel.k8s.io"),
        ("/portForward/n/p?port=80", "websocket", "v4.channel.k8s.io"),
        ("/portForward/n/p", "websocket", "SPDY/3.1+portforward.k8s.io"),
        ("/portForward/n/p", "SPDY/3.1", "portforward.k8s.io"),
    ];
    for (path, protocol, name) in ways {
        for bytes in malformed() {
            let mut stream = endpoint.connect(true).await;
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: node\r\nconnection: Upgrade\r\n\
                 upgrade: {protocol}\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 sec-websocket-protocol: {name}\r\nx-stream-protocol-version: {name}\r\n\
                 content-length: 0\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, *b"HTTP/1.1 101", "{protocol} {name}");
            stream.write_all(&bytes).await.ok();
            stream.shutdown().await.ok();
            // What is sent in return is nobody's; that the connection ends is what matters.
            let mut rest = Vec::new();
            let mut stream = stream.take(1 << 20);
            let reading = stream.read_to_end(&mut rest);
            let ended = tokio::time::timeout(std::time::Duration::from_secs(20), reading).await;
            assert!(ended.is_ok(), "{protocol} {name} {bytes:02x?}");
        }
    }
    let started = endpoint.world.runtime.calls().iter().filter(|call| *call == "hang").count();
    assert!(started > 0, "some got as far as a command");
    let runtime = &endpoint.world.runtime;
    endpoint.world.until("no command is left", || runtime.hanging() == 0).await;
    assert_eq!(endpoint.get("/healthz", None).await, (StatusCode::OK, "ok".into()));
}
