//! The taints that a node's conditions mean.

use api::taints::{
    DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE, NO_EXECUTE, NO_SCHEDULE, NOT_READY,
    PID_PRESSURE, UNREACHABLE, UNSCHEDULABLE,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};

use super::condition;

/// The taints that this controller gives and takes; all others are left alone.
const OURS: [(&str, &str); 9] = [
    (NOT_READY, NO_SCHEDULE),
    (UNREACHABLE, NO_SCHEDULE),
    (MEMORY_PRESSURE, NO_SCHEDULE),
    (DISK_PRESSURE, NO_SCHEDULE),
    (PID_PRESSURE, NO_SCHEDULE),
    (NETWORK_UNAVAILABLE, NO_SCHEDULE),
    (UNSCHEDULABLE, NO_SCHEDULE),
    (NOT_READY, NO_EXECUTE),
    (UNREACHABLE, NO_EXECUTE),
];

/// Whether the node is ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Whether pods leave the node already.
pub(super) fn may_leave_already(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| {
        taint.effect == NO_EXECUTE && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str())
    })
}

/// All taints the node should have, `None` when it has them; whether pods may be driven off it is
/// for `zones` to say.
pub(super) fn wanted(node: &Node, may_leave: bool, now: Timestamp) -> Option<Vec<Value>> {
    let mut due = Vec::new();
    let status = |kind: &str| condition(node, kind).map_or("", |condition| &condition.status);
    let unready = match condition(node, "Ready").map(|condition| condition.status.as_str()) {
        Some("True") => None,
        Some("False") => Some(NOT_READY),
        Some(_) => Some(UNREACHABLE),
        // A node that has not reported yet keeps the taint with which it was admitted.
        None => Some(NOT_READY),
    };
    if let Some(key) = unready {
        due.push((key, NO_SCHEDULE));
        if may_leave && condition(node, "Ready").is_some() {
            due.push((key, NO_EXECUTE));
        }
    }
    for (kind, key) in [
        ("MemoryPressure", MEMORY_PRESSURE),
        ("DiskPressure", DISK_PRESSURE),
        ("PIDPressure", PID_PRESSURE),
        ("NetworkUnavailable", NETWORK_UNAVAILABLE),
    ] {
        if status(kind) == "True" {
            due.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        due.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let present: &[Taint] =
        node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let is =
        |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let ours = |taint: &Taint| OURS.iter().any(|own| is(taint, *own));
    let kept: Vec<&Taint> = present
        .iter()
        .filter(|taint| !ours(taint) || due.iter().any(|due| is(taint, *due)))
        .collect();
    let missing: Vec<_> =
        due.iter().filter(|due| !present.iter().any(|taint| is(taint, **due))).collect();
    if missing.is_empty() && kept.len() == present.len() {
        return None;
    }
    let added = missing.iter().map(|(key, effect)| {
        json!({ "key": key, "effect": effect, "timeAdded": meta::time::rfc3339(now) })
    });
    Some(kept.into_iter().map(|taint| json!(taint)).chain(added).collect())
}
