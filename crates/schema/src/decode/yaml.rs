//! YAML into JSON values, with YAML 1.1's octals and booleans, as upstream reads it.

use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Error, Options};

use super::DecodeError;

/// The first YAML document as a JSON value, with a duplicate key found in it, worded as upstream words it
/// (`line 8: key "a" already set in map`). Of several duplicates, only the first is reported.
///
/// # Errors
/// When the bytes do not begin with a YAML document.
pub fn yaml_to_value(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| DecodeError::Yaml("yaml: invalid leading UTF-8 octet".to_owned()))?;
    let text = first_document(text);
    match read(text, DuplicateKeyPolicy::Error) {
        Ok(value) => Ok((value, Vec::new())),
        Err(Error::DuplicateMappingKey { key, location, .. }) => {
            let key = key.unwrap_or_default();
            let finding = format!("line {}: key {key:?} already set in map", location.line());
            let value =
                read(text, DuplicateKeyPolicy::LastWins).map_err(|e| malformed(&e, text))?;
            Ok((value, vec![finding]))
        }
        Err(error) => Err(malformed(&error, text)),
    }
}

/// The text up to the mark that ends its first document; upstream's parser does not look further. A
/// mark at the beginning of a line is one wherever it stands, in strings too.
fn first_document(text: &str) -> &str {
    let mut has_content = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let is_mark = |mark: &str| {
            line.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with(BLANK))
        };
        if has_content && (is_mark("---") || is_mark("...")) {
            return &text[..at];
        }
        // What may stand before the first mark: directives, comments and nothing at all.
        let is_preamble = line.starts_with(['%', '#']) || line.trim().is_empty();
        has_content |= !is_preamble;
        at += line.len();
    }
    text
}

const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

fn read(text: &str, duplicates: DuplicateKeyPolicy) -> Result<Value, Error> {
    let mut options = Options::default();
    options.duplicate_keys = duplicates;
    options.legacy_octal_numbers = true;
    options.with_snippet = false;
    serde_saphyr::from_str_with_options(text, options)
}

/// Where upstream's parser says a problem is.
enum Place {
    /// In the line, unless that is the first.
    Line,
    /// In the line before: problems of grammar rather than of letters.
    LineBefore,
    /// In the line after: keys whose colon was waited for.
    LineAfter,
    /// In the last line, where something is still open.
    End,
    /// Nowhere.
    Nowhere,
}

/// What our parser says, what upstream's says of the same, and where.
const PROBLEMS: [(&str, &str, Place); 10] = [
    (
        "mapping values are not allowed",
        "mapping values are not allowed in this context",
        Place::Line,
    ),
    ("tabs disallowed", "found character that cannot start any token", Place::Line),
    ("unexpected character", "found character that cannot start any token", Place::Line),
    ("unclosed quote", "found unexpected end of stream", Place::End),
    ("unknown escape character", "found unknown escape character", Place::Line),
    ("did not find expected key", "did not find expected key", Place::LineBefore),
    (
        "did not find expected '-' indicator",
        "did not find expected '-' indicator",
        Place::LineBefore,
    ),
    ("simple key expected ':'", "could not find expected ':'", Place::LineAfter),
    ("misplaced bracket", "did not find expected node content", Place::LineBefore),
    ("expected <document start>", "found unknown directive name", Place::Nowhere),
];

/// The parser words its errors differently from upstream's, but for the most frequent ones.
fn malformed(error: &Error, input: &str) -> DecodeError {
    let text = error.to_string();
    let line = error.location().map_or(0, |at| at.line());
    if text.contains("unclosed bracket") {
        return DecodeError::Yaml(unclosed(input));
    }
    if let Some(name) = unknown_anchor(&text, error, input) {
        return DecodeError::Yaml(format!("yaml: unknown anchor '{name}' referenced"));
    }
    let known = PROBLEMS.iter().find(|(ours, ..)| text.contains(ours));
    let Some((_, theirs, place)) = known else {
        return DecodeError::Yaml(format!("yaml: {text}"));
    };
    // Upstream counts from zero, and says nothing of line zero.
    let line = match place {
        Place::Line => Some(line).filter(|line| *line > 1),
        Place::LineBefore => line.checked_sub(1).filter(|line| *line > 0),
        Place::LineAfter => Some(line + 1),
        Place::End => {
            Some(lines(input)).filter(|line| *line > 1).and_then(|n| u64::try_from(n).ok())
        }
        Place::Nowhere => None,
    };
    DecodeError::Yaml(match line {
        Some(line) => format!("yaml: line {line}: {theirs}"),
        None => format!("yaml: {theirs}"),
    })
}

/// What is missing in a flow collection that does not end: after its bracket, or after an item.
fn unclosed(input: &str) -> String {
    let wanted = match input.trim_end().chars().last() {
        Some('{' | '[' | ',' | ':') => "did not find expected node content".to_owned(),
        _ => {
            let opened = input.rfind(['{', '[']).map_or(b'{', |at| input.as_bytes()[at]);
            let close = if opened == b'[' { ']' } else { '}' };
            format!("did not find expected ',' or '{close}'")
        }
    };
    format!("yaml: line {}: {wanted}", lines(input))
}

/// Lines of a text, the last one without its end counting too.
fn lines(input: &str) -> usize {
    input.lines().count().max(1)
}

fn unknown_anchor<'i>(text: &str, error: &Error, input: &'i str) -> Option<&'i str> {
    if !text.contains("unknown anchor") {
        return None;
    }
    let at = error.location()?;
    let line = input.lines().nth(usize::try_from(at.line()).ok()?.checked_sub(1)?)?;
    let rest = line.get(usize::try_from(at.column()).ok()?.checked_sub(1)?..)?;
    let name = rest.strip_prefix('*')?;
    name.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_are_read_as_upstream_reads_them() {
        let (value, duplicates) =
            yaml_to_value(b"a: 1\nb: yes\nc: 0644\nd: \"1\"\ne: [x, ~]\nf: 1.5\n").unwrap();
        assert_eq!(
            value,
            json!({"a": 1, "b": true, "c": 420, "d": "1", "e": ["x", null], "f": 1.5})
        );
        assert!(duplicates.is_empty());
    }

    #[test]
    fn a_duplicate_key_is_reported_and_the_last_one_wins() {
        let (value, duplicates) = yaml_to_value(b"a: 1\nb: 2\na: 3\n").unwrap();
        assert_eq!(value, json!({"a": 3, "b": 2}));
        assert_eq!(duplicates, ["line 3: key \"a\" already set in map"]);
    }

    #[test]
    fn errors_are_in_upstream_words() {
        for (text, expected) in [
            ("{", "line 1: did not find expected node content"),
            ("a: [1, 2\n", "line 1: did not find expected ',' or ']'"),
            ("{a: b", "line 1: did not find expected ',' or '}'"),
            ("a: b\n c: d\n", "line 2: mapping values are not allowed in this context"),
            ("a:\n\tb: c\n", "line 2: found character that cannot start any token"),
            ("@x", "found character that cannot start any token"),
            ("\"abc", "found unexpected end of stream"),
            ("a: *x", "unknown anchor 'x' referenced"),
            ("a:\n  b: c\n d: e\n", "line 2: did not find expected key"),
            ("a: b\na", "line 3: could not find expected ':'"),
            ("}", "did not find expected node content"),
        ] {
            let found = yaml_to_value(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(found, format!("yaml: {expected}"), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_refused() {
        assert_eq!(
            yaml_to_value(b"a: b: c").unwrap_err().to_string(),
            "yaml: mapping values are not allowed in this context"
        );
    }

    #[test]
    fn only_the_first_document_is_read() {
        let first = |text: &str| yaml_to_value(text.as_bytes()).unwrap().0;
        assert_eq!(first("a: 1\n---\nb: 2\n"), json!({"a": 1}));
        assert_eq!(first("# x\n--- \na: 1\n---\n}{"), json!({"a": 1}));
        assert_eq!(first("a: 1\n...\n}{"), json!({"a": 1}));
        assert_eq!(first("a: |\n  ---\nb: 2\n"), json!({"a": "---\n", "b": 2}));
        assert_eq!(first("----: 1"), json!({"----": 1}));
    }
}
