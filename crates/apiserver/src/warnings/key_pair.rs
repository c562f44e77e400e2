//! Whether a secret has a certificate and its key, in the words of Go's `tls.X509KeyPair`.
//!
//! That they fit together is not checked.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// What is wrong with the data of a secret for TLS.
pub(super) fn of(data: &Value) -> Option<String> {
    let kinds = |field: &str| {
        let encoded = data[field].as_str().unwrap_or_default();
        let text = STANDARD.decode(encoded).unwrap_or_default();
        blocks(&String::from_utf8_lossy(&text))
    };
    let is_key = |kind: &String| kind.ends_with("PRIVATE KEY");
    let certificates = kinds("tls.crt");
    if !certificates.iter().any(|kind| kind == "CERTIFICATE") {
        return Some(match certificates.as_slice() {
            [] => "tls: failed to find any PEM data in certificate input".to_owned(),
            [one] if is_key(one) => {
                "tls: failed to find certificate PEM data in certificate input, \
                                     but did find a private key; PEM inputs may have been switched"
                    .to_owned()
            }
            others => format!(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping \
                 PEM blocks of the following types: [{}]",
                others.join(" ")
            ),
        });
    }
    let keys = kinds("tls.key");
    if keys.iter().any(is_key) {
        return None;
    }
    Some(match keys.as_slice() {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        [one] if one == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        others => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after \
             skipping PEM blocks of the following types: [{}]",
            others.join(" ")
        ),
    })
}

/// The kinds of a text's blocks.
fn blocks(text: &str) -> Vec<String> {
    let mut kinds = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let Some((kind, body)) = after.split_once("-----") else { break };
        let end = format!("-----END {kind}-----");
        match body.split_once(end.as_str()) {
            Some((_, after)) => {
                kinds.push(kind.to_owned());
                rest = after;
            }
            None => rest = after,
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(certificate: &str, key: &str) -> Option<String> {
        let block = |kind: &str| match kind {
            "" => String::new(),
            kind => {
                STANDARD.encode(format!("-----BEGIN {kind}-----\nYQ==\n-----END {kind}-----\n"))
            }
        };
        of(&json!({"tls.crt": block(certificate), "tls.key": block(key)}))
    }

    #[test]
    fn both_must_be_there() {
        let is = |certificate: &str, key: &str, text: &str| {
            assert_eq!(told(certificate, key).as_deref(), Some(text));
        };
        is("", "", "tls: failed to find any PEM data in certificate input");
        is("CERTIFICATE", "", "tls: failed to find any PEM data in key input");
        is(
            "CERTIFICATE",
            "CERTIFICATE",
            "tls: found a certificate rather than a key in the PEM for the private key",
        );
        is(
            "EC PRIVATE KEY",
            "CERTIFICATE",
            "tls: failed to find certificate PEM data in certificate input, but did find a private \
             key; PEM inputs may have been switched",
        );
        assert_eq!(told("CERTIFICATE", "PRIVATE KEY"), None);
    }
}
