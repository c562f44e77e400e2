//! `metadata`, of every kind.

use meta::{GroupVersionKind, names};
use serde_json::Value;

use crate::node::{Findings, Node};
use crate::{FieldError, Path};

/// Sum of the lengths of all annotations' keys and values.
const ANNOTATIONS_MAX: usize = 256 * 1024;
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// What names of a kind may look like.
pub(crate) type NameRule<'a> = &'a dyn Fn(&str) -> Vec<String>;

/// Findings about the metadata of a new object.
pub(crate) fn create(object: &Node<'_>, namespaced: bool, rule: NameRule<'_>, out: &mut Findings) {
    let metadata = object.get("metadata");
    let generate = metadata.get("generateName");
    if !generate.text().is_empty() {
        generate.invalid_each(rule(&without_trailing_dash(generate.text())), out);
    }
    let name = metadata.get("name");
    if name.text().is_empty() {
        out.push(FieldError::required(&name.path, "name or generateName is required"));
    } else {
        name.invalid_each(rule(name.text()), out);
    }
    let namespace = metadata.get("namespace");
    if namespaced {
        if namespace.require(out) {
            namespace.invalid_each(names::dns1123_label(namespace.text()), out);
        }
    } else if !namespace.text().is_empty() {
        out.push(namespace.forbidden("not allowed on this type"));
    }
    metadata.get("generation").non_negative(out);
    labels(&metadata.get("labels"), out);
    annotations(&metadata.get("annotations"), out);
    owners(&metadata.get("ownerReferences"), out);
    finalizers(&metadata.get("finalizers"), out);
    managed_fields(&metadata.get("managedFields"), out);
}

/// What is wrong with entries of managed fields that can be read; others have been replaced.
fn managed_fields(list: &Node<'_>, out: &mut Findings) {
    for entry in list.items() {
        let operation = entry.get("operation");
        if !matches!(operation.text(), "Apply" | "Update") {
            out.push(operation.invalid("must be `Apply` or `Update`"));
        }
        let form = entry.get("fieldsType");
        if !matches!(form.text(), "" | "FieldsV1") {
            out.push(form.invalid("must be `FieldsV1`"));
        }
        let manager = entry.get("manager");
        manager.no_longer_than(MANAGER_MAX, out);
        for (at, letter) in manager.text().char_indices().filter(|(_, c)| !is_printable(*c)) {
            let code = u32::from(letter);
            let detail = format!("invalid character U+{code:04X} (at position {at})");
            out.push(manager.invalid(detail));
        }
        entry.get("subresource").no_longer_than(SUBRESOURCE_MAX, out);
    }
}

/// Bytes of a manager's name, and of the name of a subresource: upstream's limits.
const MANAGER_MAX: usize = 128;
const SUBRESOURCE_MAX: usize = 256;

/// As Go has it: a space is, other white space is not.
fn is_printable(letter: char) -> bool {
    letter == ' ' || !(letter.is_control() || letter.is_whitespace())
}

/// Findings about finalizers without a domain. Upstream has this rule only for the kinds whose
/// validation lies with the core kinds.
pub(crate) fn known_finalizers(gvk: &GroupVersionKind, object: &Node<'_>, out: &mut Findings) {
    if matches!(
        gvk.group.as_str(),
        "admissionregistration.k8s.io"
            | "apiextensions.k8s.io"
            | "apiregistration.k8s.io"
            | "node.k8s.io"
    ) {
        return;
    }
    for finalizer in object.get("metadata").get("finalizers").items() {
        let text = finalizer.text();
        let is_known = text.contains('/') || STANDARD_FINALIZERS.contains(&text);
        if names::qualified_name(text).is_empty() && !is_known {
            out.push(
                finalizer
                    .invalid("name is neither a standard finalizer name nor is it fully qualified"),
            );
        }
    }
}

/// Findings about the metadata of a changed object. Upstream checks the parts that may change
/// after those that may not.
pub(crate) fn update(gvk: &GroupVersionKind, new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let before = old.get("metadata");
    if !before.get("deletionTimestamp").text().is_empty() {
        let finalizers = new.get("metadata").get("finalizers");
        no_new_finalizers(&finalizers, &before.get("finalizers"), out);
    }
    known_finalizers(gvk, new, out);
    kept_and_well_formed(new, old, out);
}

/// The same for kinds whose finalizers may have any name.
pub(crate) fn changed(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (metadata, before) = (new.get("metadata"), old.get("metadata"));
    if !before.get("deletionTimestamp").text().is_empty() {
        no_new_finalizers(&metadata.get("finalizers"), &before.get("finalizers"), out);
    }
    kept_and_well_formed(new, old, out);
}

fn kept_and_well_formed(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (metadata, before) = (new.get("metadata"), old.get("metadata"));
    if metadata.get("generation").int() < before.get("generation").int() {
        out.push(metadata.get("generation").invalid("must not be decremented"));
    }
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        metadata.get(field).immutable(&before.get(field), out);
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.get(field).immutable(&before.get(field), out);
    }
    labels(&metadata.get("labels"), out);
    annotations(&metadata.get("annotations"), out);
    owners(&metadata.get("ownerReferences"), out);
    finalizers(&metadata.get("finalizers"), out);
    managed_fields(&metadata.get("managedFields"), out);
}

/// Labels; also node selectors and everything else that must be labels. Findings stand at the map.
pub(crate) fn labels(labels: &Node<'_>, out: &mut Findings) {
    for (key, value) in labels.entries() {
        let wrong_key = names::qualified_name(key);
        out.extend(wrong_key.into_iter().map(|text| FieldError::invalid(&labels.path, key, text)));
        let value = value.text();
        let wrong = names::label_value(value);
        out.extend(wrong.into_iter().map(|text| FieldError::invalid(&labels.path, value, text)));
    }
}

pub(crate) fn annotations(annotations: &Node<'_>, out: &mut Findings) {
    let mut size = 0;
    for (key, value) in annotations.entries() {
        size += key.len() + value.text().len();
        let wrong = names::qualified_name(&key.to_lowercase());
        out.extend(wrong.into_iter().map(|t| FieldError::invalid(&annotations.path, key, t)));
    }
    if size > ANNOTATIONS_MAX {
        out.push(FieldError::too_long(&annotations.path, ANNOTATIONS_MAX));
    }
}

fn owners(owners: &Node<'_>, out: &mut Findings) {
    let mut controller: Option<String> = None;
    for owner in owners.items() {
        let path = &owners.path;
        let at = |field: &'static str| owner.get(field).under(path.child(field));
        let api_version = at("apiVersion");
        let version = meta::GroupVersion::parse(api_version.text()).map(|parsed| parsed.version);
        if version.is_none_or(|version| version.is_empty()) {
            out.push(FieldError::invalid(
                &api_version.path,
                api_version.text(),
                "version must not be empty",
            ));
        }
        for field in ["kind", "name", "uid"] {
            if at(field).text().is_empty() {
                out.push(FieldError::invalid(&at(field).path, "", "must not be empty"));
            }
        }
        let gvk = (api_version.text(), at("kind").text());
        if gvk == ("v1", "Event") {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            out.push(FieldError::invalid(path, owner.value.clone(), detail));
        }
        if owner.get("controller").is_true() {
            let this = format!("{}/{}", at("kind").text(), at("name").text());
            if let Some(other) = &controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in \
                     references for {other} and {this}"
                );
                out.push(FieldError::invalid(path, owners.value.clone(), detail));
            } else {
                controller = Some(this);
            }
        }
    }
}

fn finalizers(finalizers: &Node<'_>, out: &mut Findings) {
    let (mut orphan, mut foreground) = (false, false);
    for finalizer in finalizers.items() {
        let text = finalizer.text();
        let wrong = names::qualified_name(text);
        out.extend(wrong.into_iter().map(|t| FieldError::invalid(&finalizers.path, text, t)));
        orphan |= text == "orphan";
        foreground |= text == "foregroundDeletion";
    }
    if orphan && foreground {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        out.push(FieldError::invalid(&finalizers.path, finalizers.value.clone(), detail));
    }
}

/// The finalizers in a namespace's spec.
pub(crate) fn namespace_finalizers(namespace: &Node<'_>, out: &mut Findings) {
    let finalizers = namespace.get("spec").get("finalizers");
    for finalizer in finalizers.items() {
        let text = finalizer.text();
        let wrong = names::qualified_name(text);
        out.extend(wrong.into_iter().map(|t| FieldError::invalid(&finalizers.path, text, t)));
        if !text.contains('/') && !STANDARD_FINALIZERS.contains(&text) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            out.push(FieldError::invalid(&finalizers.path, text, detail));
        }
    }
}

fn no_new_finalizers(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let had = |text: &str| old.items().any(|before| before.text() == text);
    let added: Vec<String> =
        new.items().map(|f| f.text().to_owned()).filter(|text| !had(text)).collect();
    if !added.is_empty() {
        let quoted: Vec<String> = added.iter().map(|text| format!("{text:?}")).collect();
        out.push(new.forbidden(format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers \
             []string{{{}}}",
            quoted.join(", ")
        )));
    }
}

/// A label selector in its object form.
pub(crate) fn label_selector(selector: &Node<'_>, out: &mut Findings) {
    labels(&selector.get("matchLabels"), out);
    for expression in selector.get("matchExpressions").items() {
        let (operator, values) = (expression.get("operator"), expression.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.len() == 0 => out.push(FieldError::required(
                &values.path,
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                out.push(values.forbidden(
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ))
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => out.push(FieldError::invalid(
                &operator.path,
                other,
                "not a valid selector operator",
            )),
        }
        let key = expression.get("key");
        let wrong = names::qualified_name(key.text());
        out.extend(wrong.into_iter().map(|t| FieldError::invalid(&key.path, key.text(), t)));
        for value in values.items() {
            value.invalid_each(names::label_value(value.text()), out);
        }
    }
}

/// The name that a prefix would make: upstream puts a letter where a dash would dangle.
fn without_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) => format!("{rest}a"),
        None => prefix.to_owned(),
    }
}

/// The metadata of a template, which has labels and annotations and nothing else.
pub(crate) fn of_template(metadata: &Node<'_>, out: &mut Findings) {
    annotations(&metadata.get("annotations"), out);
    labels(&metadata.get("labels"), out);
    let Some(ty) = schema::registry().type_named("meta/v1.ObjectMeta") else { return };
    for field in ty.fields() {
        let is_allowed = matches!(&*field.name, "annotations" | "labels");
        if !is_allowed && metadata.value.get(&*field.name).is_some() {
            let path = Path::new_in(&metadata.path, &field.name);
            out.push(FieldError::forbidden(&path, "cannot be set"));
        }
    }
}

/// Conditions in the form that most kinds share.
pub(crate) fn conditions(conditions: &Node<'_>, out: &mut Findings) {
    const REASON: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";
    const MAX_REASON: usize = 1024;
    const MAX_MESSAGE: usize = 32 * 1024;
    let mut seen = std::collections::BTreeSet::new();
    for condition in conditions.items() {
        let kind = condition.get("type");
        kind.invalid_each(names::qualified_name(kind.text()), out);
        if !seen.insert(kind.text()) {
            out.push(FieldError::duplicate(&kind.path, kind.text()));
        }
        condition.get("status").require_one_of(&["False", "True", "Unknown"], out);
        let generation = condition.get("observedGeneration");
        if generation.int() < 0 {
            out.push(generation.invalid("must be greater than or equal to zero"));
        }
        if !condition.get("lastTransitionTime").is_set() {
            out.push(FieldError::required(&condition.get("lastTransitionTime").path, ""));
        }
        let reason = condition.get("reason");
        if reason.require(out) {
            if !is_reason(reason.text()) {
                out.push(reason.invalid(names::regex_error(
                    "a condition reason must start with alphabetic character, optionally followed \
                     by a string of alphanumeric characters or '_,:', and must end with an \
                     alphanumeric character or '_'",
                    REASON,
                    &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
                )));
            }
            reason.no_longer_than(MAX_REASON, out);
        }
        condition.get("message").no_longer_than(MAX_MESSAGE, out);
    }
}

fn is_reason(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b',' | b':');
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|byte| inner(*byte))
        && bytes.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// A path with a domain before it, such as `acme.io/foo`.
pub(crate) fn domain_prefixed_path(path: &Node<'_>, out: &mut Findings) {
    const REGEX: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
    if !path.require(out) {
        return;
    }
    let Some((domain, rest)) =
        path.text().split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty())
    else {
        out.push(path.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"));
        return;
    };
    let wrong = names::dns1123_subdomain(domain);
    out.extend(wrong.into_iter().map(|text| FieldError::invalid(&path.path, domain, text)));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !rest.bytes().all(allowed) {
        let detail = names::regex_error("Invalid path", REGEX, &[]);
        out.push(FieldError::invalid(&path.path, rest, detail));
    }
}

/// Whether a selector chooses these labels; `None` when it cannot be read.
pub(crate) fn selects(selector: &Node<'_>, labels: &Value) -> Option<bool> {
    let parsed = meta::LabelSelector::from_object(Some(selector.value)).ok()?;
    Some(parsed.matches_value(labels))
}

/// The path of a key in a map of the object.
pub(crate) fn annotation_path(key: &str) -> Path {
    Path::new("metadata.annotations").key(key)
}

/// The phase of a namespace follows from whether it is being deleted.
pub(crate) fn namespace_phase(namespace: &Node<'_>, out: &mut Findings) {
    let phase = namespace.get("status").get("phase").under(Path::new("status.Phase"));
    let is_going = namespace.get("metadata").get("deletionTimestamp").is_set();
    if !is_going && phase.text() != "Active" {
        let detail = "may only be 'Active' if `deletionTimestamp` is empty";
        out.push(phase.invalid_text(detail));
    } else if is_going && phase.text() != "Terminating" {
        let detail = "may only be 'Terminating' if `deletionTimestamp` is not empty";
        out.push(phase.invalid_text(detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::tests::check;

    #[test]
    fn entries_of_managed_fields_have_a_form() {
        let map = |entry: serde_json::Value| json!({"metadata": {"name": "x", "namespace": "n", "managedFields": [entry]}});
        let fine = json!({"manager": "a b", "operation": "Apply", "fieldsType": "FieldsV1"});
        check("", "ConfigMap", map(fine), &[]);
        let wrong = json!({"manager": "a\u{7}", "operation": "Make", "fieldsType": "FieldsV2"});
        check(
            "",
            "ConfigMap",
            map(wrong),
            &[
                "metadata.managedFields[0].operation: Invalid value: \"Make\": must be `Apply` or \
                 `Update`",
                "metadata.managedFields[0].fieldsType: Invalid value: \"FieldsV2\": must be \
                 `FieldsV1`",
                "metadata.managedFields[0].manager: Invalid value: \"a\\a\": invalid character \
                 U+0007 (at position 1)",
            ],
        );
        let long = json!({"manager": "m".repeat(129), "operation": "Update",
            "subresource": "s".repeat(257)});
        check(
            "",
            "ConfigMap",
            map(long),
            &[
                "metadata.managedFields[0].manager: Too long: may not be more than 128 bytes",
                "metadata.managedFields[0].subresource: Too long: may not be more than 256 bytes",
            ],
        );
    }
}
