//! Certificate signing requests: who asks is recorded, and approval and certificate have
//! subresources of their own.

use std::collections::BTreeMap;

use meta::Status;
use serde_json::{Value, json};

use super::{Strategy, WriteContext, keep_old};

pub(super) struct CertificateSigningRequests;

impl Strategy for CertificateSigningRequests {
    fn prepare_create(&self, ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        let spec = &mut object["spec"];
        spec["username"] = json!(ctx.user.name);
        let mut set = |field: &str, value: Value, is_empty: bool| {
            if is_empty {
                super::remove(spec, field);
            } else {
                spec[field] = value;
            }
        };
        let extra: &BTreeMap<_, _> = &ctx.user.extra;
        set("uid", json!(ctx.user.uid), ctx.user.uid.is_empty());
        set("groups", json!(ctx.user.groups), ctx.user.groups.is_empty());
        set("extra", json!(extra), extra.is_empty());
        Ok(())
    }

    fn prepare_update(
        &self,
        _ctx: &WriteContext<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        keep_old(object, old, "spec");
        Ok(())
    }

    fn prepare_status(&self, ctx: &WriteContext<'_>, object: &mut Value, _old: &Value) {
        // That approval is not for those who sign, validation says.
        let now = meta::time::rfc3339(ctx.server.clock.now());
        let mut list = conditions(object);
        set_times(&mut list, &now);
        set_conditions(object, list);
    }
}

/// What `/approval` may change: the conditions, and with them nothing of the certificate.
pub(crate) fn apply_approval(object: &mut Value, old: &Value, now: &str) {
    let mut list = conditions(object);
    set_times(&mut list, now);
    keep_old(object, old, "spec");
    keep_old(object, old, "status");
    set_conditions(object, list);
}

/// When a condition was set is now, unless it says so itself.
fn set_times(list: &mut [Value], now: &str) {
    for condition in list {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            if condition.get(field).is_none() {
                condition[field] = json!(now);
            }
        }
    }
}

fn conditions(object: &Value) -> Vec<Value> {
    let list = object.pointer("/status/conditions").and_then(Value::as_array);
    list.cloned().unwrap_or_default()
}

fn set_conditions(object: &mut Value, list: Vec<Value>) {
    if list.is_empty() {
        if let Some(status) = object.get_mut("status") {
            super::remove(status, "conditions");
        }
    } else {
        object["status"]["conditions"] = Value::Array(list);
    }
}
