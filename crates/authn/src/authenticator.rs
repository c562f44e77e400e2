//! From credentials to a user.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::certificate::user_from_certificate;
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
}

/// The credentials are wrong, or missing where they are needed.
#[derive(Debug, thiserror::Error)]
#[error("Unauthorized")]
pub struct Unauthenticated;

/// Tries certificate, static tokens and service account tokens, in this order.
pub struct Authenticator {
    anonymous: Anonymous,
    static_tokens: StaticTokens,
    verifier: TokenVerifier,
    audiences: Vec<String>,
}

impl Authenticator {
    /// An authenticator; `audiences` are those of the API server itself.
    pub fn new(
        anonymous: Anonymous,
        static_tokens: StaticTokens,
        verifier: TokenVerifier,
        audiences: Vec<String>,
    ) -> Self {
        Self { anonymous, static_tokens, verifier, audiences }
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
        Some(Authenticated { user: authenticated(user) })
    }

    /// Who makes a request with these headers over a connection whose certificate says so.
    ///
    /// # Errors
    /// When credentials are wrong, or missing and anonymity is refused.
    pub fn authenticate(
        &self,
        certified: Option<&Authenticated>,
        headers: &HeaderMap,
        now: i64,
    ) -> Result<Authenticated, Unauthenticated> {
        if let Some(certified) = certified {
            return Ok(certified.clone());
        }
        if let Some(token) = bearer(headers) {
            let verified = self.token(token, &self.audiences, now);
            let (user, _) = verified.map_err(|_| Unauthenticated)?;
            return Ok(Authenticated { user });
        }
        match self.anonymous {
            Anonymous::Allowed => Ok(Authenticated { user: UserInfo::anonymous() }),
            Anonymous::Refused => Err(Unauthenticated),
        }
    }

    /// The user of a token, and which of `audiences` it is for.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn token(
        &self,
        token: &str,
        audiences: &[String],
        now: i64,
    ) -> Result<(UserInfo, Vec<String>), TokenError> {
        if let Some(user) = self.static_tokens.user(token) {
            let shared = audiences.iter().filter(|a| self.audiences.contains(a)).cloned().collect();
            return Ok((authenticated(user.clone()), shared));
        }
        self.verifier.verify(token, audiences, now)
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
    if !user.is_in(UserInfo::AUTHENTICATED) && user.name != UserInfo::ANONYMOUS {
        user.groups.push(UserInfo::AUTHENTICATED.to_owned());
    }
    user
}
