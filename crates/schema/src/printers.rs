//! The cells of server-side tables, one file per group.

use jiff::Timestamp;
use meta::GroupVersionResource;
use serde_json::Value;

/// The cells of one object's row, in the order of the resource's columns.
pub fn table_row(gvr: &GroupVersionResource, object: &Value, now: Timestamp) -> Vec<Value> {
    let _ = (gvr, object, now);
    Vec::new()
}
