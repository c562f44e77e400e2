//! HTTP/1.1, as far as an API server speaks it to its extensions.

use std::io::{Read, Write};

use anyhow::{Context, ensure};
use serde_json::Value;

/// The largest header and body that are read.
const HEAD: usize = 64 << 10;
const BODY: usize = 16 << 20;

/// A request that was read whole.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// An answer.
pub(crate) struct Answer {
    code: u16,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(code: u16, text: &str) -> Self {
        Self { code, content_type: "text/plain", body: text.as_bytes().to_vec() }
    }

    pub(crate) fn json(code: u16, value: &Value) -> Self {
        Self { code, content_type: "application/json", body: value.to_string().into_bytes() }
    }
}

/// The next request of a connection; `None` when there is none any more.
pub(crate) fn read(stream: &mut impl Read) -> anyhow::Result<Option<Request>> {
    let Some(head) = head(stream)? else { return Ok(None) };
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().context("a method")?, words.next().context("a target")?);
    let path = target.split('?').next().unwrap_or_default();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut request =
        Request { method: method.to_owned(), path: path.to_owned(), headers, body: Vec::new() };
    if request.header("transfer-encoding") == Some("chunked") {
        request.body = chunks(stream)?;
    } else if let Some(length) = request.header("content-length") {
        let length: usize = length.parse()?;
        ensure!(length <= BODY, "too large");
        request.body = vec![0; length];
        stream.read_exact(&mut request.body)?;
    }
    Ok(Some(request))
}

/// Up to the empty line.
fn head(stream: &mut impl Read) -> anyhow::Result<Option<String>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
        ensure!(head.len() <= HEAD, "too large");
    }
    Ok(Some(String::from_utf8(head)?))
}

fn chunks(stream: &mut impl Read) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            ensure!(line.len() <= HEAD, "too large");
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line)?.trim(), 16)?;
        ensure!(body.len() + size <= BODY, "too large");
        // The end of the chunk's line comes with it.
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk)?;
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return Ok(body);
        }
    }
}

pub(crate) fn write(stream: &mut impl Write, answer: &Answer) -> std::io::Result<()> {
    let Answer { code, content_type, body } = answer;
    let head = format!(
        "HTTP/1.1 {code} -\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut whole = head.into_bytes();
    whole.extend_from_slice(body);
    stream.write_all(&whole)?;
    stream.flush()
}
