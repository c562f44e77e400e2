//! CSIStorageCapacities.

use meta::Quantity;

use crate::metadata::label_selector;
use crate::node::{Findings, Node};

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    object.get("storageClassName").subdomain(out);
    for field in ["capacity", "maximumVolumeSize"] {
        let quantity = object.get(field);
        if quantity.text().parse::<Quantity>().is_ok_and(|quantity| quantity.signum() < 0) {
            out.push(quantity.invalid("must be greater than or equal to 0"));
        }
    }
    label_selector(&object.get("nodeTopology"), out);
}

/// What of a capacity may not change.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    new.get("nodeTopology").immutable(&old.get("nodeTopology"), out);
    new.get("storageClassName").immutable_text(&old.get("storageClassName"), out);
}
