//! One repository at one host.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderValue, Method, StatusCode};
use image::{Descriptor, Digest, MANIFEST_MEDIA_TYPES};

use crate::auth::{self, Credentials};
use crate::error::PullError;
use crate::hosts::Host;
use crate::wire::{Answer, Ask, Body, Wire};

/// Registries refuse larger manifests, too.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

const DIGEST: &str = "docker-content-digest";

/// A repository, and what was learned about how to ask for it.
pub(crate) struct Repository {
    pub(crate) host: Host,
    wire: Wire,
    path: String,
    credentials: Option<Credentials>,
    /// What the last successful request was sent with.
    authorization: Mutex<Option<HeaderValue>>,
}

/// A manifest or an index, as it came.
pub(crate) struct Manifest {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
}

impl Repository {
    /// `credentials` are those of the registry; a mirror never gets them.
    pub(crate) fn new(
        host: Host,
        wire: Wire,
        path: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Self, PullError> {
        let credentials = credentials.filter(|_| host.is_registry).cloned();
        let unasked = credentials.as_ref().map(auth::unasked).transpose()?.flatten();
        let authorization = Mutex::new(unasked);
        Ok(Self { host, wire, path: path.to_owned(), credentials, authorization })
    }

    /// What a tag or a digest points to here. A registry that does not tell answers `None`.
    pub(crate) async fn head(&self, reference: &str) -> Result<Option<Digest>, PullError> {
        let answer = self.ask(Method::HEAD, "manifests", reference, None).await?;
        Ok(told(&answer))
    }

    /// The document that a tag or a digest points to.
    pub(crate) async fn manifest(
        &self,
        reference: &str,
        want: Option<&Digest>,
    ) -> Result<Manifest, PullError> {
        let answer = self.ask(Method::GET, "manifests", reference, None).await?;
        let media_type = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let told = told(&answer);
        let bytes = answer.body.whole("manifest", DOCUMENT_BYTES_MAX).await?;
        let digest = Digest::of(&bytes);
        if let Some(want) = want.or(told.as_ref()).filter(|want| **want != digest) {
            return Err(content("manifest", want, &digest));
        }
        Ok(Manifest { bytes, digest, media_type })
    }

    /// A small blob, whole.
    pub(crate) async fn small_blob(&self, blob: &Descriptor) -> Result<Bytes, PullError> {
        let limit = DOCUMENT_BYTES_MAX;
        if blob.size > limit {
            return Err(PullError::TooLarge { what: format!("blob {}", blob.digest), limit });
        }
        let body = self.blob(blob, 0).await?.0;
        let bytes = body.whole(&format!("blob {}", blob.digest), blob.size).await?;
        let digest = Digest::of(&bytes);
        if digest != blob.digest {
            return Err(content(&format!("blob {}", blob.digest), &blob.digest, &digest));
        }
        Ok(bytes)
    }

    /// A blob without its first `from` bytes, as well as the registry can, and where what comes
    /// begins.
    pub(crate) async fn blob(
        &self,
        blob: &Descriptor,
        from: u64,
    ) -> Result<(Body, u64), PullError> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let digest = blob.digest.to_string();
        let answer = self.ask(Method::GET, "blobs", &digest, range.as_deref()).await?;
        let start = match answer.status {
            StatusCode::PARTIAL_CONTENT => {
                let header = answer.headers.get(CONTENT_RANGE);
                let start = header.and_then(|value| value.to_str().ok()).and_then(range_start);
                start.filter(|start| *start <= from).ok_or_else(|| PullError::Content {
                    what: format!("range of blob {digest}"),
                    want: from.to_string(),
                    got: start.map_or_else(|| "nothing".to_owned(), |start| start.to_string()),
                })?
            }
            _ => 0,
        };
        let length = answer.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length = length.and_then(|text| text.parse::<u64>().ok());
        let want = blob.size.saturating_sub(start);
        if let Some(got) = length.filter(|length| *length != want) {
            let what = format!("size of blob {digest}");
            return Err(PullError::Content { what, want: want.to_string(), got: got.to_string() });
        }
        Ok((answer.body, start))
    }

    async fn ask(
        &self,
        method: Method,
        what: &str,
        reference: &str,
        range: Option<&str>,
    ) -> Result<Answer, PullError> {
        let url = self.host.url(&self.path, what, reference);
        let url = url.map_err(|source| PullError::Request {
            method: method.clone(),
            url: format!("{}/{}/{what}/{reference}", self.host.authority, self.path),
            source: Box::new(source),
        })?;
        let mut ask = Ask { method: method.clone(), ..Ask::get(url) };
        ask.headers.extend(self.host.headers.iter().cloned());
        if what == "manifests" {
            let types = HeaderValue::try_from(MANIFEST_MEDIA_TYPES.join(", "));
            ask.headers.extend(types.map(|types| (ACCEPT, types)));
        }
        if let Some(Ok(range)) = range.map(HeaderValue::try_from) {
            ask.headers.insert(RANGE, range);
        }
        ask.authorization = lock(&self.authorization).clone();
        let mut answer = self.wire.send(ask.clone()).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            let scheme = &self.host.scheme;
            let credentials = self.credentials.as_ref();
            let value =
                auth::authorize(&self.wire, scheme, &answer.headers, credentials, &self.path)
                    .await?;
            ask.authorization = Some(value.clone());
            answer = self.wire.send(ask).await?;
            *lock(&self.authorization) = Some(value);
        }
        match answer.status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(answer),
            StatusCode::NOT_FOUND => {
                let separator =
                    if what == "manifests" && !reference.contains(':') { ":" } else { "@" };
                let host = &self.host.authority;
                Err(PullError::NotFound(format!("{host}/{}{separator}{reference}", self.path)))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(PullError::Denied(answer.unexpected(&method).to_string()))
            }
            _ => Err(answer.unexpected(&method)),
        }
    }
}

/// The digest that the registry says its answer has; ours is what counts.
fn told(answer: &Answer) -> Option<Digest> {
    let value = answer.headers.get(DIGEST)?.to_str().ok()?;
    Digest::parse(value).ok()
}

/// Where `bytes 10-19/20` begins.
fn range_start(text: &str) -> Option<u64> {
    text.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

pub(crate) fn content(what: &str, want: &Digest, got: &Digest) -> PullError {
    PullError::Content { what: what.to_owned(), want: want.to_string(), got: got.to_string() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
