//! The answer of a proxied server on its way to the client: its links, and what it may not say.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzEncoder, MultiGzDecoder};
use futures::StreamExt;
use futures::stream;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::links::{Prefix, Rewriter};
use connection::{Body, BodyError};

/// Compressed bytes looked at in one go: a page may unpack to a thousand times its size.
const STEP_BYTES: usize = 1 << 10;

/// Headers by which a backend would decide for this server whose pages may read its answers.
const CROSS_ORIGIN: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];

/// Makes an answer fit for where the client sees it.
pub(super) fn fit(method: &Method, response: Response<Incoming>, prefix: Prefix) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    for name in CROSS_ORIGIN {
        parts.headers.remove(name);
    }
    let location = parts.headers.get(LOCATION).and_then(|value| value.to_str().ok());
    if let Some(location) = location {
        if let Ok(value) = HeaderValue::from_str(&prefix.apply(location)) {
            parts.headers.insert(LOCATION, value);
        }
        return Response::from_parts(parts, Body::Incoming(body));
    }
    let packing = Packing::of(&parts.headers);
    let Some(packing) = packing.filter(|_| is_page(&parts.headers) && *method != Method::HEAD)
    else {
        return Response::from_parts(parts, Body::Incoming(body));
    };
    // Links become longer; the length is known only at the end.
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, rewritten(body, packing, Rewriter::new(prefix)))
}

fn is_page(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media.split(';').next().is_some_and(|media| media.trim() == "text/html")
}

/// How a page is packed.
#[derive(Clone, Copy)]
enum Packing {
    Plain,
    Gzip,
    Deflate,
}

impl Packing {
    /// `None` for what is not understood; such pages pass as they are.
    fn of(headers: &HeaderMap) -> Option<Self> {
        match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"") => Some(Self::Plain),
            Some(b"gzip") => Some(Self::Gzip),
            Some(b"deflate") => Some(Self::Deflate),
            Some(_) => None,
        }
    }
}

/// Unpacks, rewrites and packs again.
struct Pipe {
    unpack: Unpack,
    rewriter: Rewriter,
    pack: Pack,
}

enum Unpack {
    Plain(Vec<u8>),
    Gzip(MultiGzDecoder<Vec<u8>>),
    Deflate(DeflateDecoder<Vec<u8>>),
}

enum Pack {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(DeflateEncoder<Vec<u8>>),
}

impl Pipe {
    fn new(packing: Packing, rewriter: Rewriter) -> Self {
        let level = Compression::default();
        let (unpack, pack) = match packing {
            Packing::Plain => (Unpack::Plain(Vec::new()), Pack::Plain(Vec::new())),
            Packing::Gzip => (
                Unpack::Gzip(MultiGzDecoder::new(Vec::new())),
                Pack::Gzip(GzEncoder::new(Vec::new(), level)),
            ),
            Packing::Deflate => (
                Unpack::Deflate(DeflateDecoder::new(Vec::new())),
                Pack::Deflate(DeflateEncoder::new(Vec::new(), level)),
            ),
        };
        Self { unpack, rewriter, pack }
    }

    fn push(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        let page = match &mut self.unpack {
            Unpack::Plain(out) => {
                out.extend_from_slice(piece);
                std::mem::take(out)
            }
            Unpack::Gzip(decoder) => {
                decoder.write_all(piece)?;
                std::mem::take(decoder.get_mut())
            }
            Unpack::Deflate(decoder) => {
                decoder.write_all(piece)?;
                std::mem::take(decoder.get_mut())
            }
        };
        self.rewrite(&page)
    }

    fn rewrite(&mut self, page: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(page.len());
        self.rewriter.push(page, &mut out);
        self.pack(&out)
    }

    fn pack(&mut self, page: &[u8]) -> io::Result<Vec<u8>> {
        Ok(match &mut self.pack {
            Pack::Plain(out) => {
                out.extend_from_slice(page);
                std::mem::take(out)
            }
            Pack::Gzip(encoder) => {
                encoder.write_all(page)?;
                std::mem::take(encoder.get_mut())
            }
            Pack::Deflate(encoder) => {
                encoder.write_all(page)?;
                std::mem::take(encoder.get_mut())
            }
        })
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        // The decoders keep the last piece until they are told that it is the last.
        let rest = match &mut self.unpack {
            Unpack::Plain(out) => std::mem::take(out),
            Unpack::Gzip(decoder) => {
                decoder.try_finish()?;
                std::mem::take(decoder.get_mut())
            }
            Unpack::Deflate(decoder) => {
                decoder.try_finish()?;
                std::mem::take(decoder.get_mut())
            }
        };
        let mut out = self.rewrite(&rest)?;
        let mut last = Vec::new();
        self.rewriter.finish(&mut last);
        out.extend(self.pack(&last)?);
        out.extend(match self.pack {
            Pack::Plain(rest) => rest,
            Pack::Gzip(encoder) => encoder.finish()?,
            Pack::Deflate(encoder) => encoder.finish()?,
        });
        Ok(out)
    }
}

/// A page under way.
struct Page {
    body: Incoming,
    pipe: Pipe,
    /// What has come and is not yet looked at.
    frame: Bytes,
}

fn rewritten(body: Incoming, packing: Packing, rewriter: Rewriter) -> Body {
    let page = Page { body, pipe: Pipe::new(packing, rewriter), frame: Bytes::new() };
    let pieces = stream::try_unfold(Some(page), |page| async {
        let Some(mut page) = page else { return Ok(None) };
        if page.frame.is_empty() {
            match page.body.frame().await {
                None => return Ok(Some((Bytes::from(page.pipe.finish()?), None))),
                Some(frame) => page.frame = frame?.into_data().unwrap_or_default(),
            }
        }
        let step = page.frame.split_to(page.frame.len().min(STEP_BYTES));
        let out = Bytes::from(page.pipe.push(&step)?);
        Ok::<_, BodyError>(Some((out, Some(page))))
    });
    let filled = |piece: &Result<Bytes, BodyError>| {
        let is_empty = piece.as_ref().is_ok_and(Bytes::is_empty);
        std::future::ready(!is_empty)
    };
    Body::Stream(pieces.filter(filled).boxed())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn rewriter() -> Rewriter {
        Rewriter::new(Prefix::new("/p/x", "/x", [String::new(), String::new()]))
    }

    fn run(packing: Packing, page: &[u8]) -> Vec<u8> {
        let mut pipe = Pipe::new(packing, rewriter());
        let mut out = Vec::new();
        page.chunks(7).for_each(|piece| out.extend(pipe.push(piece).unwrap()));
        out.extend(pipe.finish().unwrap());
        out
    }

    #[test]
    fn packed_pages_are_packed_again() {
        let (page, expected) = (b"<a href=/x>", "<a href=/p/x>");
        assert_eq!(run(Packing::Plain, page), expected.as_bytes());
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(page).unwrap();
        let packed = run(Packing::Gzip, &encoder.finish().unwrap());
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, expected);
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(page).unwrap();
        let packed = run(Packing::Deflate, &encoder.finish().unwrap());
        text.clear();
        flate2::read::DeflateDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_not_packed_as_it_says_is_an_error() {
        let mut pipe = Pipe::new(Packing::Gzip, rewriter());
        assert!(pipe.push(b"this is no gzip at all").is_err());
    }
}
