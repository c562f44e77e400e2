//! Tokens of a service account, asked for by whoever may.
//!
//! Upstream: `DynamicControllerClientBuilder` in `k8s.io/controller-manager/pkg/clientbuilder`.

use std::time::{Duration, Instant};

use clock::SharedClock;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Method;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::api::encode;
use crate::{Client, ClientError};

/// How long a token is asked to be valid: upstream's.
const LIFETIME: Duration = Duration::from_secs(3600);
/// A token this old is replaced, so that requests have one that is valid for long enough.
const REPLACED_AFTER: Duration = Duration::from_secs(48 * 60);

/// Gives tokens that requests show.
pub trait TokenSource: Send + Sync {
    /// A token that is valid now.
    fn token(&self) -> BoxFuture<'_, Result<String, ClientError>>;

    /// The server did not take this token: the next one has to be another.
    fn refused<'a>(&'a self, token: &'a str) -> BoxFuture<'a, ()>;
}

/// Those of one account, which is made if it is not there.
pub struct AccountTokens {
    client: Client,
    namespace: String,
    account: String,
    clock: SharedClock,
    /// The last one, and when it was asked for.
    last: Mutex<Option<(String, Instant)>>,
}

impl AccountTokens {
    /// `client` may ask for tokens of the account, and make it.
    pub fn new(client: Client, clock: SharedClock, namespace: &str, account: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            clock,
            last: Mutex::new(None),
        }
    }

    async fn ask(&self) -> Result<String, ClientError> {
        let Self { client, namespace, account, .. } = self;
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let spec = TokenRequestSpec {
            expiration_seconds: i64::try_from(LIFETIME.as_secs()).ok(),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let body = encode(&request)?;
        let ask = || client.request(Method::POST, &path, "application/json", body.clone());
        let answer = match ask().await {
            Err(error) if error.is_not_found() => {
                self.make().await?;
                ask().await?
            }
            result => result?,
        };
        let answer: Value = serde_json::from_slice(&answer).map_err(ClientError::decode)?;
        let token = answer["status"]["token"].as_str();
        token.map(str::to_owned).ok_or_else(|| ClientError::decode("there is no token in it"))
    }

    async fn make(&self) -> Result<(), ClientError> {
        let metadata = ObjectMeta { name: Some(self.account.clone()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        match self.client.api(&self.namespace).create(&account).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }
}

impl TokenSource for AccountTokens {
    fn token(&self) -> BoxFuture<'_, Result<String, ClientError>> {
        async move {
            let mut last = self.last.lock().await;
            let now = self.clock.monotonic();
            if let Some((token, since)) = &*last
                && now.duration_since(*since) < REPLACED_AFTER
            {
                return Ok(token.clone());
            }
            let token = self.ask().await?;
            *last = Some((token.clone(), now));
            Ok(token)
        }
        .boxed()
    }

    fn refused<'a>(&'a self, token: &'a str) -> BoxFuture<'a, ()> {
        async move {
            let mut last = self.last.lock().await;
            if last.as_ref().is_some_and(|(known, _)| known == token) {
                *last = None;
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use clock::ManualClock;
    use http::{Request, Response};
    use meta::{Reason, Status};
    use serde_json::json;

    use super::*;
    use crate::{ObjectList, Transport, WatchStream};

    /// Knows no account until it is made; numbers the tokens.
    #[derive(Default)]
    struct Server {
        accounts: AtomicUsize,
        tokens: AtomicUsize,
    }

    impl Transport for Server {
        fn call(
            &self,
            request: Request<Bytes>,
        ) -> BoxFuture<'_, Result<Response<Bytes>, ClientError>> {
            let is_token = request.uri().path().ends_with("/serviceaccounts/a/token");
            let (code, body) = if !is_token {
                self.accounts.fetch_add(1, Ordering::Relaxed);
                (201, json!({ "metadata": { "name": "a" } }))
            } else if self.accounts.load(Ordering::Relaxed) == 0 {
                let status = Status::failure(Reason::NotFound, "no such account");
                (404, serde_json::to_value(status).unwrap())
            } else {
                let number = self.tokens.fetch_add(1, Ordering::Relaxed);
                (201, json!({ "status": { "token": format!("t{number}") } }))
            };
            let response = Response::builder().status(code).body(Bytes::from(body.to_string()));
            async move { response.map_err(ClientError::transport) }.boxed()
        }

        fn list<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<ObjectList, ClientError>> {
            async { Err(ClientError::decode("not asked for")) }.boxed()
        }

        fn watch<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<WatchStream, ClientError>> {
            async { Err(ClientError::decode("not asked for")) }.boxed()
        }
    }

    #[tokio::test]
    async fn a_token_is_used_until_it_is_old_or_refused() {
        let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let server = Arc::new(Server::default());
        let client = Client::new(Arc::clone(&server) as Arc<dyn Transport>);
        let tokens =
            AccountTokens::new(client, Arc::clone(&clock) as SharedClock, "kube-system", "a");
        assert_eq!(tokens.token().await.unwrap(), "t0");
        assert_eq!(server.accounts.load(Ordering::Relaxed), 1, "the account is made");
        clock.advance(REPLACED_AFTER - Duration::from_secs(1));
        assert_eq!(tokens.token().await.unwrap(), "t0");
        clock.advance(Duration::from_secs(1));
        assert_eq!(tokens.token().await.unwrap(), "t1");
        tokens.refused("t0").await;
        assert_eq!(tokens.token().await.unwrap(), "t1", "that was another one");
        tokens.refused("t1").await;
        assert_eq!(tokens.token().await.unwrap(), "t2");
        assert_eq!(server.accounts.load(Ordering::Relaxed), 1);
    }
}
