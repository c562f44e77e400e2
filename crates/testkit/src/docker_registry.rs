//! Debian's registry on a host of a test, and images that are pushed to it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use image::Digest;

use crate::{Host, ImageBuilder, command};

/// `user:secret`, as the registry keeps it.
const HTPASSWD: &str = "user:$2y$04$eCgs7PIIN3ZUwQxs8FQ2.ugkuLkobaEgE5uFkyX9/HwzgRELsfKXa\n";
/// The same, as it is sent.
const AUTHORIZATION: &str = "Basic dXNlcjpzZWNyZXQ=";

/// The package that the registry is in.
pub const REGISTRY_PACKAGE: &str = "docker-registry";

/// A registry on the loopback of a host, which takes the user `user` with the password `secret`
/// alone. Ends with its value.
pub struct DockerRegistry {
    child: Child,
}

/// One image, as it is pushed.
pub struct Pushed {
    /// Bytes that a pull downloads.
    pub sent: u64,
    /// Bytes of what is unpacked.
    pub unpacked: u64,
}

impl DockerRegistry {
    /// The registry's address, which is the first part of its images' names.
    pub const ADDRESS: &str = "127.0.0.1:5000";

    /// Starts it, with its files below `directory`.
    ///
    /// # Errors
    /// When it is not installed, or does not get ready.
    pub fn start(host: &Host, directory: &Path) -> anyhow::Result<Self> {
        let (data, users) = (directory.join("registry"), directory.join("htpasswd"));
        std::fs::write(&users, HTPASSWD)?;
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {data:?}}}}}\n\
             http: {{addr: {:?}}}\nauth: {{htpasswd: {{realm: test, path: {users:?}}}}}\n",
            Self::ADDRESS
        );
        let file = directory.join("registry.yml");
        std::fs::write(&file, config)?;
        let mut serve = command("docker-registry");
        serve.arg("serve").arg(file).stdin(Stdio::null());
        serve.stdout(Stdio::null()).stderr(Stdio::null());
        let child = host.run(move || serve.spawn()).context("docker-registry; is it installed?")?;
        let registry = Self { child };
        for _ in 0..500 {
            if host.run(|| request("GET", "/v2/", &[], &[])).is_ok() {
                return Ok(registry);
            }
            pause_for(Duration::from_millis(20));
        }
        bail!("the registry is not ready")
    }

    /// Pushes an image of these layers, which are given as tar archives and sent as gzip.
    ///
    /// # Errors
    /// When the registry refuses.
    pub fn push(&self, host: &Host, name: &str, image: ImageBuilder) -> anyhow::Result<Pushed> {
        let (repository, tag) = name.split_once(':').context("a name has a tag")?;
        let (repository, tag) = (repository.to_owned(), tag.to_owned());
        let (config, layers) = image.parts()?;
        let unpacked = layers.iter().map(Vec::len).sum::<usize>() as u64;
        host.run(move || {
            let mut sent = put_blob(&repository, &config)?;
            let mut entries = Vec::new();
            for layer in layers {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&layer)?;
                let layer = encoder.finish()?;
                sent += put_blob(&repository, &layer)?;
                let kind = "application/vnd.docker.image.rootfs.diff.tar.gzip";
                entries.push(descriptor(kind, &layer));
            }
            let kind = "application/vnd.docker.distribution.manifest.v2+json";
            let manifest = format!(
                r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{},"layers":[{}]}}"#,
                descriptor("application/vnd.docker.container.image.v1+json", &config),
                entries.join(",")
            );
            let path = format!("/v2/{repository}/manifests/{tag}");
            request("PUT", &path, &[("content-type", kind)], manifest.as_bytes())?;
            Ok(Pushed { sent, unpacked })
        })
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn descriptor(kind: &str, bytes: &[u8]) -> String {
    let digest = Digest::of(bytes);
    format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{}}}"#, bytes.len())
}

fn put_blob(repository: &str, bytes: &[u8]) -> anyhow::Result<u64> {
    let answer = request("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], &[])?;
    let location = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
    });
    let location = location.context("the registry does not say where to")?;
    let path = location
        .split_once("://")
        .map_or(location.as_str(), |(_, rest)| rest.find('/').map_or("/", |slash| &rest[slash..]));
    let path = format!("{path}&digest={}", Digest::of(bytes));
    request("PUT", &path, &[("content-type", "application/octet-stream")], bytes)?;
    Ok(bytes.len() as u64)
}

/// Sends a request, and gives the head of the answer.
fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<String> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
         Authorization: {AUTHORIZATION}\r\n",
        DockerRegistry::ADDRESS,
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "{method} {path}: {answer}");
    Ok(answer)
}

#[expect(clippy::disallowed_methods, reason = "another process is waited for, whose clock is real")]
fn pause_for(duration: Duration) {
    std::thread::sleep(duration);
}
