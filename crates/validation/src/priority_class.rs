//! Priority classes.

use crate::node::{Findings, Node};

/// The highest priority that is not the system's.
const USER_MAX: i64 = 1_000_000_000;
/// The names with the system's prefix that exist.
const SYSTEM: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let name = object.get("metadata").get("name");
    let value = object.get("value");
    let known = SYSTEM.iter().find(|(system, _)| *system == name.text());
    if name.text().starts_with("system-") && known.is_none_or(|(_, wanted)| value.int() != *wanted)
    {
        let reason = match known {
            Some((system, wanted)) => format!("value of {system} PriorityClass must be {wanted}"),
            None => format!("{} is not a known system priority class", name.text()),
        };
        out.push(name.forbidden(format!(
            "priority class names with 'system-' prefix are reserved for system use only. error: \
             {reason}"
        )));
    } else if known.is_none() && value.int() > USER_MAX {
        let detail = "maximum allowed value of a user defined priority is 1000000000";
        out.push(value.forbidden(detail));
    }
    object.get("preemptionPolicy").one_of(&["PreemptLowerPriority", "Never"], out);
}

/// What of a class may not change.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    if new.get("value").int() != old.get("value").int() {
        out.push(new.get("value").forbidden("may not be changed in an update."));
    }
    new.get("preemptionPolicy").immutable(&old.get("preemptionPolicy"), out);
}
