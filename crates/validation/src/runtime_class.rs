//! Runtime classes.

use meta::names;

use crate::metadata::labels;
use crate::node::{Findings, Node};
use crate::{resources, scheduling};

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let handler = object.get("handler");
    handler.invalid_each(names::dns1123_label(handler.text()), out);
    // Upstream checks the overhead as if it were limits.
    let overhead = object.get("overhead");
    let limits = overhead.get("podFixed").under(overhead.path.child("limits"));
    for (name, quantity) in limits.entries() {
        resources::container_resource_name(name, &quantity, out);
        resources::resource_quantity(name, &quantity, out);
    }
    let placement = object.get("scheduling");
    labels(&placement.get("nodeSelector"), out);
    scheduling::tolerations(&placement.get("tolerations"), out);
}
