//! The kinds of `flowcontrol.apiserver.k8s.io`.
//!
//! Upstream: `pkg/apis/flowcontrol/validation`.

pub(crate) mod priority_level;
pub(crate) mod schema;

use std::collections::BTreeSet;

use crate::FieldError;
use crate::node::{Findings, Node};

/// Conditions of a status: each type once.
pub(crate) fn status(object: &Node<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for condition in object.get("status").get("conditions").items() {
        let kind = condition.get("type");
        if !seen.insert(kind.text()) {
            out.push(FieldError::duplicate(&kind.path, kind.text()));
        }
        kind.require(out);
    }
}

#[cfg(test)]
mod tests;
