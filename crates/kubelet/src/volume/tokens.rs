//! Service account tokens of pods, asked for when first needed and again before they end.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use client::{Client, ClientError};
use clock::SharedClock;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};

use crate::pod::spec;

/// A token older than this is asked for anew, however long it holds: upstream `maxTTL`.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// What the API gives a projection without one: upstream's default.
const EXPIRATION_SECONDS: i64 = 3600;

/// Tokens by what they are for.
pub(crate) struct Tokens {
    client: Client,
    clock: SharedClock,
    cache: Mutex<HashMap<Key, Token>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    audience: String,
    seconds: i64,
}

#[derive(Clone)]
struct Token {
    text: String,
    refresh_at: Timestamp,
}

impl Tokens {
    /// No tokens yet.
    pub(crate) fn new(client: Client, clock: SharedClock) -> Self {
        Self { client, clock, cache: Mutex::default() }
    }

    /// A token that holds for a while, and when to ask again.
    pub(crate) async fn get(
        &self,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<(String, Timestamp), ClientError> {
        let key = Key {
            uid: spec::uid(pod).to_owned(),
            audience: projection.audience.clone().unwrap_or_default(),
            seconds: projection.expiration_seconds.unwrap_or(EXPIRATION_SECONDS),
        };
        let cached = self.lock().get(&key).cloned();
        let now = self.clock.now();
        if let Some(token) = cached.filter(|token| now < token.refresh_at) {
            return Ok((token.text, token.refresh_at));
        }
        let token = self.request(pod, &key, now).await?;
        let answer = (token.text.clone(), token.refresh_at);
        self.lock().insert(key, token);
        Ok(answer)
    }

    /// Forgets the tokens of a pod.
    pub(crate) fn release(&self, uid: &str) {
        self.lock().retain(|key, _| key.uid != uid);
    }

    async fn request(&self, pod: &Pod, key: &Key, now: Timestamp) -> Result<Token, ClientError> {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(
                    Some(key.audience.clone()).filter(|a| !a.is_empty()).into_iter().collect(),
                ),
                expiration_seconds: Some(key.seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(spec::name(pod).to_owned()),
                    uid: Some(key.uid.clone()),
                }),
            }),
            ..TokenRequest::default()
        };
        let account = spec::spec(pod).service_account_name.as_deref().unwrap_or("default");
        let api = self.client.api::<ServiceAccount>(spec::namespace(pod));
        let answer: TokenRequest = api.create_subresource(account, "token", &request).await?;
        let status = answer
            .status
            .ok_or_else(|| ClientError::decode("the token request has no status".to_owned()))?;
        let expires = status.expiration_timestamp.map(|time| time.0);
        let expires =
            expires.ok_or_else(|| ClientError::decode("the token has no expiration".to_owned()))?;
        let text = status
            .token
            .ok_or_else(|| ClientError::decode("the token request has no token".to_owned()))?;
        Ok(Token { text, refresh_at: refresh_at(now, expires) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Token>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At 80 % of its life, and at the latest after a day.
fn refresh_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = Duration::try_from(expires.duration_since(now)).unwrap_or_default();
    let after = life.mul_f64(0.8).min(AGE_MAX);
    now.saturating_add(after).unwrap_or(expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_ends() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(refresh_at(at(0), at(1000)), at(800));
        assert_eq!(refresh_at(at(0), at(31_536_000)), at(86_400));
        assert_eq!(refresh_at(at(5), at(0)), at(5));
    }
}
