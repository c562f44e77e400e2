//! ClusterTrustBundles.
//!
//! Upstream: `pkg/apis/certificates/validation`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meta::names;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::FieldError;
use crate::certificate_signing_request::signer_name;
use crate::node::{Findings, Node};

/// Upstream's limit: a bundle has to fit into a volume, and into the store.
const MAX_BYTES: usize = 1 << 20;
/// Upstream does not repeat a bundle in its messages.
const OMITTED: &str = "<value omitted>";
const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// What is wrong with the name of a bundle: those of a signer begin with its name.
pub(crate) fn name(object: &Node<'_>, name: &str) -> Vec<String> {
    let signer = object.get("spec").get("signerName").text();
    if signer.is_empty() {
        if name.contains(':') {
            let message = "ClusterTrustBundle without signer name must not have \":\" in its name";
            return vec![message.to_owned()];
        }
        return names::dns1123_subdomain(name);
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => names::dns1123_subdomain(rest),
        None => vec![format!(
            "ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
        )],
    }
}

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let signer = spec.get("signerName");
    if !signer.text().is_empty() {
        signer_name(&signer, out);
    }
    trust_bundle(&spec.get("trustBundle"), out);
}

pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    // A bundle that was accepted once stays acceptable.
    let (spec, before) = (new.get("spec"), old.get("spec"));
    if spec.get("trustBundle").value == before.get("trustBundle").value {
        let signer = spec.get("signerName");
        if !signer.text().is_empty() {
            signer_name(&signer, out);
        }
    } else {
        validate(new, out);
    }
    spec.get("signerName").immutable(&before.get("signerName"), out);
}

fn trust_bundle(bundle: &Node<'_>, out: &mut Findings) {
    let text = bundle.text();
    if text.len() > MAX_BYTES {
        out.push(FieldError::too_long(&bundle.path, MAX_BYTES));
        return;
    }
    let mut report = |detail: String| out.push(FieldError::invalid(&bundle.path, OMITTED, detail));
    let mut seen: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    let blocks = blocks(text);
    for (at, block) in blocks.iter().enumerate() {
        if block.label != "CERTIFICATE" {
            report(format!("entry {at} has bad block type: {}", block.label));
            continue;
        }
        if block.has_headers {
            report(format!("entry {at} has PEM block headers"));
            continue;
        }
        let Ok((_, certificate)) = X509Certificate::from_der(&block.contents) else {
            report(format!("entry {at} does not parse as X.509"));
            continue;
        };
        match certificate.basic_constraints() {
            Ok(Some(constraints)) if constraints.value.ca => {}
            Ok(None) => report(format!("entry {at} has invalid basic constraints")),
            _ => report(format!("entry {at} does not have the CA bit set")),
        }
        seen.entry(block.contents.clone()).or_default().push(at);
    }
    if blocks.is_empty() {
        report("at least one trust anchor must be provided".to_owned());
    }
    let mut repeated: Vec<&Vec<usize>> = seen.values().filter(|found| found.len() > 1).collect();
    repeated.sort();
    for indices in repeated {
        let list: Vec<String> = indices.iter().map(ToString::to_string).collect();
        report(format!("duplicate trust anchor (indices [{}])", list.join(" ")));
    }
}

/// A block of PEM.
struct Block {
    label: String,
    has_headers: bool,
    contents: Vec<u8>,
}

/// The blocks of a text; what is between them, and what is no block, is skipped as Go does.
fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let label = line.trim_end().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES));
        let Some(label) = label else { continue };
        let end = format!("-----END {label}{DASHES}");
        let (mut body, mut has_headers, mut is_whole) = (String::new(), false, false);
        for line in lines.by_ref() {
            if line.trim_end() == end {
                is_whole = true;
                break;
            }
            if line.contains(':') {
                has_headers = true;
            } else {
                body.push_str(line.trim());
            }
        }
        if let (true, Ok(contents)) = (is_whole, STANDARD.decode(&body)) {
            found.push(Block { label: label.to_owned(), has_headers, contents });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::tests::check;

    fn authority(is_authority: bool) -> String {
        let mut params = rcgen::CertificateParams::default();
        let unconstrained = rcgen::BasicConstraints::Unconstrained;
        params.is_ca =
            if is_authority { rcgen::IsCa::Ca(unconstrained) } else { rcgen::IsCa::ExplicitNoCa };
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn bundle(name: &str, signer: &str, text: &str) -> Value {
        let mut object = json!({"metadata": {"name": name}, "spec": {"trustBundle": text}});
        if !signer.is_empty() {
            object["spec"]["signerName"] = json!(signer);
        }
        object
    }

    fn refused(object: Value, expected: &[&str]) {
        check("certificates.k8s.io", "ClusterTrustBundle", object, expected);
    }

    #[test]
    fn a_bundle_is_a_list_of_authorities() {
        let (one, other) = (authority(true), authority(true));
        refused(bundle("b", "", &format!("words\n{one}\n{other}")), &[]);
        refused(
            bundle("b", "", "words"),
            &[
                "spec.trustBundle: Invalid value: \"<value omitted>\": at least one trust anchor must \
             be provided",
            ],
        );
        refused(
            bundle("b", "", &format!("{one}{other}{one}")),
            &[
                "spec.trustBundle: Invalid value: \"<value omitted>\": duplicate trust anchor (indices \
             [0 2])",
            ],
        );
        refused(
            bundle("b", "", &authority(false)),
            &[
                "spec.trustBundle: Invalid value: \"<value omitted>\": entry 0 does not have the CA \
             bit set",
            ],
        );
        refused(
            bundle("b", "", &one.replace("CERTIFICATE", "KEY")),
            &[
                "spec.trustBundle: Invalid value: \"<value omitted>\": entry 0 has bad block type: KEY",
            ],
        );
    }

    #[test]
    fn the_name_of_a_signers_bundle_begins_with_the_signer() {
        let text = authority(true);
        refused(bundle("x.io:s:b", "x.io/s", &text), &[]);
        refused(
            bundle("b", "x.io/s", &text),
            &[
                "metadata.name: Invalid value: \"b\": ClusterTrustBundle for signerName x.io/s must be \
             named with prefix x.io:s:",
            ],
        );
        refused(
            bundle("a:b", "", &text),
            &[
                "metadata.name: Invalid value: \"a:b\": ClusterTrustBundle without signer name must \
             not have \":\" in its name",
            ],
        );
    }
}
