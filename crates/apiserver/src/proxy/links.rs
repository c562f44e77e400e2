//! Links in the answers of proxied servers, which do not know where they are seen.
//!
//! A page that a pod serves under `/` is seen under `/api/v1/…/proxy/`: absolute paths in `Location`
//! and in the attributes of HTML get that prefix. Upstream: `apimachinery/pkg/util/proxy/transport.go`.

use std::borrow::Cow;

/// What is put before absolute paths, and for which hosts.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    /// The path of the request without what was asked of the backend.
    path: String,
    /// Names under which the backend may speak of itself.
    hosts: [String; 2],
}

impl Prefix {
    /// For a request with this path, of which `rest` is the backend's.
    pub(super) fn new(path: &str, rest: &str, hosts: [String; 2]) -> Self {
        Self { path: path.strip_suffix(rest).unwrap_or(path).to_owned(), hosts }
    }

    /// The prefix itself.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The URL as the client must see it; other hosts and relative paths stay.
    pub(super) fn apply<'a>(&self, url: &'a str) -> Cow<'a, str> {
        let (host, from_path) = split_host(url);
        let is_other = !host.is_empty() && !self.hosts.iter().any(|own| own == host);
        if is_other || !from_path.starts_with('/') {
            return url.into();
        }
        let end = from_path.find(['?', '#']).unwrap_or(from_path.len());
        let (path, tail) = from_path.split_at(end);
        if path.starts_with(&self.path) {
            return from_path.into();
        }
        let slash = if path.ends_with('/') { "/" } else { "" };
        format!("{}{slash}{tail}", clean(&format!("{}/{path}", self.path))).into()
    }
}

/// The host of a URL, and everything from its path on.
fn split_host(url: &str) -> (&str, &str) {
    let is_scheme = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let rest = match url.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        _ => url,
    };
    let Some(rest) = rest.strip_prefix("//") else { return ("", rest) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    (host, &rest[end..])
}

/// An absolute path without empty parts and dots.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Longer tags pass as they are.
const TAG_BYTES_MAX: usize = 64 << 10;

/// Elements whose content is text whatever it looks like.
const RAW: [&[u8]; 6] = [b"script", b"style", b"textarea", b"title", b"xmp", b"noframes"];

/// Rewrites the links of a page that comes in pieces.
pub(super) struct Rewriter {
    prefix: Prefix,
    /// What may be the beginning of a tag.
    pending: Vec<u8>,
    /// The element whose raw text is being passed.
    raw: Option<&'static [u8]>,
}

impl Rewriter {
    pub(super) fn new(prefix: Prefix) -> Self {
        Self { prefix, pending: Vec::new(), raw: None }
    }

    /// The next piece; what may be the beginning of a tag is kept back.
    pub(super) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.pending.extend_from_slice(piece);
        let mut bytes = std::mem::take(&mut self.pending);
        let mut at = 0;
        while let Some(open) = bytes[at..].iter().position(|byte| *byte == b'<') {
            out.extend_from_slice(&bytes[at..at + open]);
            at += open;
            let Some(end) = tag_end(&bytes[at..]) else {
                if bytes.len() - at <= TAG_BYTES_MAX {
                    bytes.drain(..at);
                    self.pending = bytes;
                    return;
                }
                out.push(b'<');
                at += 1;
                continue;
            };
            self.tag(&bytes[at..at + end], out);
            at += end;
        }
        out.extend_from_slice(&bytes[at..]);
    }

    /// What was kept back.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.pending);
    }

    fn tag(&mut self, tag: &[u8], out: &mut Vec<u8>) {
        let name_end = |from: usize| {
            let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"/>".contains(byte);
            tag[from..].iter().position(is_end).map_or(tag.len(), |at| from + at)
        };
        if let Some(raw) = self.raw {
            let is_end = tag.starts_with(b"</") && tag[2..name_end(2)].eq_ignore_ascii_case(raw);
            if is_end {
                self.raw = None;
            }
            return out.extend_from_slice(tag);
        }
        let end = name_end(1);
        let name = tag[1..end].to_ascii_lowercase();
        self.raw = RAW.into_iter().find(|raw| *raw == name);
        let wanted = attributes_of(&name);
        if wanted.is_empty() {
            return out.extend_from_slice(tag);
        }
        self.attributes(tag, end, wanted, out);
    }

    fn attributes(&self, tag: &[u8], from: usize, wanted: &[&str], out: &mut Vec<u8>) {
        let mut done = 0;
        let mut at = from;
        while let Some(attribute) = next_attribute(tag, at) {
            at = attribute.end;
            let name = &tag[attribute.name.clone()];
            if !wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted.as_bytes())) {
                continue;
            }
            let Ok(value) = std::str::from_utf8(&tag[attribute.value.clone()]) else { continue };
            let rewritten = self.prefix.apply(value);
            out.extend_from_slice(&tag[done..attribute.value.start]);
            out.extend_from_slice(rewritten.as_bytes());
            done = attribute.value.end;
        }
        out.extend_from_slice(&tag[done..]);
    }
}

/// Where a tag or comment that begins here ends; `None` when that is still to come.
fn tag_end(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'!' if bytes.starts_with(b"<!--") => {
            let end = bytes[4..].windows(3).position(|window| window == b"-->")?;
            Some(4 + end + 3)
        }
        // Upstream's tokenizer, too, wants a letter for a tag; anything else is text.
        byte if byte.is_ascii_alphabetic() || b"/!?".contains(byte) => {
            let mut quote = None;
            for (at, byte) in bytes.iter().enumerate().skip(1) {
                match (quote, byte) {
                    (None, b'>') => return Some(at + 1),
                    (None, b'"' | b'\'') => quote = Some(byte),
                    (Some(open), byte) if open == byte => quote = None,
                    _ => {}
                }
            }
            // Not known while `<!-` may become a comment, nor before the bracket.
            None
        }
        _ => Some(1),
    }
}

struct Attribute {
    name: std::ops::Range<usize>,
    value: std::ops::Range<usize>,
    end: usize,
}

/// The next attribute with a value.
fn next_attribute(tag: &[u8], from: usize) -> Option<Attribute> {
    let skip = |from: usize, what: &dyn Fn(u8) -> bool| {
        tag[from..].iter().position(|byte| !what(*byte)).map_or(tag.len(), |at| from + at)
    };
    let is_space = |byte: u8| byte.is_ascii_whitespace();
    let mut at = from;
    loop {
        let start = skip(at, &|byte| is_space(byte) || byte == b'/');
        let name_end = skip(start, &|byte| !is_space(byte) && !b"=>/".contains(&byte));
        if start == name_end {
            // A stray sign; or the end.
            if start + 1 >= tag.len() {
                return None;
            }
            at = start + 1;
            continue;
        }
        let equals = skip(name_end, &is_space);
        if tag.get(equals) != Some(&b'=') {
            at = name_end;
            continue;
        }
        let value = skip(equals + 1, &is_space);
        let name = start..name_end;
        return Some(match tag.get(value) {
            Some(&quote @ (b'"' | b'\'')) => {
                let end = skip(value + 1, &|byte| byte != quote);
                Attribute { name, value: value + 1..end, end: (end + 1).min(tag.len()) }
            }
            _ => {
                let end = skip(value, &|byte| !is_space(byte) && byte != b'>');
                Attribute { name, value: value..end, end }
            }
        });
    }
}

/// The attributes of an element that hold URLs.
fn attributes_of(name: &[u8]) -> &'static [&'static str] {
    match name {
        b"a" | b"area" | b"base" | b"link" => &["href"],
        b"applet" => &["codebase"],
        b"audio" | b"embed" | b"script" | b"source" => &["src"],
        b"blockquote" | b"del" | b"ins" | b"q" => &["cite"],
        b"body" => &["background"],
        b"button" => &["formaction"],
        b"command" => &["icon"],
        b"form" => &["action"],
        b"frame" | b"iframe" => &["longdesc", "src"],
        b"head" => &["profile"],
        b"html" => &["manifest"],
        b"img" => &["longdesc", "src", "usemap"],
        b"input" => &["src", "usemap", "formaction"],
        b"object" => &["classid", "codebase", "data", "usemap"],
        b"video" => &["poster", "src"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix() -> Prefix {
        Prefix::new("/p/proxy/a/b", "/a/b", ["10.0.0.1:80".to_owned(), "here".to_owned()])
    }

    #[test]
    fn absolute_paths_of_the_backend_get_the_prefix() {
        let check = |url: &str, expected: &str| assert_eq!(prefix().apply(url), expected, "{url}");
        check("/x", "/p/proxy/x");
        check("/x/?q=/y#f", "/p/proxy/x/?q=/y#f");
        check("http://here/x", "/p/proxy/x");
        check("//10.0.0.1:80/", "/p/proxy/");
        check("/p/proxy/x", "/p/proxy/x");
        check("/../../x", "/x");
        for same in ["x", "?a", "#a", "http://there/x", "mailto:a@b", "//there/x", ""] {
            check(same, same);
        }
    }

    fn check(page: &str, expected: &str) {
        for cut in [1, 5, page.len().max(1)] {
            let mut rewriter = Rewriter::new(prefix());
            let mut out = Vec::new();
            page.as_bytes().chunks(cut).for_each(|piece| rewriter.push(piece, &mut out));
            rewriter.finish(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "cut by {cut}");
        }
    }

    #[test]
    fn links_of_a_page_are_rewritten_and_the_rest_is_not() {
        check(r#"<a href="/rewriteme">test</a>"#, r#"<a href="/p/proxy/rewriteme">test</a>"#);
        check(
            "<p title='/x'>1 < 2 <IMG alt=/y SRC=/z usemap='/m'/>",
            "<p title='/x'>1 < 2 <IMG alt=/y SRC=/p/proxy/z usemap='/p/proxy/m'/>",
        );
        check("<a name href = '/x' >", "<a name href = '/p/proxy/x' >");
    }

    #[test]
    fn comments_and_scripts_are_text() {
        for text in [
            "<!-- <a href='/x'> --><b>",
            "<script>if (a<b) '<a href=\"/x\">'</script>",
            "<title><a href='/x'></title>",
            "<a href='/x",
            "a < b",
            "<",
        ] {
            check(text, text);
        }
        check(
            "<script src=/s></script><a href=/x>",
            "<script src=/p/proxy/s></script><a href=/p/proxy/x>",
        );
    }

    #[test]
    fn a_tag_without_end_does_not_fill_the_memory() {
        let mut rewriter = Rewriter::new(prefix());
        let mut out = Vec::new();
        rewriter.push(b"<a ", &mut out);
        for _ in 0..200 {
            rewriter.push(&[b'x'; 1024], &mut out);
            assert!(rewriter.pending.len() <= TAG_BYTES_MAX + 1024);
        }
        rewriter.finish(&mut out);
        assert_eq!(out.len(), 3 + 200 * 1024);
    }
}
