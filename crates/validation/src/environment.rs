//! Environment variables, and references to fields and resources of the pod.

use meta::names;

use crate::FieldError;
use crate::node::{Findings, Node};

/// The variables of a container.
pub(crate) fn environment(variables: &Node<'_>, out: &mut Findings) {
    for variable in variables.items() {
        let name = variable.get("name");
        if name.text().is_empty() {
            out.push(FieldError::required(&name.path, ""));
        } else {
            name.invalid_each(environment_name(name.text()), out);
        }
        value_source(&variable, out);
    }
}

/// What upstream's relaxed rule says about a variable's name.
fn environment_name(name: &str) -> Vec<String> {
    if name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other \
         than '='"
            .to_owned(),
    ]
}

fn value_source(variable: &Node<'_>, out: &mut Findings) {
    const FIELDS: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let source = variable.get("valueFrom");
    if !source.is_set() {
        return;
    }
    let mut sources = 0;
    for kind in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
        let at = source.get(kind);
        if !at.is_set() {
            continue;
        }
        sources += 1;
        match kind {
            "fieldRef" => field_reference(&at, &FIELDS, out),
            "resourceFieldRef" => resource_reference(&at, false, out),
            "configMapKeyRef" | "secretKeyRef" => {
                let name = at.get("name");
                name.under(name.path.clone())
                    .invalid_each(names::dns1123_subdomain(name.text()), out);
                let key = at.get("key");
                if key.require(out) {
                    key.invalid_each(names::config_map_key(key.text()), out);
                }
            }
            _ => file_key(&at, out),
        }
    }
    if !variable.get("value").text().is_empty() {
        if sources != 0 {
            out.push(FieldError::invalid(
                &source.path,
                "",
                "may not be specified when `value` is not empty",
            ));
        }
    } else if sources == 0 {
        out.push(FieldError::invalid(
            &source.path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, \
             `secretKeyRef` or `fileKeyRef`",
        ));
    } else if sources > 1 {
        let detail = "may not have more than one field specified at a time";
        out.push(FieldError::invalid(&source.path, "", detail));
    }
}

/// A key in a file that another container has written.
fn file_key(at: &Node<'_>, out: &mut Findings) {
    let (key, path) = (at.get("key"), at.get("path"));
    if key.require(out) {
        key.invalid_each(environment_name(key.text()), out);
    }
    at.get("volumeName").require_label(out);
    if path.require(out) {
        crate::container::relative_path(&path, out);
    }
}

/// A field of the pod; those with a key in brackets are labels and annotations.
pub(crate) fn field_reference(reference: &Node<'_>, known: &[&str], out: &mut Findings) {
    if !reference.get("apiVersion").require(out) {
        return;
    }
    let path = reference.get("fieldPath");
    if !path.require(out) {
        return;
    }
    let text = path.text();
    let subscript =
        text.split_once("['").and_then(|(field, rest)| Some((field, rest.strip_suffix("']")?)));
    match subscript {
        Some(("metadata.annotations", key)) => {
            path.invalid_each(names::qualified_name(&key.to_lowercase()), out);
        }
        Some(("metadata.labels", key)) => path.invalid_each(names::qualified_name(key), out),
        Some((field, _)) if known.contains(&field) => {
            out.push(path.invalid("does not support subscript"));
        }
        _ if known.contains(&text) => {}
        _ => {
            let detail = format!("error converting fieldPath: field label not supported: {text}");
            let convertible = text.starts_with("metadata.labels")
                || text.starts_with("metadata.annotations")
                || text == "spec.restartPolicy";
            if convertible {
                path.one_of(known, out);
            } else {
                out.push(path.invalid(detail));
            }
        }
    }
}

/// A request or limit of a container.
pub(crate) fn resource_reference(reference: &Node<'_>, volume: bool, out: &mut Findings) {
    const NAMES: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    if volume && !reference.get("containerName").require(out) {
        return;
    }
    let resource = reference.get("resource");
    let huge = ["limits.hugepages-", "requests.hugepages-"]
        .iter()
        .any(|prefix| resource.text().starts_with(prefix));
    if !resource.require(out) || huge {
        return;
    }
    resource.one_of(&NAMES, out);
    let divisor = reference.get("divisor");
    if matches!(divisor.text(), "" | "0") {
        return;
    }
    let (what, allowed): (&str, &[&str]) = match resource.text().rsplit('.').next() {
        Some("cpu") => ("", &["1m", "1"]),
        Some("memory") => ("the memory resource", &DIVISORS),
        _ => ("the local ephemeral storage resource", &DIVISORS),
    };
    if allowed.contains(&divisor.text()) {
        return;
    }
    let path = reference.path.child("divisor");
    let detail = if what.is_empty() {
        "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
    } else {
        let list = DIVISORS.join(", ");
        format!("only divisor's values {list} are supported with {what}")
    };
    // Upstream quotes the resource.
    out.push(FieldError::invalid(&path, resource.text(), detail));
}

const DIVISORS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// The maps a container takes variables from.
pub(crate) fn environment_sources(sources: &Node<'_>, out: &mut Findings) {
    for source in sources.items() {
        let prefix = source.get("prefix");
        if !prefix.text().is_empty() {
            prefix.invalid_each(environment_name(prefix.text()), out);
        }
        let mut kinds = 0;
        for kind in ["configMapRef", "secretRef"] {
            let name = source.get(kind).get("name");
            if !source.get(kind).is_set() {
                continue;
            }
            kinds += 1;
            if name.require(out) {
                name.invalid_each(names::dns1123_subdomain(name.text()), out);
            }
        }
        // Upstream reports these at the list.
        if kinds == 0 {
            let detail = "must specify one of: `configMapRef` or `secretRef`";
            out.push(FieldError::invalid(&sources.path, "", detail));
        } else if kinds > 1 {
            let detail = "may not have more than one field specified at a time";
            out.push(FieldError::invalid(&sources.path, "", detail));
        }
    }
}
