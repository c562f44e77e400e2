//! Slices of devices: fields of features that are off are dropped.
//!
//! Upstream: `registry/resource/resourceslice/strategy.go`.

use meta::Status;
use serde_json::Value;

use super::{Strategy, WriteContext};

/// Attributes with several values: upstream's gate `DRAListTypeAttributes` is off.
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

pub(super) struct ResourceSlices;

impl Strategy for ResourceSlices {
    fn resets_status(&self) -> bool {
        false
    }

    fn prepare_create(&self, _ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        drop_lists(object);
        Ok(())
    }

    fn prepare_update(
        &self,
        _ctx: &WriteContext<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        if !has_lists(old) {
            drop_lists(object);
        }
        Ok(())
    }
}

fn has_lists(slice: &Value) -> bool {
    let devices = slice.pointer("/spec/devices").and_then(Value::as_array);
    devices.into_iter().flatten().any(|device| {
        let attributes = device.get("attributes").and_then(Value::as_object);
        let mut attributes = attributes.into_iter().flat_map(|map| map.values());
        attributes.any(|attribute| LISTS.iter().any(|list| attribute.get(list).is_some()))
    })
}

fn drop_lists(slice: &mut Value) {
    let devices = slice.pointer_mut("/spec/devices").and_then(Value::as_array_mut);
    for device in devices.into_iter().flatten() {
        let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
        for attribute in attributes.into_iter().flat_map(|map| map.values_mut()) {
            let Some(values) = attribute.as_object_mut() else { continue };
            values.retain(|name, _| !LISTS.contains(&name.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attributes_keep_single_values() {
        let mut slice = json!({"spec": {"devices": [
            {"attributes": {"a": {"int": 1, "ints": [1]}, "b": {"strings": ["x"]}}}, {}]}});
        assert!(has_lists(&slice));
        drop_lists(&mut slice);
        assert!(!has_lists(&slice));
        let attributes = &slice["spec"]["devices"][0]["attributes"];
        assert_eq!(*attributes, json!({"a": {"int": 1}, "b": {}}));
    }
}
