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
            let value = read(text, DuplicateKeyPolicy::LastWins).map_err(|e| malformed(&e))?;
            Ok((value, vec![finding]))
        }
        Err(error) => Err(malformed(&error)),
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

/// The parser words its errors differently from upstream's, but for the most frequent ones.
fn malformed(error: &Error) -> DecodeError {
    let text = error.to_string();
    DecodeError::Yaml(if text.contains("mapping values are not allowed") {
        "yaml: mapping values are not allowed in this context".to_owned()
    } else if let (true, Some(at)) = (text.contains("unclosed bracket"), error.location()) {
        format!("yaml: line {}: did not find expected node content", at.line())
    } else {
        format!("yaml: {text}")
    })
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
