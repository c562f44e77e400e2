//! Claims to persistent volumes.

use meta::{Quantity, names};
use serde_json::{Map, Value};

use crate::metadata::label_selector;
use crate::node::{Findings, Node};
use crate::{FieldError, difference, printed};

const IMMUTABLE: &str = "spec is immutable after creation except resources.requests and \
                         volumeAttributesClassName for bound claims";

pub(crate) fn claim(object: &Node<'_>, out: &mut Findings) {
    claim_spec(&object.get("spec"), out);
}

/// The spec of a claim, also in templates.
pub(crate) fn claim_spec(spec: &Node<'_>, out: &mut Findings) {
    let modes = spec.get("accessModes");
    if modes.len() == 0 {
        let detail = "at least 1 access mode is required";
        out.push(FieldError::required(&modes.path, detail));
    }
    label_selector(&spec.get("selector"), out);
    access_modes(&modes, out);
    let resources = spec.get("resources");
    let storage = resources.get("requests").get("storage");
    match storage.text().parse::<Quantity>() {
        Ok(quantity) if quantity.signum() <= 0 => {
            let path = resources.path.key("storage");
            out.push(FieldError::invalid(&path, storage.text(), "must be greater than zero"));
        }
        Ok(_) => {}
        Err(_) => out.push(FieldError::required(&resources.path.key("storage"), "")),
    }
    let class = spec.get("storageClassName");
    if !class.text().is_empty() {
        class.subdomain(out);
    }
    spec.get("volumeMode").one_of(&["Block", "Filesystem"], out);
    for field in ["dataSource", "dataSourceRef"] {
        let source = spec.get(field);
        if source.is_set() {
            data_source(&source, out);
        }
    }
    same_source(spec, out);
    let attributes = spec.get("volumeAttributesClassName");
    if !attributes.text().is_empty() {
        attributes.subdomain(out);
    }
}

fn data_source(source: &Node<'_>, out: &mut Findings) {
    source.get("name").require(out);
    source.get("kind").require(out);
    let (group, kind) = (source.get("apiGroup"), source.get("kind"));
    if group.text().is_empty() && kind.text() != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        out.push(FieldError::invalid(&source.path, kind.text(), detail));
    }
    if !group.text().is_empty() {
        group.subdomain(out);
    }
    let namespace = source.get("namespace");
    if !namespace.text().is_empty() {
        namespace.invalid_each(names::dns1123_label(namespace.text()), out);
    }
}

/// Two fields say the same for clients of different ages. Upstream quotes a path here, which has
/// nothing to print.
fn same_source(spec: &Node<'_>, out: &mut Findings) {
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    let nothing = Value::Object(Map::new());
    if !reference.get("namespace").text().is_empty() {
        if source.is_set() {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            out.push(FieldError::invalid(&source.path, nothing, detail));
        }
        return;
    }
    let differs = ["apiGroup", "kind", "name"]
        .iter()
        .any(|field| source.get(field).value != reference.get(field).value);
    if source.is_set() && reference.is_set() && differs {
        out.push(FieldError::invalid(&spec.path, nothing, "must match dataSourceRef"));
    }
}

pub(crate) fn access_modes(modes: &Node<'_>, out: &mut Findings) {
    const KNOWN: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.items() {
        mode.under(modes.path.clone()).one_of(&KNOWN, out);
    }
    if modes.len() > 1 && modes.items().any(|mode| mode.text() == "ReadWriteOncePod") {
        out.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
}

/// What of a claim may not change.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let is_bound = old.get("status").get("phase").text() == "Bound";
    let allowed = allowed_spec(&spec, &before, is_bound);
    if allowed != *spec.value {
        let shown = |value: &Value| printed::indented("core/v1.PersistentVolumeClaimSpec", value);
        let diff = difference::unified(&shown(&allowed), &shown(spec.value));
        out.push(spec.forbidden(format!("{IMMUTABLE}\n{diff}")));
    }
    requests(new, old, out);
    spec.get("volumeMode")
        .under(crate::Path::new("volumeMode"))
        .immutable(&before.get("volumeMode"), out);
    let class = spec.get("volumeAttributesClassName");
    let current = old.get("status").get("currentVolumeAttributesClassName");
    let had = before.get("volumeAttributesClassName");
    if !current.text().is_empty() && !had.text().is_empty() && class.value != had.value {
        let to = if class.is_set() { "empty string" } else { "nil" };
        if class.text().is_empty() {
            out.push(class.forbidden(format!(
                "update to {to} is forbidden when status.currentVolumeAttributesClassName is not \
                 nil"
            )));
        }
    }
}

/// The old spec with what may change taken from the new one.
fn allowed_spec(spec: &Node<'_>, before: &Node<'_>, is_bound: bool) -> Value {
    let mut allowed = before.value.clone();
    let mut take = |field: &'static str| {
        let Some(map) = allowed.as_object_mut() else { return };
        match spec.value.get(field) {
            Some(value) => map.insert(field.to_owned(), value.clone()),
            None => map.remove(field),
        };
    };
    // The controller binds by setting the name of the volume.
    if before.get("volumeName").text().is_empty() {
        take("volumeName");
    }
    if !before.get("storageClassName").is_set() && spec.get("storageClassName").is_set() {
        take("storageClassName");
    }
    if is_bound {
        take("volumeAttributesClassName");
        let wanted = spec.get("resources").get("requests").get("storage");
        if wanted.is_set() {
            allowed["resources"]["requests"]["storage"] = wanted.value.clone();
        }
    }
    allowed
}

/// A bound claim may become larger, and smaller again while it has not grown.
fn requests(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let storage =
        |node: &Node<'_>| -> Quantity { node.get("storage").text().parse().unwrap_or_default() };
    let wanted = new.get("spec").get("resources").get("requests");
    let had = old.get("spec").get("resources").get("requests");
    // What is not asked for is nothing, and so is what is not there yet.
    let (now, before) = (storage(&wanted), storage(&had));
    if now < before && now <= storage(&old.get("status").get("capacity")) {
        let path = wanted.path.child("storage");
        out.push(FieldError::forbidden(&path, "field can not be less than status.capacity"));
    }
}

/// The status of a claim.
pub(crate) fn status(object: &Node<'_>, out: &mut Findings) {
    const STATES: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizePending",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
    ];
    let status = object.get("status");
    for list in ["capacity", "allocatedResources"] {
        for (_, quantity) in status.get(list).entries() {
            if quantity.text().parse::<Quantity>().is_ok_and(|value| value.signum() < 0) {
                out.push(quantity.invalid("must be a valid resource quantity"));
            }
        }
    }
    for (name, state) in status.get("allocatedResourceStatuses").entries() {
        let wrong = names::qualified_name(name);
        out.extend(wrong.into_iter().map(|text| FieldError::invalid(&state.path, name, text)));
        if !name.contains('/') && name != "storage" {
            out.push(FieldError::not_supported(&state.path, name, &["storage"]));
        }
        if !state.text().is_empty() && !state.text().contains('/') {
            state.one_of(&STATES, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::{check, check_update, object};

    fn claim_of(more: Value) -> Value {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        object(spec)
    }

    #[test]
    fn both_ways_to_name_the_data_agree() {
        let source = json!({"kind": "PersistentVolumeClaim", "name": "a"});
        let other = json!({"kind": "PersistentVolumeClaim", "name": "b"});
        let pod = json!({"kind": "Pod", "name": "a"});
        check(
            "",
            "PersistentVolumeClaim",
            claim_of(json!({"dataSource": source, "dataSourceRef": other})),
            &["spec: Invalid value: {}: must match dataSourceRef"],
        );
        check(
            "",
            "PersistentVolumeClaim",
            // The server copies one into the other before it looks at either.
            claim_of(json!({"dataSource": pod, "dataSourceRef": pod})),
            &[
                "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when \
                 referencing the default apiGroup",
                "spec.dataSourceRef: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when \
                 referencing the default apiGroup",
            ],
        );
    }

    #[test]
    fn a_claim_does_not_change_before_it_is_bound() {
        let old = claim_of(json!({}));
        let new = claim_of(json!({"accessModes": ["ReadOnlyMany"]}));
        let diff = "@@ -1,6 +1,6 @@\n {\n  \"AccessModes\": [\n-  \"ReadWriteOnce\"\n\
            +  \"ReadOnlyMany\"\n  ],\n  \"Selector\": null,\n  \"Resources\": {\n";
        check_update(
            "",
            "PersistentVolumeClaim",
            "",
            (&new, &old),
            &[&format!("spec: Forbidden: {IMMUTABLE}\n{diff}")],
        );
        let mut bound = old;
        bound["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        let mut larger = bound.clone();
        larger["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
        check_update("", "PersistentVolumeClaim", "", (&larger, &bound), &[]);
        let mut smaller = bound.clone();
        smaller["spec"]["resources"]["requests"]["storage"] = json!("1Mi");
        check_update(
            "",
            "PersistentVolumeClaim",
            "",
            (&smaller, &bound),
            &["spec.resources.requests.storage: Forbidden: field can not be less than \
               status.capacity"],
        );
    }
}
