//! Pulls through a proxy.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use image::Reference;
use registry::Proxies;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::fake_registry::{FakeRegistry, Node, chain, layer, path_of};

/// A proxy to which every host is the one at `to`. Clones are the same one.
#[derive(Clone)]
struct FakeProxy {
    address: SocketAddr,
    to: SocketAddr,
    /// What it says to those who want a connection, when it does not make one.
    refusal: Option<&'static str>,
    /// First lines of requests, and what was shown.
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl FakeProxy {
    async fn start(to: SocketAddr, refusal: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Self { address, to, refusal, seen: Arc::default() };
        let serving = proxy.clone();
        drop(stdx::task::spawn("proxy", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let proxy = serving.clone();
                drop(stdx::task::spawn("proxied", async move { proxy.serve(stream).await.ok() }));
            }
        }));
        proxy
    }

    async fn serve(&self, client: TcpStream) -> std::io::Result<()> {
        let (from_client, mut to_client) = client.into_split();
        let mut from_client = BufReader::new(from_client);
        let (mut from_host, mut to_host) = TcpStream::connect(self.to).await?.into_split();
        let mut head = self.head(&mut from_client).await?;
        if head[0].starts_with("CONNECT ") {
            if let Some(refusal) = self.refusal {
                let answer = format!("HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n");
                return to_client.write_all(answer.as_bytes()).await;
            }
            to_client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            let there = tokio::io::copy(&mut from_client, &mut to_host);
            let back = tokio::io::copy(&mut from_host, &mut to_client);
            return tokio::try_join!(there, back).map(drop);
        }
        drop(stdx::task::spawn("answers", async move {
            tokio::io::copy(&mut from_host, &mut to_client).await.ok();
        }));
        loop {
            // From the whole address to a path.
            let words: Vec<_> = head[0].splitn(3, ' ').collect();
            let path = words[1].strip_prefix("http://").and_then(|rest| rest.find('/'));
            let path = path.map_or("no-whole-address", |at| &words[1]["http://".len() + at..]);
            head[0] = format!("{} {path} {}", words[0], words[2]);
            to_host.write_all(head.concat().as_bytes()).await?;
            head = self.head(&mut from_client).await?;
        }
    }

    /// The lines of a request without a body.
    async fn head(
        &self,
        from: &mut (impl AsyncBufReadExt + Unpin),
    ) -> std::io::Result<Vec<String>> {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != "\r\n") {
            let mut line = String::new();
            if from.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            lines.push(line);
        }
        let shown = lines.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned())
        });
        let first = lines[0].trim().to_owned();
        self.seen.lock().unwrap().push((first, shown.unwrap_or_default()));
        Ok(lines)
    }

    fn seen(&self) -> Vec<(String, String)> {
        self.seen.lock().unwrap().clone()
    }

    /// The environment of who uses it.
    fn proxies(&self, no_proxy: &str) -> Arc<Proxies> {
        let address = format!("http://me:word@{}", self.address);
        let proxies = Proxies::new(|name| match name {
            "HTTP_PROXY" | "https_proxy" => Some(address.clone()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        });
        Arc::new(proxies.unwrap())
    }
}

/// What the proxy is to be shown: `me:word`.
const SHOWN: &str = "Basic bWU6d29yZA==";

#[tokio::test]
async fn images_come_through_a_proxy() {
    let (registry, mut node) = (FakeRegistry::start().await, Node::new());
    registry.put_image("1", &[layer("a", b"1")]);
    let proxy = FakeProxy::start(registry.address, None).await;
    node.config.proxies = proxy.proxies("");
    node.configure("registry.example", "server = \"http://registry.example:5000\"\n");
    let reference = Reference::parse("registry.example/a/b:1").unwrap();
    let image = node.pull(&reference).await.unwrap();
    assert_eq!(node.read(&image, "a").unwrap(), b"1");
    let seen = proxy.seen();
    assert_eq!(seen.len(), registry.seen().len(), "every request");
    for (line, shown) in seen {
        assert!(line.contains(" http://registry.example:5000/v2/a/b/"), "{line}");
        assert_eq!(shown, SHOWN, "{line}");
    }
    let told = registry.seen();
    assert!(told.iter().all(|request| request.header("host") == "registry.example:5000"));
}

#[tokio::test]
async fn a_proxy_sees_nothing_of_what_goes_over_tls() {
    let (registry, mut node) = (FakeRegistry::start().await, Node::new());
    registry.put_image("1", &[layer("a", b"1")]);
    let (address, certificate) = registry.start_tls("registry.example").await;
    let proxy = FakeProxy::start(address, None).await;
    node.config.proxies = proxy.proxies("");
    let ca = path_of(&node, "ca.pem");
    std::fs::write(&ca, certificate).unwrap();
    let server = format!("server = \"https://registry.example\"\nca = {ca:?}\n");
    node.configure("registry.example", &server);
    let reference = Reference::parse("registry.example/a/b:1").unwrap();
    let image = node.pull(&reference).await.unwrap();
    assert_eq!(node.read(&image, "a").unwrap(), b"1");
    let connect = ("CONNECT registry.example:443 HTTP/1.1".to_owned(), SHOWN.to_owned());
    let seen = proxy.seen();
    assert!(!seen.is_empty() && seen.iter().all(|seen| *seen == connect), "{seen:?}");
    let told = registry.seen();
    assert!(told.iter().all(|request| request.header("proxy-authorization").is_empty()));
}

#[tokio::test]
async fn who_needs_no_proxy_is_asked_directly() {
    let (registry, mut node) = (FakeRegistry::start().await, Node::new());
    registry.put_image("1", &[layer("a", b"1")]);
    let proxy = FakeProxy::start(registry.address, None).await;
    node.config.proxies = proxy.proxies("");
    node.pull(&registry.reference("1")).await.unwrap();
    node.config.proxies = proxy.proxies("example");
    node.configure("registry.example", "server = \"http://registry.example:5000\"\n");
    let reference = Reference::parse("registry.example/a/b:1").unwrap();
    let error = chain(&node.pull(&reference).await.unwrap_err());
    assert!(error.contains("dns error"), "{error}");
    assert_eq!(proxy.seen(), []);
}

#[tokio::test]
async fn what_the_proxy_says_of_a_failure_is_told() {
    let (registry, mut node) = (FakeRegistry::start().await, Node::new());
    let refusal = Some("407 Proxy Authentication Required");
    let proxy = FakeProxy::start(registry.address, refusal).await;
    node.config.proxies = proxy.proxies("");
    let reference = Reference::parse("registry.example/a/b:1").unwrap();
    let error = chain(&node.pull(&reference).await.unwrap_err());
    assert!(error.ends_with("proxyconnect tcp: Proxy Authentication Required"), "{error}");
}
