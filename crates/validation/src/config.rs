//! ConfigMaps and Secrets.

use meta::names;

use crate::FieldError;
use crate::node::{Findings, Node};

/// Most bytes that the values of one object may have together.
const MAX_SIZE: usize = 1024 * 1024;

pub(crate) fn config_map(object: &Node<'_>, out: &mut Findings) {
    let (data, binary) = (object.get("data"), object.get("binaryData"));
    let mut size = 0;
    for (key, value) in data.entries() {
        check_key(key, &value, out);
        if binary.value.get(key).is_some() {
            let detail = "duplicate of key present in binaryData";
            out.push(FieldError::invalid(&value.path, key, detail));
        }
        size += value.text().len();
    }
    for (key, value) in binary.entries() {
        check_key(key, &value, out);
        size += decoded_len(value.text());
    }
    if size > MAX_SIZE {
        // Upstream names no field here.
        out.push(FieldError::too_long(&crate::Path::default(), MAX_SIZE));
    }
}

pub(crate) fn secret(object: &Node<'_>, out: &mut Findings) {
    let data = object.get("data");
    let mut size = 0;
    for (key, value) in data.entries() {
        check_key(key, &value, out);
        size += decoded_len(value.text());
    }
    if size > MAX_SIZE {
        out.push(FieldError::too_long(&data.path, MAX_SIZE));
    }
    let required = |key: &str, out: &mut Findings| {
        let there = data.value.get(key).is_some();
        if !there {
            out.push(FieldError::required(&data.path.key(key), ""));
        }
        there
    };
    match object.get("type").text() {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            let annotations = object.get("metadata").get("annotations");
            if annotations.value.get(key).and_then(|v| v.as_str()).unwrap_or("").is_empty() {
                out.push(FieldError::required(&annotations.path.key(key), ""));
            }
        }
        "kubernetes.io/dockercfg" => docker(&data, ".dockercfg", out),
        "kubernetes.io/dockerconfigjson" => docker(&data, ".dockerconfigjson", out),
        "kubernetes.io/basic-auth" => {
            let has = |key: &str| data.value.get(key).is_some();
            if !has("username") && !has("password") {
                required("username", out);
                required("password", out);
            }
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").text().is_empty() => {
            out.push(FieldError::required(&data.path.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            required("tls.crt", out);
            required("tls.key", out);
        }
        _ => {}
    }
}

/// What an object with `immutable: true` may not change.
pub(crate) fn immutable(
    new: &Node<'_>,
    old: &Node<'_>,
    fields: &[&'static str],
    out: &mut Findings,
) {
    if !old.get("immutable").is_true() {
        return;
    }
    if !new.get("immutable").is_true() {
        out.push(new.get("immutable").forbidden("field is immutable when `immutable` is set"));
    }
    for field in fields {
        if new.get(field).value != old.get(field).value {
            out.push(new.get(field).forbidden("field is immutable when `immutable` is set"));
        }
    }
}

fn check_key(key: &str, value: &Node<'_>, out: &mut Findings) {
    let wrong = names::config_map_key(key);
    out.extend(wrong.into_iter().map(|text| FieldError::invalid(&value.path, key, text)));
}

fn docker(data: &Node<'_>, key: &str, out: &mut Findings) {
    let path = data.path.key(key);
    let Some(encoded) = data.value.get(key).and_then(|value| value.as_str()) else {
        out.push(FieldError::required(&path, ""));
        return;
    };
    // The content must be JSON, whatever it says.
    if let Err(text) = schema::check_json_syntax(&decode(encoded)) {
        out.push(FieldError::invalid(&path, "<secret contents redacted>", text));
    }
}

fn decode(encoded: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default()
}

fn decoded_len(encoded: &str) -> usize {
    encoded.trim_end_matches('=').len() * 3 / 4
}
