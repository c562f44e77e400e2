//! CSINodes: which drivers a node has.

use std::collections::BTreeSet;

use meta::names;

use crate::FieldError;
use crate::node::{Findings, Node};
use crate::resource::driver;

const MAX_NODE_ID: usize = 256;

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for entry in object.get("spec").get("drivers").items() {
        let (name, id) = (entry.get("name"), entry.get("nodeID"));
        driver(&name, out);
        if id.require(out) && id.text().len() > MAX_NODE_ID {
            out.push(id.invalid(format!("must be {MAX_NODE_ID} characters or less")));
        }
        let count = entry.get("allocatable").get("count");
        if count.int() < 0 {
            out.push(count.invalid("must be greater than or equal to 0"));
        }
        if !seen.insert(name.text()) {
            out.push(FieldError::duplicate(&name.path, name.text()));
        }
        topology_keys(&entry, out);
    }
}

/// Upstream reports these at the driver.
fn topology_keys(entry: &Node<'_>, out: &mut Findings) {
    let mut keys = BTreeSet::new();
    for key in entry.get("topologyKeys").items() {
        if key.text().is_empty() {
            out.push(FieldError::required(&entry.path, ""));
        }
        if !keys.insert(key.text()) {
            out.push(FieldError::duplicate(&entry.path, key.text()));
        }
        key.under(entry.path.clone()).invalid_each(names::qualified_name(key.text()), out);
    }
}

/// A driver that stays stays what it is, except for how much it can attach.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    validate(new, out);
    let before = old.get("spec").get("drivers");
    for entry in new.get("spec").get("drivers").items() {
        let same = |had: &Node<'_>| had.get("name").text() == entry.get("name").text();
        let Some(had) = before.items().find(same) else { continue };
        let differs = ["nodeID", "topologyKeys"]
            .iter()
            .any(|field| entry.get(field).value != had.get(field).value);
        if differs {
            let finding = entry.invalid("field is immutable");
            out.push(finding.shown_as("storage/v1.CSINodeDriver"));
        }
    }
}
