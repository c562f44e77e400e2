//! Stateful sets: fields of features that are off are dropped.
//!
//! Upstream: `registry/apps/statefulset/strategy.go`.

use meta::Status;
use serde_json::Value;

use super::{Strategy, WriteContext, remove};

pub(super) struct StatefulSets;

impl Strategy for StatefulSets {
    fn prepare_create(&self, _ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        drop_max_unavailable(object);
        Ok(())
    }

    fn prepare_update(
        &self,
        _ctx: &WriteContext<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        if old.pointer("/spec/updateStrategy/rollingUpdate/maxUnavailable").is_none() {
            drop_max_unavailable(object);
        }
        Ok(())
    }
}

/// Upstream's gate `MaxUnavailableStatefulSet` is off.
fn drop_max_unavailable(object: &mut Value) {
    if let Some(rolling) = object.pointer_mut("/spec/updateStrategy/rollingUpdate") {
        remove(rolling, "maxUnavailable");
    }
}
