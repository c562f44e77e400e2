//! What names, labels and keys may look like, in upstream's words.
//!
//! Upstream: `apimachinery/pkg/util/validation`. Every function returns the findings; none means
//! valid.

/// Longest DNS label.
pub const DNS_LABEL_MAX: usize = 63;
/// Longest DNS subdomain.
pub const DNS_SUBDOMAIN_MAX: usize = 253;
/// Longest label value and longest name part of a key.
pub const LABEL_MAX: usize = 63;

const LABEL_CHARS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must \
                           start and end with an alphanumeric character";
const QUALIFIED_REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// A lowercase RFC 1123 label.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if value.len() > DNS_LABEL_MAX {
        findings.push(max_chars_error(DNS_LABEL_MAX));
    }
    if !is_dns1123_label(value) {
        if is_dns1123_subdomain(value) {
            // It is a subdomain, and only the dots are wrong.
            findings.push("must not contain dots".to_owned());
        } else {
            findings.push(regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
                 '-', and must start and end with an alphanumeric character",
                "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
                &["my-name", "123-abc"],
            ));
        }
    }
    findings
}

/// A lowercase RFC 1123 subdomain.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        findings.push(max_chars_error(DNS_SUBDOMAIN_MAX));
    }
    if !is_dns1123_subdomain(value) {
        findings.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '-' or '.', and must start and end with an alphanumeric character",
            r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    findings
}

/// A DNS-1035 label.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if value.len() > DNS_LABEL_MAX {
        findings.push(max_chars_error(DNS_LABEL_MAX));
    }
    if !(is_dns1123_label(value) && value.as_bytes()[0].is_ascii_lowercase()) {
        findings.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
             with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    findings
}

/// A DNS subdomain whose first label may be `*`.
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let is_wildcard = value.strip_prefix("*.").is_some_and(is_dns1123_subdomain);
    let mut findings = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        findings.push(max_chars_error(DNS_SUBDOMAIN_MAX));
    }
    if !is_wildcard {
        findings.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS \
             subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and \
             end with an alphanumeric character",
            r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["*.example.com"],
        ));
    }
    findings
}

/// A qualified name: an optional subdomain and `/`, then a name. Label and annotation keys,
/// finalizers, resource and condition names.
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                findings.push("prefix part must be non-empty".to_owned());
            } else {
                // Inside a key, upstream counts bytes and not characters.
                let wrong = dns1123_subdomain(prefix).into_iter().map(|text| {
                    let long = max_chars_error(DNS_SUBDOMAIN_MAX);
                    if text == long { max_len_error(DNS_SUBDOMAIN_MAX) } else { text }
                });
                findings.extend(wrong.map(|text| format!("prefix part {text}")));
            }
            name
        }
        _ => {
            let text = regex_error(
                &format!("a valid label key {LABEL_CHARS}"),
                QUALIFIED_REGEX,
                &["MyName", "my.name", "123-abc"],
            );
            findings.push(format!(
                "{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return findings;
        }
    };
    if name.is_empty() {
        findings.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        findings.push(format!("name part {}", max_len_error(LABEL_MAX)));
    }
    if !is_label_text(name) {
        findings.push(format!(
            "name part {}",
            regex_error(LABEL_CHARS, QUALIFIED_REGEX, &["MyName", "my.name", "123-abc"])
        ));
    }
    findings
}

/// The value of a label.
pub fn label_value(value: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if value.len() > LABEL_MAX {
        findings.push(max_len_error(LABEL_MAX));
    }
    if !value.is_empty() && !is_label_text(value) {
        findings.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', \
             '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    findings
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        findings.push(max_chars_error(DNS_SUBDOMAIN_MAX));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(allowed) {
        findings.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    if value == "." {
        findings.push("must not be '.'".to_owned());
    } else if value == ".." {
        findings.push("must not be '..'".to_owned());
    } else if value.starts_with("..") {
        findings.push("must not start with '..'".to_owned());
    }
    findings
}

/// A C identifier.
pub fn c_identifier(value: &str) -> Vec<String> {
    let head = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let tail = |byte: u8| head(byte) || byte.is_ascii_digit();
    if value.bytes().next().is_some_and(head) && value.bytes().all(tail) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid C identifier must start with alphabetic character or '_', followed by a string \
         of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// The name of a container port: an IANA service name.
pub fn port_name(value: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if value.len() > 15 {
        findings.push(max_chars_error(15));
    }
    if !value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        findings.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        findings.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        findings.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        findings.push("must not begin or end with a hyphen".to_owned());
    }
    findings
}

/// The name of a path segment, such as the names of RBAC objects.
pub fn path_segment(value: &str) -> Vec<String> {
    if value == "." {
        return vec!["may not be '.'".to_owned()];
    }
    if value == ".." {
        return vec!["may not be '..'".to_owned()];
    }
    let refused = ["/", "%"].into_iter().filter(|text| value.contains(text));
    refused.map(|text| format!("may not contain '{text}'")).collect()
}

/// Whether a text is a lowercase RFC 1123 label, whatever its length.
pub fn is_dns1123_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && bytes.iter().all(|byte| edge(byte) || *byte == b'-')
}

/// Whether a text is a lowercase RFC 1123 subdomain, whatever its length.
pub fn is_dns1123_subdomain(value: &str) -> bool {
    value.split('.').all(is_dns1123_label)
}

/// Upstream's text for a label or key that is too long.
pub fn max_len_error(length: usize) -> String {
    format!("must be no more than {length} bytes")
}

/// Upstream's text for a name that is too long.
pub fn max_chars_error(length: usize) -> String {
    format!("must be no more than {length} characters")
}

/// Upstream's text for what does not match an expression.
pub fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    let quoted: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    let lead =
        if quoted.is_empty() { String::new() } else { format!("e.g. {}", quoted.join(" or ")) };
    format!("{message} ({lead}regex used for validation is '{regex}')")
}

fn is_label_text(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_names_have_no_findings() {
        assert!(dns1123_label("a-1").is_empty());
        assert!(dns1123_subdomain("a.b-c.1").is_empty());
        assert!(dns1035_label("a-1").is_empty());
        assert!(qualified_name("example.com/My_Name.1").is_empty());
        assert!(label_value("").is_empty());
        assert!(config_map_key("_a.B-1").is_empty());
        assert!(port_name("http-alt8").is_empty());
    }

    #[test]
    fn findings_are_in_upstream_words() {
        assert_eq!(
            dns1123_label("A"),
            ["a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
              '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
              '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"]
        );
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(dns1035_label("1a").len(), 1);
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    }
}
