//! Request lines that Go's server takes and our HTTP parser does not.
//!
//! `curl '…/pods?labelSelector=a>1'` sends the sign as it is. RFC 3986 forbids that, our parser
//! refuses it, upstream does not mind. This stream stands between TLS and the parser of an HTTP/1
//! connection and escapes such characters in request lines.
//!
//! To know where request lines are it follows the messages: line, headers, body of known length. From
//! the first message that it cannot follow (chunked, or an upgrade) everything passes as it is.
//! HTTP/2 has no request lines, and its connections do not come here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Characters that mean something to our parser, or that it refuses.
const ESCAPED: &[u8] = b"\"#<>\\^`{|}";
/// Bytes read at once while looking at a head.
const READ_BYTES: usize = 4096;
/// Headers that matter are shorter; of longer ones the rest need not be kept.
const HEADER_BYTES: usize = 256;
/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// A stream with escaped request lines.
pub(super) struct Lenient<S> {
    inner: S,
    scanner: Scanner,
    /// Escaped bytes on their way, and how many of them have been handed out.
    ready: Vec<u8>,
    taken: usize,
}

impl<S> Lenient<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, scanner: Scanner::default(), ready: Vec::new(), taken: 0 }
    }

    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) {
        let rest = &self.ready[self.taken..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.taken += count;
        if self.taken == self.ready.len() {
            // Bodies pass by without the buffer, so it is not kept either.
            (self.ready, self.taken) = (Vec::new(), 0);
        }
    }
}

impl<S: AsyncRead + Unpin> Lenient<S> {
    /// Bodies are large: they go straight to where they are wanted.
    fn poll_body(
        &mut self,
        left: u64,
        ctx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.inner).poll_read(ctx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        self.scanner.state = Scanner::after_body(left, read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken < this.ready.len() {
            this.hand_out(buf);
            return Poll::Ready(Ok(()));
        }
        match this.scanner.state {
            State::Raw => return Pin::new(&mut this.inner).poll_read(ctx, buf),
            State::Body(left) => return this.poll_body(left, ctx, buf),
            State::Line | State::Headers => {}
        }
        let mut bytes = [0; READ_BYTES];
        let mut read = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut this.inner).poll_read(ctx, &mut read))?;
        this.scanner.scan(read.filled(), &mut this.ready);
        this.hand_out(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(ctx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(ctx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(ctx)
    }
}

/// Where in a message the next byte belongs.
enum State {
    /// In a request line. Leads to its headers.
    Line,
    /// In the headers. Leads to a body, to the next line, or to the end of all looking.
    Headers,
    /// In a body with this many bytes left. Leads to the next line.
    Body(u64),
    /// Nowhere that is known; stays so.
    Raw,
}

struct Scanner {
    state: State,
    /// The line so far, up to [`HEADER_BYTES`].
    header: Vec<u8>,
    /// What the headers said about the body; `None` when it cannot be followed.
    length: Option<u64>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { state: State::Line, header: Vec::new(), length: Some(0) }
    }
}

impl Scanner {
    fn scan(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::Raw => return out.extend_from_slice(bytes),
                State::Body(left) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    out.extend_from_slice(&bytes[..count]);
                    bytes = &bytes[count..];
                    self.state = Self::after_body(left, count);
                    continue;
                }
                State::Line => self.line(byte, out),
                State::Headers => {
                    out.push(byte);
                    self.headers(byte);
                }
            }
            bytes = rest;
        }
    }

    fn after_body(left: u64, read: usize) -> State {
        match left - read as u64 {
            0 => State::Line,
            left => State::Body(left),
        }
    }

    fn line(&mut self, byte: u8, out: &mut Vec<u8>) {
        if ESCAPED.contains(&byte) {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
            return;
        }
        out.push(byte);
        if byte != b'\n' {
            self.keep(byte);
            return;
        }
        // A client may begin with HTTP/2 without having agreed on it.
        let is_preface = self.header.starts_with(PREFACE);
        self.header.clear();
        self.state = if is_preface { State::Raw } else { State::Headers };
    }

    fn keep(&mut self, byte: u8) {
        if self.header.len() < HEADER_BYTES {
            self.header.push(byte);
        }
    }

    fn headers(&mut self, byte: u8) {
        if byte != b'\n' {
            return self.keep(byte);
        }
        let header = std::mem::take(&mut self.header);
        let header = header.trim_ascii_end();
        if !header.is_empty() {
            return self.header(header);
        }
        self.state = match self.length {
            None => State::Raw,
            Some(0) => State::Line,
            Some(length) => State::Body(length),
        };
        self.length = Some(0);
    }

    fn header(&mut self, header: &[u8]) {
        let Some(colon) = header.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&header[..colon], header[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            self.length = self.length.and(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding")
            || name.eq_ignore_ascii_case(b"upgrade")
        {
            self.length = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn check(sent: &str, expected: &str) {
        // However the bytes are cut, the outcome is the same.
        for cut in [1, 7, sent.len().max(1)] {
            let chunks = sent.as_bytes().chunks(cut);
            let mut out = Vec::new();
            let mut scanner = Scanner::default();
            chunks.for_each(|chunk| scanner.scan(chunk, &mut out));
            assert_eq!(std::str::from_utf8(&out).unwrap(), expected, "cut by {cut}");
        }
        let mut out = String::new();
        Lenient::new(sent.as_bytes()).read_to_string(&mut out).await.unwrap();
        assert_eq!(out, expected);
    }

    #[tokio::test]
    async fn request_lines_are_escaped_and_nothing_else_is() {
        check("GET /a?b>1 HTTP/1.1\r\nX: <y>\r\n\r\n", "GET /a?b%3E1 HTTP/1.1\r\nX: <y>\r\n\r\n")
            .await;
        check("", "").await;
    }

    #[tokio::test]
    async fn the_line_behind_a_body_is_found() {
        check(
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n<x>GET /{a} HTTP/1.1\r\n\r\nGET /> H",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n<x>GET /%7Ba%7D HTTP/1.1\r\n\r\nGET /%3E H",
        )
        .await;
    }

    #[tokio::test]
    async fn what_cannot_be_followed_passes_as_it_is() {
        for header in ["Transfer-Encoding: chunked", "Upgrade: SPDY/3.1", "Content-Length: x"] {
            let text = format!("POST /a HTTP/1.1\r\n{header}\r\n\r\nGET /> HTTP/1.1\r\n\r\n");
            check(&text, &text).await;
        }
    }

    #[tokio::test]
    async fn http2_passes_as_it_is() {
        let text = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0<\x04\0\0\0\0\0\"{}\n<";
        check(text, text).await;
    }

    #[tokio::test]
    async fn long_bodies_pass_whole() {
        let body = ">".repeat(3 * READ_BYTES + 1);
        let text = format!("PUT /a HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        check(&text, &text).await;
    }
}
