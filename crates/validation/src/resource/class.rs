//! DeviceClasses.

use super::{MAX_ENTRIES, configuration, is_extended_resource_name, selectors};
use crate::node::{Findings, Node};

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    selectors(&spec.get("selectors"), out);
    let configs = spec.get("config");
    configs.at_most(MAX_ENTRIES, out);
    configs.items().for_each(|config| configuration(&config, out));
    let name = spec.get("extendedResourceName");
    if name.is_set() && !is_extended_resource_name(name.text()) {
        out.push(name.invalid_text("must be a valid extended resource name"));
    }
}
