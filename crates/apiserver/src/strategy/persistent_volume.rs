//! Persistent volumes and claims start out pending.

use meta::Status;
use serde_json::{Value, json};

use super::{Strategy, WriteContext};

pub(super) struct Volumes;

impl Strategy for Volumes {
    fn returns_deleted(&self) -> bool {
        true
    }

    fn prepare_create(&self, ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        object["status"] = json!({"phase": "Pending"});
        if object["kind"] == "PersistentVolume" {
            let now = meta::time::rfc3339(ctx.server.clock.now());
            object["status"]["lastPhaseTransitionTime"] = json!(now);
        }
        Ok(())
    }
}
