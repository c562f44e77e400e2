//! Who asks, and whether they may: the API server decides both, and its answers are kept for a
//! while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use client::{Client, ClientError};
use clock::SharedClock;
use http::{Method, Request, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::kubelet::{Kubelet, lock};
use crate::server::{Answer, failure};

/// How long answers hold: upstream's defaults of the webhook authenticator and authorizer.
const TOKEN_TTL: Duration = Duration::from_secs(120);
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
/// Answers that are kept; beyond it all are forgotten.
const KEPT_MAX: usize = 4096;
/// May do everything, as the API server says too.
const MASTERS: &str = "system:masters";

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
}

/// The owner of a client certificate: its common name, and its organizations as groups.
pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organizations = subject.iter_organization().filter_map(|o| o.as_str().ok());
    let mut groups: Vec<String> = organizations.map(str::to_owned).collect();
    groups.push("system:authenticated".to_owned());
    Some(Identity { user, uid: String::new(), groups })
}

/// Lets those through who may.
pub(crate) struct Gate {
    client: Client,
    clock: SharedClock,
    tokens: Kept<String, Option<Identity>>,
    decisions: Kept<(Identity, &'static str, String), bool>,
}

impl Gate {
    /// Nothing is known yet.
    pub(crate) fn new(client: Client, clock: SharedClock) -> Self {
        Self { client, clock, tokens: Kept::default(), decisions: Kept::default() }
    }

    /// Whether the request may go on; if not, the answer says why.
    pub(crate) async fn pass<B>(
        &self,
        kubelet: &Kubelet,
        certificate: Option<Identity>,
        request: &Request<B>,
    ) -> Result<(), Answer> {
        let unauthorized = || failure(StatusCode::UNAUTHORIZED, "Unauthorized");
        let identity = match (certificate, bearer(request)) {
            (Some(identity), _) => identity,
            (None, Some(token)) => {
                let reviewed = self.review(token).await.map_err(|error| {
                    tracing::warn!(error = %telemetry::Chain(&error), "token not reviewed");
                    unauthorized()
                })?;
                reviewed.ok_or_else(unauthorized)?
            }
            (None, None) => return Err(unauthorized()),
        };
        if identity.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let verb = verb(request.method());
        let subresources = subresources(request.uri().path());
        for subresource in &subresources {
            match self.allowed(kubelet, &identity, verb, subresource).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    let text = format!(
                        "Authorization error (user={}, verb={verb}, resource=nodes, \
                         subresource(s)=[{}])",
                        identity.user,
                        subresources.join(" ")
                    );
                    tracing::warn!(error = %telemetry::Chain(&error), "access not reviewed");
                    return Err(failure(StatusCode::INTERNAL_SERVER_ERROR, &text));
                }
            }
        }
        let text = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
            identity.user,
            subresources.join(" ")
        );
        Err(failure(StatusCode::FORBIDDEN, &text))
    }

    async fn review(&self, token: &str) -> Result<Option<Identity>, ClientError> {
        let now = self.clock.monotonic();
        if let Some(known) = self.tokens.get(&token.to_owned(), now) {
            return Ok(known);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let status = self.client.api::<TokenReview>("").create(&review).await?.status;
        let status = status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let identity = user.map(|user| Identity {
            user: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
        });
        self.tokens.put(token.to_owned(), identity.clone(), now + TOKEN_TTL);
        Ok(identity)
    }

    async fn allowed(
        &self,
        kubelet: &Kubelet,
        identity: &Identity,
        verb: &'static str,
        subresource: &str,
    ) -> Result<bool, ClientError> {
        let now = self.clock.monotonic();
        let key = (identity.clone(), verb, subresource.to_owned());
        if let Some(known) = self.decisions.get(&key, now) {
            return Ok(known);
        }
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: given(&identity.user),
                uid: given(&identity.uid),
                groups: Some(identity.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: given(verb),
                    version: given("v1"),
                    resource: given("nodes"),
                    subresource: given(subresource),
                    name: given(&kubelet.config.node_name),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let status = self.client.api::<SubjectAccessReview>("").create(&review).await?.status;
        let allowed = status.is_some_and(|status| status.allowed);
        let ttl = if allowed { ALLOWED_TTL } else { DENIED_TTL };
        self.decisions.put(key, allowed, now + ttl);
        Ok(allowed)
    }
}

fn bearer<B>(request: &Request<B>) -> Option<&str> {
    let value = request.headers().get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// What of the node a path is about; any of them suffices. The finer ones are those of KEP-2862.
fn subresources(path: &str) -> Vec<&'static str> {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => vec!["stats"],
        "metrics" => vec!["metrics"],
        "logs" => vec!["log"],
        "pods" | "runningpods" => vec!["pods", "proxy"],
        "healthz" => vec!["healthz", "proxy"],
        "configz" => vec!["configz", "proxy"],
        _ => vec!["proxy"],
    }
}

/// Answers that hold until a time.
struct Kept<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Kept<K, V> {
    fn get(&self, key: &K, now: Instant) -> Option<V> {
        let kept = lock(&self.0);
        kept.get(key).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, until: Instant) {
        let mut kept = lock(&self.0);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, (value, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_about_a_part_of_the_node() {
        assert_eq!(subresources("/stats/summary"), ["stats"]);
        assert_eq!(subresources("/metrics/resource"), ["metrics"]);
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
        assert_eq!(subresources("/exec/n/p/c"), ["proxy"]);
    }

    #[test]
    fn a_token_is_found_in_the_header() {
        let request =
            |value: &str| Request::get("/").header("authorization", value).body(()).unwrap();
        assert_eq!(bearer(&request("Bearer abc")), Some("abc"));
        assert_eq!(bearer(&request("bearer  abc ")), Some("abc"));
        assert_eq!(bearer(&request("Basic abc")), None);
        assert_eq!(bearer(&request("Bearer ")), None);
    }
}
