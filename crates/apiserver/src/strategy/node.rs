//! Nodes: the kubelet registers with its status, but changes it through `/status` only.

use meta::Status;
use serde_json::Value;

use super::{Strategy, WriteContext, keep_old};

pub(super) struct Nodes;

impl Strategy for Nodes {
    fn resets_status(&self) -> bool {
        false
    }

    fn prepare_update(
        &self,
        _ctx: &WriteContext<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        keep_old(object, old, "status");
        Ok(())
    }
}
