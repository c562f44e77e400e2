//! Leases.

use crate::node::{Findings, Node};

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let duration = spec.get("leaseDurationSeconds");
    if duration.is_set() && duration.int() <= 0 {
        out.push(duration.invalid("must be greater than 0"));
    }
    spec.get("leaseTransitions").non_negative(out);
}
