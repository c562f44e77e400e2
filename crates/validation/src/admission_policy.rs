//! Bindings of admission policies.

use crate::node::{Findings, Node};

/// A policy works through its bindings. Without CEL none can be evaluated, and one that is not
/// evaluated must not look as if it were.
pub(crate) fn binding(object: &Node<'_>, out: &mut Findings) {
    let detail = "admission policies are not supported by this server yet";
    out.push(object.get("spec").forbidden(detail));
}
