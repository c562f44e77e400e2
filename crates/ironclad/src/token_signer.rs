//! Lets controllers sign the tokens that they put into Secrets.

use std::sync::Arc;

use anyhow::Context;
use authn::{Bound, LegacyClaims, TokenSigner};

/// A signer with this key, in PEM.
pub(crate) fn of(key: &str) -> anyhow::Result<controllers::SignToken> {
    let signer = TokenSigner::from_pem(key.as_bytes())
        .context("the private key of service accounts is not usable")?;
    Ok(Arc::new(move |subject| {
        let account = Bound { name: subject.account.clone(), uid: subject.account_uid.clone() };
        let claims = LegacyClaims::new(&subject.namespace, &subject.secret, account);
        signer.sign_legacy(&claims).map_err(|error| error.to_string())
    }))
}
