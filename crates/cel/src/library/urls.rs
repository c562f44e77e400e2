//! URLs, as Go reads those of requests.

use std::collections::BTreeMap;

use super::{OpaqueValue, no_overload, only_text};
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::value::key::Key;
use crate::value::{Entries, Text, Value};

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        string_to_url: url(string) -> url
        is_url_string: isURL(string) -> bool
        url_get_scheme: <url>.getScheme() -> string
        url_get_host: <url>.getHost() -> string
        url_get_hostname: <url>.getHostname() -> string
        url_get_port: <url>.getPort() -> string
        url_get_escaped_path: <url>.getEscapedPath() -> string
        url_get_query: <url>.getQuery() -> map(string, list(string))
    ",
    functions: &[
        ("url", |args| {
            let text = only_text(args)?;
            match Url::parse(text) {
                Ok(url) => Ok(Value::opaque(OpaqueValue::Url(url))),
                Err(why) => Err(EvaluationError::failed(format!(
                    "URL parse error during conversion from string: parse {text:?}: {why}"
                ))),
            }
        }),
        ("isURL", |args| Ok(Value::Bool(Url::parse(only_text(args)?).is_ok()))),
        ("getScheme", |args| part(args, |url| url.scheme.clone())),
        ("getHost", |args| part(args, |url| url.host.clone())),
        ("getHostname", |args| part(args, |url| url.split_host().0)),
        ("getPort", |args| part(args, |url| url.split_host().1)),
        ("getEscapedPath", |args| part(args, |url| url.path.clone())),
        ("getQuery", query),
    ],
};

/// A URL: absolute, or a path from the root.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    /// Escaped.
    path: String,
    query: String,
}

impl Url {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty url".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        let (scheme, rest) = scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') {
            // `mailto:someone` has neither host nor path, and without a scheme it is relative.
            if scheme.is_empty() {
                return Err("invalid URI for request".to_owned());
            }
            return Ok(Self {
                scheme,
                host: String::new(),
                path: String::new(),
                query: query.to_owned(),
            });
        }
        let (host, path) = match rest.strip_prefix("//") {
            Some(after) if !scheme.is_empty() || !rest.starts_with("///") => {
                let end = after.find('/').unwrap_or(after.len());
                (authority(&after[..end])?, &after[end..])
            }
            _ => (String::new(), rest),
        };
        let path = escaped(path)?;
        Ok(Self { scheme, host, path, query: query.to_owned() })
    }

    /// Name and port.
    fn split_host(&self) -> (String, String) {
        let host = &self.host;
        if let Some(inner) = host.strip_prefix('[')
            && let Some((name, after)) = inner.split_once(']')
        {
            let port = after.strip_prefix(':').unwrap_or("");
            return (name.to_owned(), port.to_owned());
        }
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        (name.to_owned(), port.to_owned())
    }
}

/// Why a text is no URL.
pub(super) fn problem(text: &str) -> Option<String> {
    Url::parse(text).err()
}

fn scheme(text: &str) -> Result<(String, &str), String> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            ':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

/// The host of an authority, whose user is dropped.
fn authority(text: &str) -> Result<String, String> {
    let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
    let port = match host.rsplit_once(']') {
        Some((_, after)) => after,
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    let digits = port.strip_prefix(':');
    let is_port = digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    if !port.is_empty() && !is_port {
        return Err(format!("invalid port {port:?} after host"));
    }
    let is_host = |c: char| {
        c.is_ascii_alphanumeric() || !c.is_ascii() || "-._~!$&'()*+,;=:[]<>\"%".contains(c)
    };
    match host.chars().find(|c| !is_host(*c)) {
        Some(c) => Err(format!("invalid character {:?} in host name", c.to_string())),
        None => Ok(host.to_owned()),
    }
}

/// A path with what must be escaped escaped.
fn escaped(path: &str) -> Result<String, String> {
    let mut out = String::with_capacity(path.len());
    let bytes = path.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'%' => {
                let hex = bytes.get(at + 1..at + 3).unwrap_or_default();
                if hex.len() < 2 || !hex.iter().all(u8::is_ascii_hexdigit) {
                    let shown = String::from_utf8_lossy(&bytes[at..(at + 3).min(bytes.len())]);
                    return Err(format!("invalid URL escape {shown:?}"));
                }
                out.push('%');
            }
            byte if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/[]".contains(byte) => {
                out.push(char::from(*byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out)
}

fn of<'v>(args: &'v [Value<'_>]) -> Outcome<&'v Url> {
    match args {
        [Value::Opaque(value)] => match &**value {
            OpaqueValue::Url(url) => Ok(url),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn part<'a>(args: &[Value<'a>], of_url: fn(&Url) -> String) -> Outcome<Value<'a>> {
    Ok(Value::string(of_url(of(args)?)))
}

fn query<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let mut found: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for pair in of(args)?.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(key), Some(value)) = (unescaped(key), unescaped(value)) {
            found.entry(key).or_default().push(Value::string(value));
        }
    }
    let entries = found
        .into_iter()
        .map(|(key, values)| (Key::String(Text::Shared(key.into())), Value::list(values)));
    Ok(Value::Map(entries.collect::<Entries<'a>>().into()))
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?.to_owned();
                out.push(u8::from_str_radix(&digits, 16).ok()?);
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}
