//! What of a pod may change.

use serde_json::{Map, Value};

use crate::FieldError;
use crate::node::{Findings, Node};
use crate::pod::{self, Place};

/// Upstream's own words for what may change.
const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
    to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
    was previously negative)";

pub(crate) fn validate(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    pod::spec(&new.get("spec"), Place::Pod, out);
    let (spec, before) = (new.get("spec"), old.get("spec"));
    for list in ["containers", "initContainers"] {
        if spec.get(list).len() != before.get(list).len() {
            out.push(spec.get(list).forbidden("pod updates may not add or remove containers"));
            return;
        }
    }
    deadline(&spec.get("activeDeadlineSeconds"), &before.get("activeDeadlineSeconds"), out);
    added_tolerations_only(&spec.get("tolerations"), &before.get("tolerations"), out);
    removed_gates_only(&spec.get("schedulingGates"), &before.get("schedulingGates"), out);
    let (after, base) = (fixed_part(&spec, &before), fixed_part(&before, &before));
    if after != base {
        out.push(spec.forbidden(format!("{MUTABLE}\n{}", difference(&base, &after))));
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

/// Which fields differ. Upstream prints a diff of its internal structs here, which cannot be
/// reproduced; ours names the fields.
fn difference(old: &Value, new: &Value) -> String {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut names: Vec<&str> = old
        .keys()
        .chain(new.keys())
        .filter(|key| old.get(*key) != new.get(*key))
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names.dedup();
    names.iter().map(|name| format!("  spec.{name}\n")).collect()
}
