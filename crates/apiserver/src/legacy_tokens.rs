//! Tokens that lie in Secrets, of accounts and of those who are about to join: what of the objects
//! decides about them, and the day on which one of an account was last used.

use std::sync::Arc;

use authn::{BootstrapSecret, LegacyUse, TokenAccount, TokenSecret, UserInfo};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::Request;
use jiff::{Timestamp, ToSpan, tz};
use meta::Object;
use serde_json::{Value, json};

use crate::chain;
use crate::server::Server;
use connection::RequestBody;

/// The Secret of a token, if the object is one.
pub(crate) fn secret(object: &Object) -> Option<TokenSecret> {
    let found: Value = object.decode().ok()?;
    let label = |key: &str| found["metadata"]["labels"][key].as_str().unwrap_or_default();
    Some(TokenSecret {
        uid: object.header().uid.clone(),
        token: STANDARD.decode(found["data"]["token"].as_str()?).ok()?,
        is_deleted: is_deleted(&found),
        last_used: label(LegacyUse::LAST_USED).to_owned(),
        invalid_since: label(LegacyUse::INVALID_SINCE).to_owned(),
    })
}

/// An account with tokens.
pub(crate) fn account(object: &Object) -> Option<TokenAccount> {
    let found: Value = object.decode().ok()?;
    let secrets = found["secrets"].as_array().into_iter().flatten();
    Some(TokenAccount {
        uid: object.header().uid.clone(),
        is_deleted: is_deleted(&found),
        secrets: secrets.filter_map(|it| it["name"].as_str().map(str::to_owned)).collect(),
    })
}

/// A Secret that may have a bootstrap token.
pub(crate) fn bootstrap(object: &Object) -> Option<BootstrapSecret> {
    let found: Value = object.decode().ok()?;
    let data = found["data"].as_object().into_iter().flatten().filter_map(|(key, value)| {
        let text = String::from_utf8(STANDARD.decode(value.as_str()?).ok()?).ok()?;
        Some((key.clone(), text))
    });
    Some(BootstrapSecret {
        kind: found["type"].as_str().unwrap_or_default().to_owned(),
        is_deleted: is_deleted(&found),
        data: data.collect(),
    })
}

fn is_deleted(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Labels the Secret of a token that was shown with the day, if it is not there yet.
pub(crate) fn label(server: &Arc<Server>, used: &LegacyUse) -> BoxFuture<'static, ()> {
    let Some(day) = new_day(&used.last_used, server.clock.now()) else {
        return Box::pin(std::future::ready(()));
    };
    let (server, secret) = (Arc::clone(server), used.secret.clone());
    let labels = json!({ LegacyUse::LAST_USED: day });
    let patch = json!({ "metadata": { "uid": used.uid, "labels": labels } });
    let path = format!("/api/v1/namespaces/{}/secrets/{secret}", used.namespace);
    Box::pin(async move {
        let user = UserInfo::new("system:apiserver", &[UserInfo::MASTERS, UserInfo::AUTHENTICATED]);
        let request = Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(RequestBody::Whole(Bytes::from(patch.to_string())));
        let Ok(request) = request else { return };
        // Boxed: a request that reviews a token comes here too.
        let served: BoxFuture<'static, _> = Box::pin(chain::serve(server, user, request, None));
        let status = served.await.status();
        if !status.is_success() {
            tracing::warn!(secret, %status, "cannot label a token's secret with its last use");
        }
    })
}

/// Upstream's days are those of UTC; who is ahead may have written tomorrow.
fn new_day(last_used: &str, now: Timestamp) -> Option<String> {
    let today = now.to_zoned(tz::TimeZone::UTC).date();
    let is_noted = [Ok(today), today.checked_add(1.day())]
        .iter()
        .flatten()
        .any(|day| day.to_string() == last_used);
    (!is_noted).then(|| today.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_labelled_once_a_day() {
        let now: Timestamp = "2026-02-28T23:59:59Z".parse().unwrap();
        assert_eq!(new_day("", now).as_deref(), Some("2026-02-28"));
        assert_eq!(new_day("2026-02-27", now).as_deref(), Some("2026-02-28"));
        assert_eq!(new_day("2026-02-28", now), None);
        assert_eq!(new_day("2026-03-01", now), None);
    }
}
