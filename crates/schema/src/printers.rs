//! The cells of server-side tables, one file per group of kinds.
//!
//! Upstream: `pkg/printers/internalversion/printers.go`.

mod cells;
mod coordination;
mod core;
mod events;
mod networking;
mod pod;
mod rbac;
mod storage;
mod workloads;

use jiff::Timestamp;
use meta::GroupVersionResource;
use serde_json::{Value, json};

use crate::registry;

use self::cells::{age, created, name};

pub use self::cells::human_duration;

/// The cells of one object's row, in the order of the resource's columns. For resources without
/// columns of their own: name and creation time.
pub fn table_row(gvr: &GroupVersionResource, object: &Value, now: Timestamp) -> Vec<Value> {
    let o = object;
    // Other groups may have resources of the same name.
    if registry().columns(gvr).is_empty() {
        return match gvr.resource.as_str() {
            "deviceclasses" | "resourceclaimtemplates" => vec![name(o), age(o, now)],
            _ => vec![name(o), json!(created(o))],
        };
    }
    let resource = gvr.resource.as_str();
    None.or_else(|| pod::row(resource, o, now))
        .or_else(|| core::row(resource, o, now))
        .or_else(|| events::row(resource, o, now))
        .or_else(|| networking::row(resource, o, now))
        .or_else(|| rbac::row(resource, o, now))
        .or_else(|| coordination::row(resource, o, now))
        .or_else(|| storage::row(resource, o, now))
        .or_else(|| workloads::row(resource, o, now))
        .unwrap_or_else(|| match registry().columns(gvr) {
            [_, created_at] if created_at.column_type == "date" => {
                vec![name(o), json!(created(o))]
            }
            _ => vec![name(o), age(o, now)],
        })
}

/// What a row says about its object besides the cells: for pods, whether they have ended.
pub fn table_row_conditions(gvr: &GroupVersionResource, object: &Value) -> Option<Value> {
    (gvr.group.is_empty() && gvr.resource == "pods").then(|| pod::completed(object)).flatten()
}

#[cfg(test)]
mod tests;
