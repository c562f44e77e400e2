//! The kinds of `storage.k8s.io`.
//!
//! Upstream: `pkg/apis/storage/validation`.

pub(crate) mod attachment;
pub(crate) mod attributes_class;
pub(crate) mod capacity;
pub(crate) mod class;
pub(crate) mod csi_driver;
pub(crate) mod csi_node;

use meta::names;

use crate::FieldError;
use crate::node::{Findings, Node};

/// Most parameters of a class, and the most bytes of all of them.
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_BYTES: usize = 256 * 1024;

/// Who provides volumes: a qualified name in small letters.
fn provisioner(name: &Node<'_>, out: &mut Findings) {
    if name.require(out) {
        let lower = name.text().to_lowercase();
        let wrong = names::qualified_name(&lower);
        let finding = |text| FieldError::invalid(&name.path, lower.as_str(), text);
        out.extend(wrong.into_iter().map(finding));
    }
}

fn parameters(parameters: &Node<'_>, out: &mut Findings) {
    if parameters.len() > MAX_PARAMETERS {
        out.push(FieldError::too_long(&parameters.path, MAX_PARAMETERS));
    }
    let mut size = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            out.push(FieldError::invalid(&parameters.path, key, "field can not be empty."));
        }
        size += key.len() + value.text().len();
    }
    if size > MAX_PARAMETER_BYTES {
        out.push(FieldError::too_long(&parameters.path, MAX_PARAMETER_BYTES));
    }
}

#[cfg(test)]
mod tests;
