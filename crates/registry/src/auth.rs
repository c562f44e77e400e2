//! Credentials, and what registries make of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use crate::error::PullError;
use crate::hosts::encode;
use crate::wire::{Ask, Wire};

/// A token server says little more than the token.
const TOKEN_ANSWER_BYTES_MAX: u64 = 256 << 10;
/// What the token server knows this client as.
const CLIENT_ID: &str = "ironclad";

/// What a registry may be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
    /// A token to get another token with.
    pub identity_token: String,
    /// A token to send as it is.
    pub registry_token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stay out of logs.
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

/// What to send to a registry that refused a request with these headers.
pub(crate) async fn authorize(
    wire: &Wire,
    registry: &Scheme,
    refusal: &HeaderMap,
    credentials: Option<&Credentials>,
    repository: &str,
) -> Result<HeaderValue, PullError> {
    let challenges = challenges(refusal);
    let bearer = challenges.iter().find(|challenge| **challenge != Challenge::Basic);
    match (bearer, credentials) {
        (Some(Challenge::Bearer { realm, service, scope }), _) => {
            // Its own scope counts only where it is of a kind that we do not know.
            let own = format!("repository:{repository}:pull");
            let known = scope.is_empty() || scope.starts_with("repository:");
            let scope = if known { &own } else { scope };
            token(wire, registry, (realm, service, scope), credentials).await
        }
        (_, Some(credentials)) if challenges.contains(&Challenge::Basic) => basic(credentials),
        (_, None) if challenges.contains(&Challenge::Basic) => {
            Err(PullError::Denied("no basic auth credentials".to_owned()))
        }
        _ => Err(PullError::Challenge("the registry asks for nothing known".to_owned())),
    }
}

/// What to send before the registry has asked, if anything.
pub(crate) fn unasked(credentials: &Credentials) -> Result<Option<HeaderValue>, PullError> {
    if credentials.registry_token.is_empty() {
        return Ok(None);
    }
    secret(&format!("Bearer {}", credentials.registry_token)).map(Some)
}

fn basic(credentials: &Credentials) -> Result<HeaderValue, PullError> {
    let pair = format!("{}:{}", credentials.username, credentials.password);
    secret(&format!("Basic {}", STANDARD.encode(pair)))
}

fn secret(text: &str) -> Result<HeaderValue, PullError> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| PullError::Challenge("credentials cannot be sent".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn token(
    wire: &Wire,
    registry: &Scheme,
    (realm, service, scope): (&str, &str, &str),
    credentials: Option<&Credentials>,
) -> Result<HeaderValue, PullError> {
    let bad = |problem: &str| PullError::Challenge(format!("{problem}: {realm:?}"));
    let url = realm.parse::<Uri>().map_err(|_| bad("the token server has no address"))?;
    match url.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => {}
        Some(scheme) if *scheme == Scheme::HTTP && *registry == Scheme::HTTP => {}
        _ => return Err(bad("the token server must use TLS")),
    }
    let mut query = format!("scope={}", encode(scope));
    if !service.is_empty() {
        query.push_str(&format!("&service={}", encode(service)));
    }
    let ask = match credentials {
        Some(credentials) if !credentials.identity_token.is_empty() => {
            let token = encode(&credentials.identity_token);
            let form = format!(
                "grant_type=refresh_token&refresh_token={token}&client_id={CLIENT_ID}&{query}"
            );
            let mut ask = Ask { method: Method::POST, body: Bytes::from(form), ..Ask::get(url) };
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            ask.headers.insert(CONTENT_TYPE, kind);
            ask
        }
        _ => {
            let separator = if realm.contains('?') { '&' } else { '?' };
            let url = format!("{realm}{separator}{query}");
            let url = url.parse().map_err(|_| bad("the token server has no address"))?;
            let mut ask = Ask::get(url);
            if let Some(credentials) = credentials.filter(|c| !c.username.is_empty()) {
                ask.authorization = Some(basic(credentials)?);
            }
            ask
        }
    };
    let fetched = fetch(wire, ask).await.map_err(|error| match error {
        denied @ PullError::Denied(_) => denied,
        other => PullError::Token(Box::new(other)),
    })?;
    secret(&format!("Bearer {fetched}"))
}

async fn fetch(wire: &Wire, ask: Ask) -> Result<String, PullError> {
    #[derive(serde::Deserialize)]
    struct Token {
        #[serde(default)]
        token: String,
        #[serde(default)]
        access_token: String,
    }
    let method = ask.method.clone();
    let answer = wire.send(ask).await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let status = answer.status;
            return Err(PullError::Denied(format!("failed to fetch token: {status}")));
        }
        _ => return Err(answer.unexpected(&method)),
    }
    let bytes = answer.body.whole("answer of the token server", TOKEN_ANSWER_BYTES_MAX).await?;
    let Ok(Token { token, access_token }) = serde_json::from_slice(&bytes) else {
        return Err(PullError::Challenge("the token server's answer is none".to_owned()));
    };
    let token = if token.is_empty() { access_token } else { token };
    if token.is_empty() {
        return Err(PullError::Challenge("the token server gives no token".to_owned()));
    }
    Ok(token)
}

/// The challenges of an answer that are understood.
fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(parse).collect()
}

/// One header may hold several: a word, then pairs of a name and a value.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let word = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start_matches(' ');
        if let Some(after) = rest.strip_prefix('=') {
            let (value, after) = value(after.trim_start());
            rest = after;
            if let Some((_, pairs)) = found.last_mut() {
                pairs.push((word, value));
            }
        } else if !word.is_empty() {
            found.push((word, Vec::new()));
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    let understood = |(scheme, pairs): (String, Vec<(String, String)>)| {
        let of = |name: &str| {
            let pair = pairs.iter().find(|(key, _)| key == name);
            pair.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer {
                realm: of("realm"),
                service: of("service"),
                scope: of("scope"),
            }),
            _ => None,
        }
    };
    found.into_iter().filter_map(understood).collect()
}

/// A value, quoted or not, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        let [realm, service, scope] = [realm, service, scope].map(str::to_owned);
        Challenge::Bearer { realm, service, scope }
    }

    #[test]
    fn challenges_are_understood_as_registries_write_them() {
        let hub = r#"Bearer realm="https://a/token",service="r.io",scope="repository:a:pull,push""#;
        assert_eq!(parse(hub), [bearer("https://a/token", "r.io", "repository:a:pull,push")]);
        assert_eq!(parse("Basic realm=\"x\""), [Challenge::Basic]);
        let both = r#"basic realm=x, bearer realm="y \"z\"" , service=s"#;
        assert_eq!(parse(both), [Challenge::Basic, bearer("y \"z\"", "s", "")]);
        assert_eq!(parse("Negotiate"), []);
        assert_eq!(parse("Bearer realm=\"open"), [bearer("open", "", "")]);
        for garbage in ["", "=", ",,,", "\"", "= = ,", "é=é"] {
            assert_eq!(parse(garbage), [], "{garbage}");
        }
    }
}
