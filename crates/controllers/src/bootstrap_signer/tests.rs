//! Tokens that sign, and what they sign.

use std::sync::Arc;

use k8s_openapi::ByteString;

use super::*;

fn secret(change: &[(&str, &str)]) -> Arc<Secret> {
    let mut data = BTreeMap::from([
        ("token-id", "abcdef"),
        ("token-secret", "0123456789abcdef"),
        ("usage-bootstrap-signing", "true"),
    ]);
    data.extend(change.iter().copied());
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into())));
    let mut secret = Secret {
        data: Some(data.collect()),
        type_: Some("bootstrap.kubernetes.io/token".to_owned()),
        ..Secret::default()
    };
    secret.metadata.name = Some("bootstrap-token-abcdef".to_owned());
    Arc::new(secret)
}

fn map(data: &[(&str, &str)]) -> ConfigMap {
    let data = data.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    ConfigMap { data: Some(data), ..ConfigMap::default() }
}

#[test]
fn only_tokens_for_signing_sign() {
    let ids = |change: &[(&str, &str)]| {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        tokens(&[secret(change)], now).into_keys().collect::<String>()
    };
    assert_eq!(ids(&[]), "abcdef");
    assert_eq!(ids(&[("usage-bootstrap-signing", "no")]), "");
    assert_eq!(ids(&[("token-id", "abcdeg")]), "", "its name says another id");
    assert_eq!(ids(&[("token-secret", "")]), "");
    assert_eq!(ids(&[("expiration", "2025-12-31T00:00:00Z")]), "");
}

#[test]
fn a_signature_is_one_over_the_content_that_it_leaves_out() {
    let signed = signature("content", "abcdef", "0123456789abcdef").unwrap();
    let (header, value) = signed.split_once("..").unwrap();
    let decoded = URL_SAFE_NO_PAD.decode(header).unwrap();
    assert_eq!(decoded, br#"{"alg":"HS256","kid":"abcdef"}"#);
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode("content"));
    let verify = |key: &str| {
        let key = jsonwebtoken::DecodingKey::from_secret(key.as_bytes());
        jsonwebtoken::crypto::verify(value, message.as_bytes(), &key, Algorithm::HS256).unwrap()
    };
    assert!(verify("0123456789abcdef"));
    assert!(!verify("0123456789abcdeg"));
}

#[test]
fn signatures_follow_tokens_and_content() {
    let both = BTreeMap::from([("abcdef".to_owned(), "0123456789abcdef".to_owned())]);
    assert_eq!(signed(&map(&[("other", "x")]), &both).unwrap(), None, "there is nothing to sign");
    let first = signed(&map(&[(KUBECONFIG, "one")]), &both).unwrap().unwrap();
    assert_eq!(signed(&first, &both).unwrap(), None);
    let mut changed = first.clone();
    changed.data.as_mut().unwrap().insert(KUBECONFIG.to_owned(), "two".to_owned());
    let second = signed(&changed, &both).unwrap().unwrap();
    let of = |map: &ConfigMap| map.data.as_ref().unwrap().get("jws-kubeconfig-abcdef").cloned();
    assert!(of(&second).is_some() && of(&first) != of(&second));
    let without = signed(&second, &BTreeMap::new()).unwrap().unwrap();
    assert_eq!(of(&without), None);
}
