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

    fn prepare_status(&self, object: &mut Value, old: &Value) {
        // Approval is not for those who sign.
        let approvals = |value: &Value| -> Vec<Value> { conditions(value, is_approval) };
        let mut list = conditions(object, |kind| !is_approval(kind));
        list.extend(approvals(old));
        set_conditions(object, list);
    }
}

/// What `/approval` may change: the conditions, and with them nothing of the certificate.
pub(crate) fn apply_approval(object: &mut Value, old: &Value, now: &str) {
    let mut list = conditions(object, |_| true);
    for condition in &mut list {
        if condition.get("lastUpdateTime").is_none() {
            condition["lastUpdateTime"] = json!(now);
        }
        if condition.get("lastTransitionTime").is_none() {
            condition["lastTransitionTime"] = json!(now);
        }
    }
    keep_old(object, old, "spec");
    keep_old(object, old, "status");
    set_conditions(object, list);
}

fn is_approval(kind: &str) -> bool {
    matches!(kind, "Approved" | "Denied")
}

fn conditions(object: &Value, wanted: impl Fn(&str) -> bool) -> Vec<Value> {
    let list = object.pointer("/status/conditions").and_then(Value::as_array);
    let matching = |c: &&Value| c["type"].as_str().is_some_and(&wanted);
    list.map_or_else(Vec::new, |list| list.iter().filter(matching).cloned().collect())
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
