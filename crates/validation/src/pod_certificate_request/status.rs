//! The end of a request: a certificate was issued, or the request denied, or it failed.

use serde_json::Value;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use super::requested_key;
use crate::FieldError;
use crate::Path;
use crate::metadata;
use crate::node::{Findings, Node};

const ENDS: [&str; 3] = ["Issued", "Denied", "Failed"];
/// Upstream's `MaxCertificateChainSize`.
const MAX_CHAIN: usize = 100 * 1024;
/// How far from both ends of a certificate's life it may be renewed.
const MARGIN_SECS: i64 = 10 * 60;
const MIN_LIFE_SECS: i64 = 60 * 60;

/// Whether now is near the beginning of the certificate is for the caller, who has a clock.
pub(crate) fn status(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (now, before) = (new.get("status"), old.get("status"));
    conditions(&now, out);
    if !out.is_empty() {
        return;
    }
    let is = |status: &Node<'_>, kind: &str| {
        let conditions = status.get("conditions");
        conditions.items().any(|condition| condition.get("type").text() == kind)
    };
    if ENDS.iter().any(|kind| is(&before, kind)) {
        let detail = "immutable after PodCertificateRequest is issued, denied, or failed";
        same(&now, now.value == before.value, detail, out);
    } else if is(&now, "Denied") || is(&now, "Failed") {
        let fields = now.value.as_object();
        let is_bare = fields.is_none_or(|map| map.keys().all(|key| key == "conditions"));
        let detail = "non-condition status fields must be empty when denying or failing the \
                      PodCertificateRequest";
        same(&now, is_bare, detail, out);
    } else if is(&now, "Issued") {
        // The first that is wrong is all that upstream says.
        if let Err(finding) = issued(new, old) {
            out.extend(finding);
        }
    } else {
        let detail = "status is immutable unless transitioning to \"Issued\", \"Denied\", or \
                      \"Failed\"";
        same(&now, now.value == before.value, detail, out);
    }
}

fn same(status: &Node<'_>, is_same: bool, detail: &str, out: &mut Findings) {
    if !is_same {
        out.push(FieldError::invalid(&status.path, "", detail).without_value());
    }
}

fn conditions(status: &Node<'_>, out: &mut Findings) {
    let mut known = 0;
    let conditions = status.get("conditions");
    for (at, condition) in conditions.items().enumerate() {
        let path = Path::new("status").child("conditions").member(&format!("[{at}]"));
        let condition = condition.under(path);
        let (kind, state) = (condition.get("type"), condition.get("status"));
        if !ENDS.contains(&kind.text()) {
            out.push(FieldError::not_supported(&kind.path, kind.text(), &ENDS));
            continue;
        }
        known += 1;
        if known > 1 {
            out.push(kind.invalid(
                "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"",
            ));
        }
        if state.text() != "True" {
            out.push(FieldError::not_supported(&state.path, state.text(), &["True"]));
        }
    }
    metadata::conditions(&conditions, out);
}

fn issued(new: &Node<'_>, old: &Node<'_>) -> Result<(), Vec<FieldError>> {
    let status = new.get("status");
    let chain = status.get("certificateChain");
    if chain.text().len() > MAX_CHAIN {
        return Err(vec![FieldError::too_long(&chain.path, MAX_CHAIN)]);
    }
    let wrong = |detail: &str| Err(vec![chain.invalid_text(detail)]);
    let blocks: Vec<Pem> =
        Pem::iter_from_buffer(chain.text().as_bytes()).map_while(Result::ok).collect();
    let Some(first) = blocks.first() else {
        return wrong("issued certificate chain must contain at least one certificate");
    };
    if first.label != "CERTIFICATE" {
        return wrong("issued certificate chain must consist entirely of CERTIFICATE PEM blocks");
    }
    let Ok((_, leaf)) = X509Certificate::from_der(&first.contents) else {
        return wrong("leaf certificate does not parse as valid X.509");
    };
    let mut found = names(&leaf, &chain);
    let key = requested_key(&old.get("spec"));
    if key.is_none_or(|key| key != leaf.public_key().raw) {
        found.push(
            chain.invalid_text("leaf certificate was not issued to the requested public key"),
        );
        return Err(found);
    }
    times(&status, &mut found);
    if !found.is_empty() {
        return Err(found);
    }
    life(new, &leaf)?;
    for block in &blocks[1..] {
        if block.label != "CERTIFICATE" {
            return wrong(
                "issued certificate chain must consist entirely of CERTFICATE PEM blocks",
            );
        }
        if X509Certificate::from_der(&block.contents).is_err() {
            return wrong("intermediate certificate does not parse as valid X.509");
        }
    }
    Ok(())
}

/// What is wrong with the names in a certificate.
fn names(leaf: &X509Certificate<'_>, chain: &Node<'_>) -> Vec<FieldError> {
    let mut found = Vec::new();
    let extensions = leaf.extensions().iter().map(|extension| extension.parsed_extension());
    for extension in extensions {
        let ParsedExtension::SubjectAlternativeName(list) = extension else { continue };
        for name in &list.general_names {
            let mut refuse = |name: &str, detail: &str| {
                found.push(FieldError::invalid(&chain.path, name, detail));
            };
            match name {
                GeneralName::DNSName(name) => {
                    if name.is_empty() {
                        refuse(name, "leaf certificate should not contain empty DNSName");
                    }
                    if name.contains("..") {
                        refuse(name, "leaf certificate's DNSName should not contain '..'");
                    }
                    if name.starts_with('.') || name.ends_with('.') {
                        let detail = "leaf certificate's DNSName should not start or end with '.'";
                        refuse(name, detail);
                    }
                }
                GeneralName::RFC822Name(name) if !is_address(name) => {
                    refuse(name, "leaf certificate should not contain invalid EmailAddress");
                }
                _ => {}
            }
        }
    }
    found
}

/// Enough of an e-mail address for a certificate: two parts without spaces.
fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once('@');
    parts.is_some_and(|(local, domain)| {
        let is_word = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && !"<>,;".contains(c))
        };
        is_word(local) && is_word(domain)
    })
}

fn times(status: &Node<'_>, found: &mut Vec<FieldError>) {
    const CONSISTENT: &str = "must be present and consistent with the issued certificate";
    const BETWEEN: &str = "must be present and in the range [notbefore+10min, notafter-10min]";
    for (field, detail) in
        [("notBefore", CONSISTENT), ("notAfter", CONSISTENT), ("beginRefreshAt", BETWEEN)]
    {
        let time = status.get(field);
        if !time.is_set() {
            found.push(FieldError::required(&time.path, detail));
        }
    }
}

/// How long the certificate lives, and when it is to be renewed.
fn life(new: &Node<'_>, leaf: &X509Certificate<'_>) -> Result<(), Vec<FieldError>> {
    let status = new.get("status");
    let seconds = |field: &'static str| {
        let time = status.get(field);
        meta::time::parse(time.text()).map_or(0, |time| time.as_second())
    };
    let refuse = |field: &'static str, detail: &str| Err(vec![status.get(field).invalid(detail)]);
    let validity = leaf.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if seconds("notBefore") != from {
        return refuse(
            "notBefore",
            "must be set to the NotBefore time encoded in the leaf certificate",
        );
    }
    if seconds("notAfter") != until {
        return refuse(
            "notAfter",
            "must be set to the NotAfter time encoded in the leaf certificate",
        );
    }
    let chain = status.get("certificateChain");
    let lifetime = until - from;
    let too = |detail: String| {
        let shown = Value::from(lifetime.saturating_mul(1_000_000_000));
        Err(vec![FieldError::invalid(&chain.path, shown, detail)])
    };
    if lifetime < MIN_LIFE_SECS {
        return too("leaf certificate lifetime must be >= 1 hour".to_owned());
    }
    let max = new.get("spec").get("maxExpirationSeconds").int();
    if lifetime > max {
        return too(format!(
            "leaf certificate lifetime must be <= spec.maxExpirationSeconds ({max})"
        ));
    }
    let refresh = seconds("beginRefreshAt");
    if refresh < from + MARGIN_SECS {
        return refuse("beginRefreshAt", "must be at least 10 minutes after status.notBefore");
    }
    if refresh > until - MARGIN_SECS {
        return refuse("beginRefreshAt", "must be at least 10 minutes before status.notAfter");
    }
    Ok(())
}
