//! Rules that taint devices: a taint says since when.
//!
//! Upstream: `registry/resource/devicetaintrule/strategy.go`, and the defaults of its taint.

use meta::Status;
use serde_json::{Value, json};

use super::{Strategy, WriteContext};

pub(super) struct DeviceTaintRules;

impl Strategy for DeviceTaintRules {
    fn returns_deleted(&self) -> bool {
        true
    }

    fn prepare_create(&self, ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        set_time(ctx, object);
        Ok(())
    }

    fn prepare_update(
        &self,
        ctx: &WriteContext<'_>,
        object: &mut Value,
        _old: &Value,
    ) -> Result<(), Status> {
        set_time(ctx, object);
        Ok(())
    }
}

fn set_time(ctx: &WriteContext<'_>, rule: &mut Value) {
    if let Some(taint) = rule.pointer_mut("/spec/taint") {
        taint_now(ctx, taint);
    }
}

/// A taint that does not say since when it is there is there since now.
pub(super) fn taint_now(ctx: &WriteContext<'_>, taint: &mut Value) {
    let taint = taint.as_object_mut();
    if let Some(taint) = taint.filter(|taint| !taint.contains_key("timeAdded")) {
        let now = meta::time::rfc3339(ctx.server.clock.now());
        taint.insert("timeAdded".to_owned(), json!(now));
    }
}
