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
        mirror_data_source(object);
        object["status"] = json!({"phase": "Pending"});
        if object["kind"] == "PersistentVolume" {
            let now = meta::time::rfc3339(ctx.server.clock.now());
            object["status"]["lastPhaseTransitionTime"] = json!(now);
        }
        Ok(())
    }

    fn prepare_update(
        &self,
        _ctx: &WriteContext<'_>,
        object: &mut Value,
        _old: &Value,
    ) -> Result<(), Status> {
        mirror_data_source(object);
        Ok(())
    }
}

/// A claim's data source of the old form and the reference that replaces it mirror each other.
fn mirror_data_source(object: &mut Value) {
    if object["kind"] != "PersistentVolumeClaim" {
        return;
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    let (name, value) = match (source.cloned(), reference.cloned()) {
        (Some(source), None) => ("dataSourceRef", source),
        (None, Some(reference)) if reference.get("namespace").is_none() => {
            ("dataSource", reference)
        }
        _ => return,
    };
    spec.insert(name.to_owned(), value);
}
