//! What of a pod may change.

use serde_json::{Map, Value};

use crate::node::{Findings, Node};
use crate::{FieldError, difference, pod, pod_placement, printed};

/// Upstream's own words for what may change.
const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
    to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
    was previously negative)";

pub(crate) fn validate(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    pod::changed(new, out);
    pod::annotations_are_kept(new, old, out);
    let (spec, before) = (new.get("spec"), old.get("spec"));
    for list in ["containers", "initContainers"] {
        if spec.get(list).len() != before.get(list).len() {
            out.push(spec.get(list).forbidden("pod updates may not add or remove containers"));
            return;
        }
        spec.get(list).items().for_each(|container| image(&container.get("image"), out));
    }
    deadline(&spec.get("activeDeadlineSeconds"), &before.get("activeDeadlineSeconds"), out);
    added_tolerations_only(&spec.get("tolerations"), &before.get("tolerations"), out);
    removed_gates_only(&spec.get("schedulingGates"), &before.get("schedulingGates"), out);
    let mut after = fixed_part(&spec, &before);
    if before.get("schedulingGates").len() > 0 {
        // Where it may run is still open.
        pod_placement::narrowed(&spec, &before, out);
        take(after.as_object_mut(), before.value, "nodeSelector");
        pod_placement::take_node_affinity(&mut after, before.value);
    }
    if after != *before.value {
        let shown = |value: &Value| printed::indented("core/v1.PodSpec", value);
        let diff = difference::unified(&shown(before.value), &shown(&after));
        out.push(spec.forbidden(format!("{MUTABLE}\n{diff}")));
    }
}

/// Upstream looks at images here and again with the rest of the containers.
fn image(image: &Node<'_>, out: &mut Findings) {
    image.require(out);
    if image.text().trim() != image.text() {
        out.push(image.invalid("must not have leading or trailing whitespace"));
    }
}

fn deadline(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    if !new.is_set() {
        if old.is_set() {
            out.push(new.invalid("must not update from a positive integer to nil value"));
        }
        return;
    }
    if !(0..=i64::from(i32::MAX)).contains(&new.int()) {
        out.push(new.invalid("must be between 0 and 2147483647, inclusive"));
    } else if old.is_set() && new.int() > old.int() {
        out.push(new.invalid("must be less than or equal to previous value"));
    }
}

fn added_tolerations_only(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let key = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        toleration
    };
    let kept = |before: Node<'_>| new.items().any(|after| key(after.value) == key(before.value));
    if !old.items().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        out.push(new.forbidden(detail));
    }
}

fn removed_gates_only(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    for gate in new.items() {
        let name = gate.get("name").text();
        if !old.items().any(|before| before.get("name").text() == name) {
            let path = gate.path.child("name");
            out.push(FieldError::forbidden(
                &path,
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            ));
        }
    }
}

/// The spec with what may change taken from the old one.
fn fixed_part(spec: &Node<'_>, old: &Node<'_>) -> Value {
    let mut fixed = spec.value.clone();
    let Some(map) = fixed.as_object_mut() else { return fixed };
    for list in ["containers", "initContainers"] {
        let items = map.get_mut(list).and_then(Value::as_array_mut);
        for (item, before) in items.into_iter().flatten().zip(old.get(list).items()) {
            take(item.as_object_mut(), before.value, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        take(Some(map), old.value, field);
    }
    let grace = "terminationGracePeriodSeconds";
    if old.get(grace).int() < 0 && spec.get(grace).int() == 1 {
        take(Some(map), old.value, grace);
    }
    fixed
}

fn take(map: Option<&mut Map<String, Value>>, from: &Value, field: &str) {
    let Some(map) = map else { return };
    match from.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}
