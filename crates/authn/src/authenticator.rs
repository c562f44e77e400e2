//! From credentials to a user.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::bootstrap_token::{self, BootstrapSecrets};
use crate::certificate::user_from_certificate;
use crate::legacy::LegacyUse;
use crate::request_header::RequestHeader;
use crate::service_account::{TokenError, TokenVerifier};
use crate::static_tokens::StaticTokens;
use crate::user::UserInfo;

/// Which requests may come without credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// All; what they may do is for authorization to say. Upstream's default.
    Allowed,
    /// None.
    Refused,
}

/// The outcome of a successful authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Who it is.
    pub user: UserInfo,
    /// That it was a token of a Secret.
    pub legacy: Option<LegacyUse>,
}

/// The credentials are wrong, or missing where they are needed.
#[derive(Debug, Default, thiserror::Error)]
#[error("Unauthorized")]
pub struct Unauthenticated {
    /// That it was a token of a Secret which is not valid any more.
    pub legacy: Option<LegacyUse>,
}

/// What is known of who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Whom its certificate names, if an authority of clients issued it.
    pub certified: Option<Authenticated>,
    /// Whether its certificate is of one that may say in headers who asks.
    pub is_front_proxy: bool,
    /// Whether it has a certificate that names nobody here.
    pub is_foreign: bool,
}

/// Tries headers of a front proxy, certificate, static tokens, bootstrap tokens and service account
/// tokens, in this order.
pub struct Authenticator {
    anonymous: Anonymous,
    static_tokens: StaticTokens,
    verifier: TokenVerifier,
    audiences: Vec<String>,
    request_header: Option<RequestHeader>,
    bootstrap: Option<Arc<dyn BootstrapSecrets>>,
}

impl Authenticator {
    /// An authenticator; `audiences` are those of the API server itself.
    pub fn new(
        anonymous: Anonymous,
        static_tokens: StaticTokens,
        verifier: TokenVerifier,
        audiences: Vec<String>,
    ) -> Self {
        Self {
            anonymous,
            static_tokens,
            verifier,
            audiences,
            request_header: None,
            bootstrap: None,
        }
    }

    /// The same, which also believes front proxies.
    #[must_use]
    pub fn behind(self, request_header: Option<RequestHeader>) -> Self {
        Self { request_header, ..self }
    }

    /// The same, which also believes bootstrap tokens.
    #[must_use]
    pub fn bootstrapping(self, bootstrap: Option<Arc<dyn BootstrapSecrets>>) -> Self {
        Self { bootstrap, ..self }
    }

    /// The headers that front proxies use.
    pub fn request_header(&self) -> Option<&RequestHeader> {
        self.request_header.as_ref()
    }

    /// Takes everything out of the headers of an authenticated request that is for authentication.
    pub fn strip(&self, headers: &mut HeaderMap) {
        headers.remove(AUTHORIZATION);
        RequestHeader::strip_standard(headers);
        if let Some(request_header) = &self.request_header {
            request_header.strip(headers);
        }
    }

    /// The verifier of service account tokens.
    pub fn verifier(&self) -> &TokenVerifier {
        &self.verifier
    }

    /// The audiences of the API server.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Who has this verified client certificate; nobody when it names nobody.
    pub fn certified(der: &[u8]) -> Option<Authenticated> {
        let user = user_from_certificate(der).ok()?;
        Some(Authenticated { user: authenticated(user), legacy: None })
    }

    /// Who makes a request with these headers over a connection with this at its other end.
    ///
    /// # Errors
    /// When credentials are wrong, or missing and anonymity is refused.
    pub fn authenticate(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        now: i64,
    ) -> Result<Authenticated, Unauthenticated> {
        if let Some(request_header) = self.request_header.as_ref().filter(|_| peer.is_front_proxy)
            && let Some(user) = request_header.user(headers)
        {
            return Ok(Authenticated { user: authenticated(user), legacy: None });
        }
        if let Some(certified) = &peer.certified {
            return Ok(certified.clone());
        }
        if let Some(token) = bearer(headers) {
            let mut legacy = None;
            return match self.token(token, &self.audiences, now, &mut legacy) {
                Ok((user, _)) => Ok(Authenticated { user, legacy }),
                Err(_) => Err(Unauthenticated { legacy }),
            };
        }
        match self.anonymous {
            // Who shows a certificate wants to be somebody.
            _ if peer.is_foreign => Err(Unauthenticated::default()),
            Anonymous::Allowed => Ok(Authenticated { user: UserInfo::anonymous(), legacy: None }),
            Anonymous::Refused => Err(Unauthenticated::default()),
        }
    }

    /// The user of a token, and which of `audiences` it is for. That a token of a Secret was shown
    /// is left in `used`.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn token(
        &self,
        token: &str,
        audiences: &[String],
        now: i64,
        used: &mut Option<LegacyUse>,
    ) -> Result<(UserInfo, Vec<String>), TokenError> {
        let known = self.static_tokens.user(token).cloned();
        let user = known.or_else(|| bootstrap_token::user(token, &**self.bootstrap.as_ref()?, now));
        if let Some(user) = user {
            let shared = audiences.iter().filter(|a| self.audiences.contains(a)).cloned().collect();
            return Ok((authenticated(user), shared));
        }
        self.verifier.verify(token, (audiences, &self.audiences), now, used)
    }
}

/// The token of the `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn authenticated(mut user: UserInfo) -> UserInfo {
    let is_settled = user.is_in(UserInfo::AUTHENTICATED) || user.is_in(UserInfo::UNAUTHENTICATED);
    if !is_settled && user.name != UserInfo::ANONYMOUS {
        user.groups.push(UserInfo::AUTHENTICATED.to_owned());
    }
    user
}
