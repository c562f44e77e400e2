//! Limit ranges: those without a name get one.

use meta::Status;
use serde_json::{Value, json};

use super::{Strategy, WriteContext};

pub(super) struct LimitRanges;

impl Strategy for LimitRanges {
    fn resets_status(&self) -> bool {
        false
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn prepare_create(&self, _ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        if object["metadata"]["name"].as_str().unwrap_or_default().is_empty() {
            object["metadata"]["name"] = json!(uuid::Uuid::new_v4().to_string());
        }
        Ok(())
    }
}
