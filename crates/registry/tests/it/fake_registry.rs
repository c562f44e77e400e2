//! A registry in a few lines, which does what it should, or whatever a test says instead.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use image::{Digest, Image, Reference, Store};
use registry::{Config, Credentials, HostsDirectory, Progress, PullError, Registry};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    Whole(Vec<u8>),
    /// These bytes, of so many that were promised, then the end of the connection.
    Broken(Vec<u8>, usize),
    /// These bytes, then nothing more.
    Stalled(Vec<u8>, usize),
    /// Zeros without end, and no word of how many.
    Endless,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: Body::Whole(body.into()) }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Rule = Box<dyn Fn(&Request) -> Option<Reply> + Send + Sync>;

#[derive(Default)]
struct State {
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
    rules: Vec<Arc<Rule>>,
    seen: Vec<Request>,
}

/// The registry. Clones are the same one.
#[derive(Clone)]
pub(crate) struct FakeRegistry {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FakeRegistry {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let serving = registry.clone();
        drop(stdx::task::spawn("registry", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let registry = serving.clone();
                drop(stdx::task::spawn("connection", async move {
                    registry.serve(stream).await.ok();
                }));
            }
        }));
        registry
    }

    /// Serves over TLS, too: where, and the certificate in PEM.
    pub(crate) async fn start_tls(&self, name: &str) -> (SocketAddr, String) {
        let key = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let secret =
            rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], secret)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = self.clone();
        drop(stdx::task::spawn("tls", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, registry) = (acceptor.clone(), serving.clone());
                drop(stdx::task::spawn("tls connection", async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        registry.serve(stream).await.ok();
                    }
                }));
            }
        }));
        (address, key.cert.pem())
    }

    /// What is answered before anything else.
    pub(crate) fn rule(&self, rule: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) {
        self.state.lock().unwrap().rules.push(Arc::new(Box::new(rule)));
    }

    /// The requests that came, as method and target.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        let seen = self.seen();
        seen.iter().filter(|r| format!("{} {}", r.method, r.target).contains(what)).count()
    }

    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.state.lock().unwrap().blobs.insert(digest.to_string(), bytes.to_vec());
        digest
    }

    /// Under its digest, and under a tag.
    pub(crate) fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut state = self.state.lock().unwrap();
        for name in [tag.to_owned(), digest.to_string()] {
            state.manifests.insert(name, (media_type.to_owned(), bytes.to_vec()));
        }
        digest
    }

    /// The name of the image with this tag.
    pub(crate) fn name(&self, tag: &str) -> String {
        format!("{}/a/b:{tag}", self.address)
    }

    pub(crate) fn reference(&self, tag: &str) -> Reference {
        Reference::parse(&self.name(tag)).unwrap()
    }

    pub(crate) async fn serve(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let Some(request) = read_request(&mut stream, &mut buffer).await? else {
                return Ok(());
            };
            let rules = {
                let mut state = self.state.lock().unwrap();
                state.seen.push(request.clone());
                state.rules.clone()
            };
            let reply = rules.iter().find_map(|rule| rule(&request));
            let reply = reply.unwrap_or_else(|| self.answer(&request));
            if !write_reply(&mut stream, &request, reply).await? {
                return Ok(());
            }
        }
    }

    fn answer(&self, request: &Request) -> Reply {
        let state = self.state.lock().unwrap();
        let path = request.target.split('?').next().unwrap();
        let last = path.rsplit('/').next().unwrap();
        if path.contains("/manifests/") {
            let Some((media_type, bytes)) = state.manifests.get(last) else {
                return Reply::new(404, "");
            };
            let digest = Digest::of(bytes).to_string();
            return Reply::new(200, bytes.clone())
                .with("content-type", media_type)
                .with("docker-content-digest", &digest);
        }
        let Some(bytes) = state.blobs.get(last) else { return Reply::new(404, "") };
        let range = request.header("range").strip_prefix("bytes=");
        match range.and_then(|range| range.strip_suffix('-')).map(|from| from.parse().unwrap()) {
            None => Reply::new(200, bytes.clone()),
            Some(from) => {
                let (last, all) = (bytes.len() - 1, bytes.len());
                let range = format!("bytes {from}-{last}/{all}");
                Reply::new(206, &bytes[from..]).with("content-range", &range)
            }
        }
    }
}

async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<Request>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ');
    let mut headers = BTreeMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        stream.read_buf(buffer).await?;
    }
    Ok(Some(Request {
        method: first.next().unwrap().to_owned(),
        target: first.next().unwrap().to_owned(),
        headers,
        body: String::from_utf8(buffer.drain(..length).collect()).unwrap(),
    }))
}

/// Answers whether the connection goes on.
async fn write_reply(
    stream: &mut (impl AsyncWrite + Unpin),
    request: &Request,
    reply: Reply,
) -> std::io::Result<bool> {
    let (length, bytes) = match &reply.body {
        Body::Whole(bytes) => (Some(bytes.len()), &bytes[..]),
        Body::Broken(bytes, length) | Body::Stalled(bytes, length) => (Some(*length), &bytes[..]),
        Body::Endless => (None, &[][..]),
    };
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(length) = length.filter(|_| !head.contains("content-length")) {
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    if request.method == "HEAD" {
        return Ok(true);
    }
    stream.write_all(bytes).await?;
    stream.flush().await?;
    match reply.body {
        Body::Whole(_) => Ok(true),
        Body::Broken(..) => Ok(false),
        Body::Stalled(..) => std::future::pending().await,
        Body::Endless => loop {
            stream.write_all(&[0; 65536]).await?;
        },
    }
}

/// A layer with one file.
pub(crate) fn layer(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(contents.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, contents).unwrap();
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

/// The configuration of an image of these layers.
pub(crate) fn config(architecture: &str, layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> =
        layers.iter().map(|l| format!("{:?}", Digest::of(l).to_string())).collect();
    format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    )
    .into_bytes()
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> String {
    let digest = Digest::of(bytes);
    format!(r#""mediaType":"{media_type}","digest":"{digest}","size":{}"#, bytes.len())
}

/// A manifest of a configuration and layers as they are sent.
pub(crate) fn manifest(media_type: &str, config: &[u8], layers: &[Vec<u8>]) -> Vec<u8> {
    let layers: Vec<String> = layers
        .iter()
        .map(|l| format!("{{{}}}", descriptor("application/vnd.oci.image.layer.v1.tar", l)))
        .collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{{{}}},"layers":[{}]}}"#,
        descriptor("application/vnd.oci.image.config.v1+json", config),
        layers.join(",")
    )
    .into_bytes()
}

impl FakeRegistry {
    /// An image of these layers, each sent in a form of its own.
    pub(crate) fn put_image(&self, tag: &str, layers: &[Vec<u8>]) -> Digest {
        let plain: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        let config = config(image::architecture(), &plain);
        let forms = layers.iter().enumerate().map(|(number, layer)| match number % 3 {
            0 => gzip(layer),
            1 => zstd::stream::encode_all(layer.as_slice(), 1).unwrap(),
            _ => layer.clone(),
        });
        let sent: Vec<Vec<u8>> = forms.collect();
        for blob in sent.iter().chain([&config]) {
            self.put_blob(blob);
        }
        self.put_manifest(tag, DOCKER_MANIFEST, &manifest(DOCKER_MANIFEST, &config, &sent))
    }
}

/// A store, and what pulls into it.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) told: Mutex<Vec<Progress>>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        let hosts = HostsDirectory::new(dir.path().join("certs.d"));
        let patience = Duration::from_millis(400);
        let config = Config { hosts, patience, ..Config::default() };
        Self { store, config, dir, told: Mutex::default() }
    }

    /// Writes the `hosts.toml` of a registry.
    pub(crate) fn configure(&self, domain: &str, text: &str) {
        let directory = self.dir.path().join("certs.d").join(domain);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("hosts.toml"), text).unwrap();
    }

    pub(crate) fn registry(&self) -> Registry {
        let clock = Arc::new(clock::SystemClock);
        Registry::new(self.config.clone(), self.store.clone(), clock)
    }

    pub(crate) async fn pull(&self, reference: &Reference) -> Result<Image, PullError> {
        self.pull_as(reference, None).await
    }

    pub(crate) async fn pull_as(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Image, PullError> {
        let told = |progress| self.told.lock().unwrap().push(progress);
        let pulling = self.registry();
        let pulled = pulling.pull(reference, credentials, &told);
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, pulled).await.expect("a pull ends")
    }

    /// The contents of a file of an image.
    pub(crate) fn read(&self, image: &Image, name: &str) -> Option<Vec<u8>> {
        let layers = self.store.lease("test", std::slice::from_ref(image)).unwrap().remove(0);
        self.store.release("test").unwrap();
        layers.iter().find_map(|layer| std::fs::read(layer.join(name)).ok())
    }

    /// Files of the store, once the collector was there.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        self.store.gc().unwrap();
        let list = |sub: &str| {
            let entries = std::fs::read_dir(self.store.dir().join(sub)).unwrap();
            entries.map(|e| e.unwrap().path().display().to_string()).collect::<Vec<_>>()
        };
        ["blobs/sha256", "layers", "tmp", "names", "images"].into_iter().flat_map(list).collect()
    }
}

/// Error and causes.
pub(crate) fn chain(error: &PullError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

pub(crate) fn path_of(node: &Node, name: &str) -> std::path::PathBuf {
    Path::new(node.dir.path()).join(name)
}
