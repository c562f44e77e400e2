//! Names of fields as expressions write them.
//!
//! Upstream: `apiserver/pkg/cel/escaping.go`.

use std::borrow::Cow;

/// Words of the language that are also names of fields.
pub(crate) const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

const ESCAPES: [(&str, char); 4] =
    [("dot", '.'), ("dash", '-'), ("slash", '/'), ("underscores", '_')];

/// The name of a field in expressions; `None` when no expression can name it.
pub fn escape(name: &str) -> Option<Cow<'_, str>> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__").into());
    }
    let mut chars = name.chars().peekable();
    let starts = chars.peek().is_some_and(|c| c.is_ascii_alphabetic() || "_.-/".contains(*c));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !starts || !name.chars().all(|c| is_plain(c) || ".-/".contains(c)) {
        return None;
    }
    if name.chars().all(is_plain) && !name.contains("__") {
        return Some(name.into());
    }
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match c {
            '_' if chars.peek() == Some(&'_') => {
                chars.next();
                out.push_str("__underscores__");
            }
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            _ => out.push(c),
        }
    }
    Some(out.into())
}

/// The field that an expression names; `None` when the name escapes nothing.
pub fn unescape(name: &str) -> Option<Cow<'_, str>> {
    if !name.contains("__") {
        return Some(name.into());
    }
    let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    if let Some(word) = inner.filter(|word| RESERVED.contains(word)) {
        return Some(word.to_owned().into());
    }
    let (mut out, mut rest) = (String::new(), name);
    while let Some(start) = rest.find("__") {
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let (word, c) = ESCAPES
            .iter()
            .find(|(word, _)| after.strip_prefix(word).is_some_and(|r| r.starts_with("__")))?;
        out.push(*c);
        if *c == '_' {
            out.push('_');
        }
        rest = &after[word.len() + 2..];
    }
    out.push_str(rest);
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_back() {
        let cases = [
            ("a", "a"),
            ("a-b", "a__dash__b"),
            ("a.b/c", "a__dot__b__slash__c"),
            ("namespace", "__namespace__"),
            ("a__b", "a__underscores__b"),
            ("_a", "_a"),
            ("__int__", "__underscores__int__underscores__"),
        ];
        for (name, escaped) in cases {
            assert_eq!(escape(name).as_deref(), Some(escaped), "{name}");
            assert_eq!(unescape(escaped).as_deref(), Some(name), "{escaped}");
        }
        assert_eq!(escape("1a"), None);
        assert_eq!(escape("a b"), None);
        assert_eq!(unescape("__int__"), None);
    }
}
