//! Compression of large answers for clients that accept it.
//!
//! Upstream: `endpoints/handlers/responsewriters/writers.go`. The bytes are compressed as they are
//! sent, frame by frame, so that neither form of a large list is in memory as a whole.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use futures::stream;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::body::{Body, BodyError};

/// Upstream's threshold: below it, compression costs more than it saves.
const THRESHOLD_BYTES: u64 = 128 << 10;
/// Bytes compressed in one go.
const STEP_BYTES: usize = 64 << 10;

/// Whether the client takes gzip. Upstream looks for the bare word; a quality is another word.
pub fn is_accepted(method: &Method, headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    *method == Method::GET
        && accepted.is_some_and(|text| text.split(',').any(|word| word.trim() == "gzip"))
}

/// Compresses an answer that is large; streams of unknown length are left alone.
pub fn large(response: Response<Body>) -> Response<Body> {
    let is_large = response.body().size_hint().exact().is_some_and(|size| size > THRESHOLD_BYTES);
    let is_ours = matches!(response.body(), Body::Full(_) | Body::Chunks { .. });
    if !is_large || !is_ours || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, compressed(body))
}

/// An answer under way.
struct Packing {
    body: Body,
    encoder: GzEncoder<Vec<u8>>,
    /// What has come and is not yet compressed.
    frame: Bytes,
}

fn compressed(body: Body) -> Body {
    // Upstream's level: the fastest.
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let packing = Packing { body, encoder, frame: Bytes::new() };
    let pieces = stream::try_unfold(Some(packing), |packing| async {
        let Some(mut packing) = packing else { return Ok(None) };
        if packing.frame.is_empty() {
            match packing.body.frame().await {
                None => return Ok(Some((Bytes::from(packing.encoder.finish()?), None))),
                Some(frame) => packing.frame = frame?.into_data().unwrap_or_default(),
            }
        }
        // A step is short, so that the thread is not kept from other requests.
        let step = packing.frame.split_to(packing.frame.len().min(STEP_BYTES));
        packing.encoder.write_all(&step)?;
        let out = Bytes::from(std::mem::take(packing.encoder.get_mut()));
        Ok::<_, BodyError>(Some((out, Some(packing))))
    });
    let filled = |bytes: &Result<Bytes, BodyError>| {
        let is_empty = bytes.as_ref().is_ok_and(Bytes::is_empty);
        std::future::ready(!is_empty)
    };
    Body::Stream(pieces.filter(filled).boxed())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::Read;

    use super::*;

    fn accepts(text: &'static str) -> bool {
        let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(text))]);
        is_accepted(&Method::GET, &headers) && !is_accepted(&Method::POST, &headers)
    }

    #[test]
    fn only_the_bare_word_counts() {
        assert!(accepts("gzip") && accepts("deflate, gzip"));
        assert!(!accepts("deflate, br") && !accepts("gzip;q=0") && !accepts("*"));
    }

    #[tokio::test]
    async fn large_answers_come_back_whole() {
        let piece = Bytes::from(vec![b'x'; 50_000]);
        let chunks: VecDeque<Bytes> = std::iter::repeat_n(piece, 5).collect();
        let response = large(Response::new(Body::chunks(chunks)));
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        let packed = response.into_body().collect().await.unwrap();
        assert!(packed.len() < 10_000, "{}", packed.len());
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).unwrap();
        assert_eq!(text, vec![b'x'; 250_000]);
    }

    #[test]
    fn small_answers_are_left_alone() {
        let response = large(Response::new(Body::from(vec![b'x'; 1000])));
        assert!(!response.headers().contains_key(CONTENT_ENCODING));
    }
}
