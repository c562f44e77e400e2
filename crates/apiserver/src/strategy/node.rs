//! Nodes: the kubelet registers with its status, but changes it through `/status` only.

use meta::Status;
use serde_json::{Value, json};

use super::{Strategy, WriteContext, keep_old};

pub(super) struct Nodes;

impl Strategy for Nodes {
    fn resets_status(&self) -> bool {
        false
    }

    fn prepare_create(&self, _ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        align_ranges(object);
        Ok(())
    }

    fn prepare_update(
        &self,
        _ctx: &WriteContext<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        keep_old(object, old, "status");
        align_ranges(object);
        Ok(())
    }
}

/// The range of one family stands alone for older clients; what it says outranks the list.
fn align_ranges(node: &mut Value) {
    let first = node.pointer("/spec/podCIDRs/0").cloned();
    match (node.pointer("/spec/podCIDR").cloned(), first) {
        (Some(one), first) if first.as_ref() != Some(&one) => {
            node["spec"]["podCIDRs"] = json!([one]);
        }
        (None, Some(first)) => node["spec"]["podCIDR"] = first,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_range_agree() {
        let mut node = json!({"spec": {"podCIDR": "a"}});
        align_ranges(&mut node);
        assert_eq!(node["spec"], json!({"podCIDR": "a", "podCIDRs": ["a"]}));
        let mut node = json!({"spec": {"podCIDRs": ["a", "b"]}});
        align_ranges(&mut node);
        assert_eq!(node["spec"]["podCIDR"], "a");
        let mut node = json!({"spec": {}});
        align_ranges(&mut node);
        assert_eq!(node, json!({"spec": {}}));
    }
}
