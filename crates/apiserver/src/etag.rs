//! Answers that a client may have already.

use std::fmt::Write as _;

use http::header::{ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use sha2::{Digest, Sha512};

use crate::render::respond;
use connection::Body;

/// A strong hash of an answer, as upstream prints it.
pub(crate) fn strong(bytes: &[u8]) -> String {
    Sha512::digest(bytes).iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02X}");
        out
    })
}

/// The body, or 304 for a client that says it has the one with this hash.
pub(crate) fn answer(
    headers: &HeaderMap,
    content_type: &'static str,
    body: Body,
    hash: &str,
) -> Response<Body> {
    let etag = format!("\"{hash}\"");
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| {
        known.split(',').map(str::trim).any(|known| known == "*" || known == etag)
    });
    let mut response = if is_known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond(StatusCode::OK, content_type, body)
    };
    if let Ok(value) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, value);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(known: &'static str) -> StatusCode {
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, HeaderValue::from_static(known));
        answer(&headers, "text/plain", Body::empty(), "AB").status()
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        assert_eq!(status("\"AB\""), StatusCode::NOT_MODIFIED);
        assert_eq!(status("\"X\", \"AB\""), StatusCode::NOT_MODIFIED);
        assert_eq!(status("\"X\""), StatusCode::OK);
        assert_eq!(status("AB"), StatusCode::OK);
    }
}
