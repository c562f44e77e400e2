//! Service account tokens: JWTs signed by this cluster and bound to objects in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::legacy::{LegacyClaims, LegacyUse, TokenAccount, TokenSecret};
use crate::user::UserInfo;
use crate::verified::Verified;

/// Name and uid of an object a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

/// The claim `kubernetes.io`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kubernetes {
    /// Namespace of the service account.
    pub namespace: String,
    /// The node of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Bound>,
    /// The pod the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Bound>,
    /// The secret the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Bound>,
    /// The service account.
    pub serviceaccount: Bound,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Audiences.
    pub aud: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// Id of the token.
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
    /// When it begins.
    pub nbf: i64,
    /// The user name.
    pub sub: String,
}

impl Claims {
    /// Claims of a service account, valid from `now` for `seconds`.
    pub fn new(
        issuer: &str,
        namespace: &str,
        account: Bound,
        audiences: Vec<String>,
        (now, seconds): (i64, i64),
        jti: String,
    ) -> Self {
        Self {
            aud: audiences,
            exp: now.saturating_add(seconds),
            iat: now,
            iss: issuer.to_owned(),
            jti,
            sub: format!("system:serviceaccount:{namespace}:{}", account.name),
            kubernetes: Kubernetes {
                namespace: namespace.to_owned(),
                node: None,
                pod: None,
                secret: None,
                serviceaccount: account,
            },
            nbf: now,
        }
    }

    fn user(&self) -> UserInfo {
        let bound = &self.kubernetes;
        let mut user = UserInfo::service_account(&bound.namespace, &bound.serviceaccount.name);
        user.uid.clone_from(&bound.serviceaccount.uid);
        let mut extra = BTreeMap::new();
        let mut put = |key: &str, value: &str| {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        put("credential-id", &format!("JTI={}", self.jti));
        if let Some(pod) = &bound.pod {
            put("pod-name", &pod.name);
            put("pod-uid", &pod.uid);
        }
        if let Some(node) = &bound.node {
            put("node-name", &node.name);
            put("node-uid", &node.uid);
        }
        user.extra = extra;
        user
    }
}

/// What a token of ours says, by how it came about.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Said {
    /// It was asked for.
    Requested(Claims),
    /// It lies in a Secret.
    Legacy(LegacyClaims),
}

/// The objects that tokens are bound to, as they are now. Must be quick: it is asked for every
/// request with a token.
pub trait BoundObjects: Send + Sync + 'static {
    /// Uid of a service account.
    fn service_account_uid(&self, namespace: &str, name: &str) -> Option<String>;
    /// Uid of a pod.
    fn pod_uid(&self, namespace: &str, name: &str) -> Option<String>;
    /// Uid of a secret.
    fn secret_uid(&self, namespace: &str, name: &str) -> Option<String>;
    /// Uid of a node.
    fn node_uid(&self, name: &str) -> Option<String>;
    /// A Secret with a token.
    fn token_secret(&self, namespace: &str, name: &str) -> Option<TokenSecret>;
    /// A service account with tokens in Secrets.
    fn token_account(&self, namespace: &str, name: &str) -> Option<TokenAccount>;
}

/// A key that cannot sign or verify.
#[derive(Debug, thiserror::Error)]
#[error("the service account key is neither an RSA nor an ECDSA P-256 key in PEM")]
pub struct KeyError(#[source] jsonwebtoken::errors::Error);

/// Why a token is not valid.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not a token of this cluster at all.
    #[error("invalid bearer token")]
    NotOurs,
    /// Too old.
    #[error("service account token has expired")]
    Expired,
    /// Too new.
    #[error("service account token is not valid yet")]
    NotYet,
    /// For somebody else.
    #[error("token audiences {0:?} is invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
    /// Bound to an object that is gone or was replaced.
    #[error("service account token has been invalidated")]
    Invalidated,
    /// A token of a Secret does not say enough.
    #[error("{0} claim is missing")]
    ClaimMissing(&'static str),
    /// A token of a Secret is of another account than it says.
    #[error("sub claim is invalid")]
    Subject,
    /// The Secret that a token lies in is gone, or going.
    #[error("Token has been invalidated")]
    SecretGone,
    /// The Secret has another token by now.
    #[error("Token does not match server's copy")]
    NotInSecret,
    /// The account is gone.
    #[error("serviceaccounts {0:?} not found")]
    NoAccount(String),
    /// The account is going.
    #[error("ServiceAccount {namespace}/{name} has been deleted")]
    AccountDeleted {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The account is another one of the same name.
    #[error("ServiceAccount UID ({uid}) does not match claim ({claim})")]
    AccountUid {
        /// The account's.
        uid: String,
        /// The token's.
        claim: String,
    },
    /// The Secret says that its token is not valid any more.
    #[error(
        "the token in secret {namespace}/{secret} for service account {namespace}/{account} has \
         been marked invalid. Use tokens from the TokenRequest API or manually created \
         secret-based tokens, or remove the '{label}' label from the secret to temporarily allow \
         use of this token",
        label = LegacyUse::INVALID_SINCE
    )]
    MarkedInvalid {
        /// Namespace of both.
        namespace: String,
        /// Name of the Secret.
        secret: String,
        /// Name of the account.
        account: String,
    },
    /// The signature could not be made.
    #[error("cannot sign a token")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// Signs tokens.
pub struct TokenSigner {
    key: EncodingKey,
    algorithm: Algorithm,
    jwk: Jwk,
}

impl TokenSigner {
    /// A signer from a private key in PEM.
    ///
    /// # Errors
    /// When it is neither RSA nor P-256.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let (key, algorithm) = match EncodingKey::from_ec_pem(pem) {
            Ok(key) => (key, Algorithm::ES256),
            Err(_) => (EncodingKey::from_rsa_pem(pem).map_err(KeyError)?, Algorithm::RS256),
        };
        let jwk = with_id(Jwk::from_encoding_key(&key, algorithm).map_err(KeyError)?)?;
        Ok(Self { key, algorithm, jwk })
    }

    /// Signs claims.
    ///
    /// # Errors
    /// When the key refuses.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        self.sign_any(claims)
    }

    /// Signs claims of a token for a Secret.
    ///
    /// # Errors
    /// When the key refuses.
    pub fn sign_legacy(&self, claims: &LegacyClaims) -> Result<String, TokenError> {
        self.sign_any(claims)
    }

    fn sign_any(&self, claims: &impl Serialize) -> Result<String, TokenError> {
        let mut header = Header::new(self.algorithm);
        header.typ = None;
        header.kid.clone_from(&self.jwk.common.key_id);
        jsonwebtoken::encode(&header, claims, &self.key).map_err(TokenError::Sign)
    }

    /// The public half.
    pub fn public_key(&self) -> Jwk {
        self.jwk.clone()
    }
}

/// Verifies tokens.
pub struct TokenVerifier {
    issuer: String,
    keys: Vec<(Jwk, DecodingKey, Algorithm)>,
    verified: Verified,
    objects: Arc<dyn BoundObjects>,
}

impl TokenVerifier {
    /// A verifier of tokens that the signer, or the holder of one of the other keys, made.
    ///
    /// # Errors
    /// When a key is neither RSA nor P-256.
    pub fn new(
        issuer: String,
        signer: &TokenSigner,
        other_public_pems: &[Vec<u8>],
        objects: Arc<dyn BoundObjects>,
    ) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        let mut add = |jwk: Jwk, algorithm| {
            let key = DecodingKey::from_jwk(&jwk).map_err(KeyError)?;
            let is_known =
                keys.iter().any(|(known, ..): &(Jwk, _, _)| known.algorithm == jwk.algorithm);
            if !is_known {
                keys.push((jwk, key, algorithm));
            }
            Ok(())
        };
        add(signer.public_key(), signer.algorithm)?;
        for pem in other_public_pems {
            let (key, algorithm) = match DecodingKey::from_ec_pem(pem) {
                Ok(key) => (key, Algorithm::ES256),
                Err(_) => (DecodingKey::from_rsa_pem(pem).map_err(KeyError)?, Algorithm::RS256),
            };
            let jwk = Jwk::from_decoding_key(&key, Some(algorithm)).map_err(KeyError)?;
            add(with_id(jwk)?, algorithm)?;
        }
        Ok(Self { issuer, keys, verified: Verified::default(), objects })
    }

    /// The key set served at `/openid/v1/jwks`.
    pub fn key_set(&self) -> serde_json::Value {
        let keys: Vec<&Jwk> = self.keys.iter().map(|(jwk, ..)| jwk).collect();
        serde_json::json!({ "keys": keys })
    }

    /// The user of a token, and those of the `wanted` audiences the token is for; what lies in a
    /// Secret is for the server's `own`. That such a token was shown is left in `used`.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(
        &self,
        token: &str,
        (wanted, own): (&[String], &[String]),
        now: i64,
        used: &mut Option<LegacyUse>,
    ) -> Result<(UserInfo, Vec<String>), TokenError> {
        let said = self.verified.said(token, || self.read(token))?;
        let shared = |has: &[String]| {
            let shared: Vec<String> =
                wanted.iter().filter(|audience| has.contains(audience)).cloned().collect();
            if shared.is_empty() {
                return Err(TokenError::Audience(has.to_vec(), wanted.to_vec()));
            }
            Ok(shared)
        };
        match &*said {
            Said::Requested(claims) => {
                self.check_requested(claims, now)?;
                let shared = shared(&claims.aud)?;
                if !self.is_bound_to_living(&claims.kubernetes) {
                    return Err(TokenError::Invalidated);
                }
                Ok((claims.user(), shared))
            }
            Said::Legacy(claims) => {
                let shared = shared(own)?;
                Ok((claims.verify(token, &*self.objects, used)?, shared))
            }
        }
    }

    fn check_requested(&self, claims: &Claims, now: i64) -> Result<(), TokenError> {
        if claims.iss != self.issuer {
            return Err(TokenError::NotOurs);
        }
        if now >= claims.exp {
            return Err(TokenError::Expired);
        }
        if now < claims.nbf {
            return Err(TokenError::NotYet);
        }
        Ok(())
    }

    fn read(&self, token: &str) -> Result<Said, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::NotOurs)?;
        let candidates = self
            .keys
            .iter()
            .filter(|(jwk, ..)| header.kid.is_none() || jwk.common.key_id == header.kid);
        for (_, key, algorithm) in candidates {
            let mut validation = Validation::new(*algorithm);
            // Times are compared with our clock by the caller, audiences with those asked for.
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation.validate_aud = false;
            validation.required_spec_claims.clear();
            if let Ok(data) = jsonwebtoken::decode::<Said>(token, key, &validation) {
                return Ok(data.claims);
            }
        }
        Err(TokenError::NotOurs)
    }

    fn is_bound_to_living(&self, bound: &Kubernetes) -> bool {
        let namespace = &bound.namespace;
        let lives = |object: &Option<Bound>, uid: &dyn Fn(&str) -> Option<String>| {
            object.as_ref().is_none_or(|object| uid(&object.name).as_ref() == Some(&object.uid))
        };
        let account = &bound.serviceaccount;
        let account_uid = self.objects.service_account_uid(namespace, &account.name);
        account_uid.as_ref() == Some(&account.uid)
            && lives(&bound.pod, &|name| self.objects.pod_uid(namespace, name))
            && lives(&bound.secret, &|name| self.objects.secret_uid(namespace, name))
            // A pod's token also names the node, which may be gone before the pod.
            && (bound.pod.is_some() || lives(&bound.node, &|name| self.objects.node_uid(name)))
    }
}

fn with_id(mut jwk: Jwk) -> Result<Jwk, KeyError> {
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).map_err(KeyError)?);
    jwk.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
    Ok(jwk)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Living;

    impl BoundObjects for Living {
        fn service_account_uid(&self, _: &str, name: &str) -> Option<String> {
            (name == "builder").then(|| "u1".to_owned())
        }
        fn pod_uid(&self, _: &str, name: &str) -> Option<String> {
            (name == "pod").then(|| "u2".to_owned())
        }
        fn secret_uid(&self, _: &str, _: &str) -> Option<String> {
            None
        }
        fn node_uid(&self, _: &str) -> Option<String> {
            None
        }
        fn token_secret(&self, _: &str, _: &str) -> Option<TokenSecret> {
            None
        }
        fn token_account(&self, _: &str, _: &str) -> Option<TokenAccount> {
            None
        }
    }

    fn claims(now: i64) -> Claims {
        let account = Bound { name: "builder".into(), uid: "u1".into() };
        Claims::new("iss", "ns", account, vec!["api".into()], (now, 600), "id".into())
    }

    fn pair() -> (TokenSigner, TokenVerifier) {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let signer = TokenSigner::from_pem(pem.as_bytes()).unwrap();
        let verifier = TokenVerifier::new("iss".into(), &signer, &[], Arc::new(Living)).unwrap();
        (signer, verifier)
    }

    #[test]
    fn a_signed_token_gives_the_service_account() {
        let (signer, verifier) = pair();
        let token = signer.sign(&claims(1000)).unwrap();
        let audiences = ["api".to_owned(), "other".to_owned()];
        let (user, shared) = verifier.verify(&token, (&audiences, &[]), 1100, &mut None).unwrap();
        assert_eq!(user.name, "system:serviceaccount:ns:builder");
        assert_eq!(user.as_service_account(), Some(("ns", "builder")));
        assert!(user.is_in("system:serviceaccounts:ns"));
        assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=id"]);
        assert_eq!(shared, ["api"]);
    }

    #[test]
    fn tokens_end_with_their_time_audience_and_objects() {
        let (signer, verifier) = pair();
        let api = ["api".to_owned()];
        let verify = |claims: &Claims, now| {
            let token = signer.sign(claims).unwrap();
            verifier.verify(&token, (&api, &[]), now, &mut None).map(|_| ())
        };
        assert!(matches!(verify(&claims(1000), 1600), Err(TokenError::Expired)));
        assert!(matches!(verify(&claims(1000), 999), Err(TokenError::NotYet)));
        let mut other = claims(1000);
        other.aud = vec!["x".into()];
        assert!(matches!(verify(&other, 1000), Err(TokenError::Audience(..))));
        let mut bound = claims(1000);
        bound.kubernetes.pod = Some(Bound { name: "pod".into(), uid: "u2".into() });
        assert!(verify(&bound, 1000).is_ok());
        bound.kubernetes.pod = Some(Bound { name: "pod".into(), uid: "older".into() });
        assert!(matches!(verify(&bound, 1000), Err(TokenError::Invalidated)));
    }

    #[test]
    fn a_token_of_another_key_is_not_ours() {
        let (_, verifier) = pair();
        let (stranger, _) = pair();
        let token = stranger.sign(&claims(1000)).unwrap();
        let verified = verifier.verify(&token, (&["api".to_owned()], &[]), 1000, &mut None);
        assert!(matches!(verified, Err(TokenError::NotOurs)));
    }
}
