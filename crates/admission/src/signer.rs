//! Permissions for the signers of certificates.
//!
//! Upstream: `pkg/certauthorization`.

use crate::request::{Request, View};

/// Whether the user may do this for a signer, or for all signers of its domain.
pub(crate) fn may(request: &Request<'_>, view: &dyn View, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    [signer, &format!("{domain}/*")].into_iter().any(|name| {
        let asked = authz::Attributes::resource(verb, "certificates.k8s.io", "signers", "", name);
        view.may(request.user, &asked)
    })
}
