//! Definitions of custom resources: names are completed, and stored versions remembered.
//!
//! Whether names are accepted is for [`crate::custom::conditions`] to say, afterwards.

use meta::Status;
use serde_json::{Value, json};

use super::{Strategy, WriteContext};

pub(super) struct CustomResourceDefinitions;

impl Strategy for CustomResourceDefinitions {
    fn prepare_create(&self, _ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        default_names(object);
        object["status"] = match stored_version(object) {
            Some(stored) => json!({ "storedVersions": [stored] }),
            None => json!({}),
        };
        Ok(())
    }

    fn prepare_update(
        &self,
        _ctx: &WriteContext<'_>,
        object: &mut Value,
        _old: &Value,
    ) -> Result<(), Status> {
        default_names(object);
        if let Some(stored) = stored_version(object)
            && let Some(versions) =
                object.pointer_mut("/status/storedVersions").and_then(Value::as_array_mut)
            && !versions.contains(&stored)
        {
            versions.push(stored);
        }
        Ok(())
    }

    fn mark(&self, object: &mut Value, now: &str) -> bool {
        if object.pointer("/metadata/deletionTimestamp").is_none() {
            crate::custom::cleanup::mark(object, now);
            return true;
        }
        false
    }
}

fn default_names(object: &mut Value) {
    let Some(names) = object.pointer_mut("/spec/names") else { return };
    let Some(kind) = names["kind"].as_str().map(str::to_owned) else { return };
    if names["singular"].as_str().unwrap_or_default().is_empty() {
        names["singular"] = json!(kind.to_lowercase());
    }
    if names["listKind"].as_str().unwrap_or_default().is_empty() {
        names["listKind"] = json!(format!("{kind}List"));
    }
}

fn stored_version(object: &Value) -> Option<Value> {
    let versions = object.pointer("/spec/versions").and_then(Value::as_array)?;
    let stored = versions.iter().find(|version| version["storage"] == true)?;
    Some(stored["name"].clone())
}
