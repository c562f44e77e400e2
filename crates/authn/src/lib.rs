//! Who makes a request.
//!
//! Start reading at [`Authenticator`], which turns credentials into a [`UserInfo`]; then
//! [`TokenSigner`] and [`TokenVerifier`] for service account tokens, and [`Impersonation`].
//!
//! Invariants: a credential that is presented and wrong is an error, never anonymity; tokens and
//! keys are never logged or printed.
//!
//! It does not decide what a user may do (`authz`), and reads no API objects itself: whether the
//! objects a token is bound to still live, and what a Secret has, is asked through [`BoundObjects`].
//!
//! Tested by unit tests beside the code.

#![forbid(unsafe_code)]

mod authenticator;
mod bootstrap_token;
mod certificate;
mod impersonation;
mod legacy;
mod request_header;
mod service_account;
mod static_tokens;
mod user;
mod verified;

pub use authenticator::{Anonymous, Authenticated, Authenticator, Peer, Unauthenticated};
pub use bootstrap_token::{BootstrapSecret, BootstrapSecrets};
pub use certificate::{BadCertificate, common_name, user_from_certificate};
pub use impersonation::{Impersonation, ImpersonationError};
pub use legacy::{LEGACY_ISSUER, LegacyClaims, LegacyKind, LegacyUse, TokenAccount, TokenSecret};
pub use request_header::{RequestHeader, RequestHeaderError};
pub use service_account::{
    Bound, BoundObjects, Claims, KeyError, TokenError, TokenSigner, TokenVerifier,
};
pub use static_tokens::{StaticTokens, TokenFileError};
pub use user::UserInfo;
