//! A client of the cluster's issuer, as a program in a pod is one: it finds the issuer's keys by the
//! issuer's own documents, and verifies a token with them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// What the kubelet mounts into every container.
const MOUNTED: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Verifies the token of a file; its subject.
pub(crate) fn subject(file: &str, audience: &str) -> anyhow::Result<String> {
    let token = std::fs::read_to_string(file).context("the token")?;
    let token = token.trim();
    let (signed, signature) = token.rsplit_once('.').context("no token")?;
    let (header, claims) = signed.split_once('.').context("no token")?;
    let (header, claims) = (part(header)?, part(claims)?);
    let issuer = text(&claims, "iss")?;
    let (kind, document) = get(&format!("{issuer}/.well-known/openid-configuration"))?;
    ensure!(kind == "application/json", "the configuration is {kind}");
    ensure!(text(&document, "issuer")? == issuer, "the issuer is another one: {document}");
    let (kind, keys) = get(text(&document, "jwks_uri")?)?;
    ensure!(kind == "application/jwk-set+json", "the keys are {kind}");
    let keys = keys["keys"].as_array().context("no keys")?;
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).context("no such key")?;
    ensure!(text(key, "alg")? == text(&header, "alg")?, "it is for another algorithm: {key}");
    verify(key, signed.as_bytes(), &decoded(signature)?)?;
    let audiences = claims["aud"].as_array().context("no audience")?;
    ensure!(audiences.iter().any(|one| one == audience), "it is for others: {audiences:?}");
    Ok(text(&claims, "sub")?.to_owned())
}

fn verify(key: &Value, signed: &[u8], signature: &[u8]) -> anyhow::Result<()> {
    if (text(key, "kty")?, text(key, "crv")?) != ("EC", "P-256") {
        bail!("a key of another sort: {key}");
    }
    let mut point = vec![4];
    point.extend(decoded(text(key, "x")?)?);
    point.extend(decoded(text(key, "y")?)?);
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    key.verify(signed, signature).map_err(|_| anyhow::anyhow!("the signature is wrong"))
}

/// Type and body of an answer, with the authority and the token that are mounted.
fn get(url: &str) -> anyhow::Result<(String, Value)> {
    let rest = url.strip_prefix("https://").context("not over TLS")?;
    let (authority, path) = rest.split_at(rest.find('/').context("no path")?);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse()?),
        None => (authority, 443_u16),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(format!("{MOUNTED}/ca.crt"))? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())?;
    let connection = ClientConnection::new(Arc::new(config), name)?;
    let stream = TcpStream::connect((host, port)).with_context(|| authority.to_owned())?;
    let mut stream = StreamOwned::new(connection, stream);
    let token = std::fs::read_to_string(format!("{MOUNTED}/token"))?;
    let headers = format!("Authorization: Bearer {}\r\nConnection: close", token.trim());
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\n{headers}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{url}: {head}: {body}");
    let kind = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
    });
    Ok((kind.unwrap_or_default(), serde_json::from_str(body)?))
}

fn part(text: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&decoded(text)?)?)
}

fn decoded(text: &str) -> anyhow::Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).context("no base64")
}

fn text<'a>(of: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    of[name].as_str().with_context(|| format!("no {name} in {of}"))
}
