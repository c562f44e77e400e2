//! Definitions of custom resources.
//!
//! Upstream: `apiextensions-apiserver/pkg/apis/apiextensions/validation`. Its internal form has what
//! all versions share once, for the whole definition, and findings say so.

mod defaults;
mod definition;
mod open_api;
mod rules;
mod selectable;
mod structural;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use meta::names;
use serde_json::{Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::certificate_signing_request::pem_blocks;
use crate::node::{Findings, Node};
use crate::{FieldError, webhook};

const APPROVAL: &str = "api-approved.kubernetes.io";
/// What versions may share.
const SHARED: [&str; 4] =
    ["schema", "subresources", "additionalPrinterColumns", "selectableFields"];

/// The name is made of what it defines.
pub(crate) fn name(object: &Node<'_>, name: &str) -> Vec<String> {
    let mut wrong = names::dns1123_subdomain(name);
    let spec = object.get("spec");
    let (plural, group) = (spec.get("names").get("plural"), spec.get("group"));
    if name != format!("{}.{}", plural.text(), group.text()) {
        wrong.push("must be spec.names.plural+\".\"+spec.group".to_owned());
    }
    wrong
}

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    specification(&spec, out);
    stored_versions(&object.get("status").get("storedVersions"), &spec.get("versions"), out);
    if let Some(finding) = approval(object) {
        out.push(finding);
    }
    let preserves = spec.get("preserveUnknownFields");
    if preserves.is_true() {
        out.push(preserves.invalid(
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
             spec.versions[*].schema instead",
        ));
    }
}

/// What keeps the schemas of a stored definition from being structural. New ones have nothing of the
/// kind, those of old clusters may.
///
/// # Errors
/// Why a schema cannot be looked at, in upstream's words.
pub fn structure(definition: &Value) -> Result<Vec<FieldError>, String> {
    let mut out = Vec::new();
    let definition = Node::root(definition);
    let spec = definition.get("spec");
    let preserves = spec.get("preserveUnknownFields");
    if preserves.is_true() {
        out.push(preserves.invalid("must be false"));
    }
    for version in spec.get("versions").items() {
        let root = version.get("schema").get("openAPIV3Schema");
        if !root.is_set() || structural::is_plain(root.value) {
            continue;
        }
        structural::readable(root.value).map_err(|why| {
            let name = version.get("name");
            format!("failed to check validation schema for version {}: {why}", name.text())
        })?;
        structural::validate(&root, &mut out);
    }
    Ok(out)
}

pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (spec, former) = (new.get("spec"), old.get("spec"));
    specification(&spec, out);
    let is_established = old.get("status").get("conditions").items().any(|condition| {
        condition.get("type").text() == "Established" && condition.get("status").text() == "True"
    });
    let (names, former_names) = (spec.get("names"), former.get("names"));
    if is_established {
        spec.get("scope").immutable_text(&former.get("scope"), out);
        names.get("kind").immutable_text(&former_names.get("kind"), out);
        authorities(&spec.get("conversion"), &former.get("conversion"), out);
    }
    spec.get("group").immutable_text(&former.get("group"), out);
    names.get("plural").immutable_text(&former_names.get("plural"), out);
    stored_versions(&new.get("status").get("storedVersions"), &spec.get("versions"), out);
    // What was never approved may stay so.
    if approval(old).is_none()
        && let Some(finding) = approval(new)
    {
        out.push(finding);
    }
}

fn specification(spec: &Node<'_>, out: &mut Findings) {
    let group = spec.get("group");
    if group.require(out) {
        let wrong = names::dns1123_subdomain(group.text());
        if !wrong.is_empty() {
            out.push(group.invalid(wrong.join(",")));
        } else if !group.text().contains('.') {
            out.push(group.invalid("should be a domain with at least one dot"));
        }
    }
    spec.get("scope").require_one_of(&["Cluster", "Namespaced"], out);
    let shared = Shared::of(spec);
    versions(spec, &shared, out);
    let names = spec.get("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        names.get(field).require(out);
    }
    definition_names(&names, out);
    if let Some(schema) = shared.get("schema") {
        let has_status = shared.has_status || versions_have_status(spec);
        let schema = schema.under(spec.path.child("validation"));
        definition::schema(&schema, has_status, out);
    }
    if let Some(subresources) = shared.get("subresources") {
        let subresources = subresources.under(spec.path.child("subresources"));
        definition::subresources(&subresources, out);
    }
    if let Some(columns) = shared.get("additionalPrinterColumns") {
        definition::columns(&columns.under(spec.path.child("additionalPrinterColumns")), out);
    }
    if let Some(fields) = shared.get("selectableFields")
        && fields.len() > 0
    {
        let fields = fields.under(spec.path.child("selectableFields"));
        match shared.get("schema") {
            Some(schema) => selectable::fields(&fields, &schema.get("openAPIV3Schema"), out),
            None => {
                let ty = "apiextensions/v1.SelectableField";
                let detail = "may only be set when validations.schema is included";
                out.push(fields.invalid(detail).shown_as(ty));
            }
        }
    }
    conversion(&spec.get("conversion"), out);
}

/// What is the same in all versions.
struct Shared<'a> {
    of: Vec<(&'static str, Node<'a>)>,
    has_status: bool,
}

impl<'a> Shared<'a> {
    fn of(spec: &Node<'a>) -> Self {
        let versions: Vec<Node<'a>> = spec.get("versions").items().collect();
        let shared = SHARED.into_iter().filter_map(|field| {
            let first = versions.first()?.get(field);
            let is_same = versions.iter().all(|version| version.get(field).value == first.value);
            (is_same && first.is_set()).then_some((field, first))
        });
        let of: Vec<_> = shared.collect();
        let has_status = of.iter().any(|(field, subresources)| {
            *field == "subresources" && subresources.get("status").is_set()
        });
        Self { of, has_status }
    }

    fn get(&self, field: &str) -> Option<&Node<'a>> {
        self.of.iter().find(|(name, _)| *name == field).map(|(_, node)| node)
    }
}

fn versions_have_status(spec: &Node<'_>) -> bool {
    let mut versions = spec.get("versions").items();
    versions.any(|version| version.get("subresources").get("status").is_set())
}

fn versions(spec: &Node<'_>, shared: &Shared<'_>, out: &mut Findings) {
    let versions = spec.get("versions");
    if shared.get("schema").is_none_or(|schema| !schema.get("openAPIV3Schema").is_set()) {
        for version in versions.items().filter(|version| version.get("served").is_true()) {
            version.get("schema").get("openAPIV3Schema").require(out);
        }
    }
    let (mut seen, mut stored, mut is_unique) = (BTreeSet::new(), 0, true);
    for version in versions.items() {
        let name = version.get("name");
        stored += usize::from(version.get("storage").is_true());
        is_unique &= seen.insert(name.text());
        joined(&name, names::dns1035_label(name.text()), out);
    }
    for version in versions.items() {
        let own = version_without(&version, shared);
        let own = Node { value: &own, path: version.path.clone() };
        definition::version(&own, shared.has_status, out);
    }
    // Of a specification that was not sent there is what is filled in, and its list is no list.
    let mut sent =
        spec.value.as_object().into_iter().flatten().filter(|(key, _)| *key != "conversion");
    let own = sent.next().map(|_| {
        versions.items().map(|version| version_without(&version, shared)).collect::<Value>()
    });
    let own = own.unwrap_or_default();
    let mut invalid = |detail: &str| {
        let ty = "apiextensions/v1.CustomResourceDefinitionVersion";
        out.push(FieldError::invalid(&versions.path, own.clone(), detail).shown_as(ty));
    };
    if !is_unique {
        invalid("must contain unique version names");
    }
    if stored != 1 {
        invalid("must have exactly one version marked as storage version");
    }
    // The first version is the one of the internal form.
    if let Some(first) = versions.items().next().map(|version| version.get("name"))
        && !first.text().is_empty()
    {
        let first = first.under(spec.path.child("version"));
        joined(&first, names::dns1035_label(first.text()), out);
    }
}

/// A version with what only it has.
fn version_without(version: &Node<'_>, shared: &Shared<'_>) -> Value {
    let mut own = version.value.clone();
    if let Some(map) = own.as_object_mut() {
        map.retain(|field, _| shared.get(field).is_none());
    }
    own
}

/// Several messages are one finding.
fn joined(at: &Node<'_>, messages: Vec<String>, out: &mut Findings) {
    if !messages.is_empty() {
        out.push(at.invalid_text(messages.join(",")));
    }
}

fn definition_names(of: &Node<'_>, out: &mut Findings) {
    let label = |at: &Node<'_>, out: &mut Findings| {
        if !at.text().is_empty() {
            joined(at, names::dns1035_label(at.text()), out);
        }
    };
    label(&of.get("plural"), out);
    label(&of.get("singular"), out);
    for field in ["kind", "listKind"] {
        let kind = of.get(field);
        let wrong = names::dns1035_label(&kind.text().to_lowercase());
        if !kind.text().is_empty() && !wrong.is_empty() {
            let wrong = wrong.join(",");
            let detail = format!("may have mixed case, but should otherwise match: {wrong}");
            out.push(kind.invalid(detail));
        }
    }
    let each = |field: &'static str, out: &mut Findings| {
        for item in of.get(field).items() {
            joined(&item, names::dns1035_label(item.text()), out);
        }
    };
    each("shortNames", out);
    let (kind, list) = (of.get("kind"), of.get("listKind"));
    if !kind.text().is_empty() && kind.text() == list.text() {
        out.push(list.invalid("kind and listKind may not be the same"));
    }
    each("categories", out);
}

fn conversion(conversion: &Node<'_>, out: &mut Findings) {
    if !conversion.is_set() {
        return;
    }
    let strategy = conversion.get("strategy");
    strategy.require_one_of(&["None", "Webhook"], out);
    let hook = conversion.get("webhook");
    let client = hook.get("clientConfig").under(conversion.path.child("webhookClientConfig"));
    let versions = hook
        .get("conversionReviewVersions")
        .under(conversion.path.child("conversionReviewVersions"));
    if strategy.text() == "Webhook" {
        if client.is_set() {
            webhook::client_config(&client, out);
        } else {
            let detail = "required when strategy is set to Webhook";
            out.push(FieldError::required(&client.path, detail));
        }
        webhook::conversion_versions(&versions, out);
        return;
    }
    let detail = "should not be set when strategy is not set to Webhook";
    if client.is_set() {
        out.push(client.forbidden(detail));
    }
    if versions.len() > 0 {
        out.push(versions.forbidden(detail));
    }
}

/// Who vouches for the webhook of a definition that is served. Before, a condition says what is
/// wrong; and what was wrong already may stay so.
fn authorities(conversion: &Node<'_>, former: &Node<'_>, out: &mut Findings) {
    let bundle_of = |conversion: &Node<'_>| {
        conversion.get("webhook").get("clientConfig").get("caBundle").text().to_owned()
    };
    let (bundle, before) = (bundle_of(conversion), bundle_of(former));
    let is_asked = conversion.get("strategy").text() == "Webhook" && bundle != before;
    if !is_asked || check_authorities(&before).is_err() {
        return;
    }
    if let Err(why) = check_authorities(&bundle) {
        let path = conversion.path.child("webhookClientConfig").child("caBundle");
        let detail = format!("unable to load root certificates: {why}");
        out.push(FieldError::invalid(&path, bundle.as_str(), detail));
    }
}

/// A bundle, in base64, that is empty or has a certificate.
fn check_authorities(bundle: &str) -> Result<(), &'static str> {
    if bundle.is_empty() {
        return Ok(());
    }
    let blocks = pem_blocks(bundle);
    let mut certificates = blocks.iter().filter(|block| block.label == "CERTIFICATE").peekable();
    if blocks.is_empty() {
        Err("unable to parse bytes as PEM block")
    } else if certificates.peek().is_none() {
        Err("no valid certificate authority data seen")
    } else if certificates.any(|block| X509Certificate::from_der(&block.contents).is_ok()) {
        Ok(())
    } else {
        Err("failed to parse certificate: x509: malformed certificate")
    }
}

fn stored_versions(stored: &Node<'_>, versions: &Node<'_>, out: &mut Findings) {
    if stored.len() == 0 {
        out.push(stored.invalid("must have at least one stored version"));
        return;
    }
    let mut left: Vec<Node<'_>> = stored.items().collect();
    for version in versions.items() {
        let name = version.get("name").text();
        let known = left.iter().position(|one| one.text() == name);
        if version.get("storage").is_true() && known.is_none() {
            out.push(stored.invalid(format!("must have the storage version {name}")));
        }
        known.map(|at| left.remove(at));
    }
    for one in left {
        let name = one.text();
        out.push(one.invalid(format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain \
             in spec.versions until a storage migration ensures no data remains persisted in \
             {name} and removes {name} from status.storedVersions"
        )));
    }
}

/// Groups of the project itself need its approval.
fn approval(object: &Node<'_>) -> Option<FieldError> {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let group = object.get("spec").get("group").text();
    let is_protected = ["k8s.io", "kubernetes.io"].iter().any(|domain| {
        group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    if !is_protected {
        return None;
    }
    let annotations = object.get("metadata").get("annotations");
    let given = annotations.entries().find(|(key, _)| *key == APPROVAL);
    let path = annotations.path.key(APPROVAL);
    let text = given.map_or("", |(_, value)| value.text());
    if text.is_empty() {
        let detail = format!("protected groups must have approval annotation {APPROVAL:?}, {SEE}");
        return Some(FieldError::required(&path, detail));
    }
    let is_url = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/')
    });
    if text.starts_with("unapproved") || is_url {
        return None;
    }
    let detail = format!(
        "protected groups must have approval annotation {APPROVAL:?} with either a URL or a reason \
         starting with \"unapproved\", {SEE}"
    );
    Some(FieldError::invalid(&path, json!(text), detail))
}
