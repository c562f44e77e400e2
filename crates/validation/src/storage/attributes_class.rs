//! VolumeAttributesClasses.

use super::{parameters, provisioner};
use crate::FieldError;
use crate::node::{Findings, Node};

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    provisioner(&object.get("driverName"), out);
    let given = object.get("parameters");
    parameters(&given, out);
    if given.len() == 0 {
        let detail = "must contain at least one key/value pair";
        out.push(FieldError::required(&given.path, detail));
    }
}

/// What of a class may not change.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    for field in ["driverName", "parameters"] {
        if new.get(field).value != old.get(field).value {
            out.push(new.get(field).forbidden(format!("updates to {field} are forbidden.")));
        }
    }
    let given = new.get("parameters");
    if given.len() == 0 {
        let detail = "must contain at least one key/value pair";
        out.push(FieldError::required(&given.path, detail));
    }
}
