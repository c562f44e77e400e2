//! Slices of devices: fields of features that are off are dropped, and taints say since when.
//!
//! Upstream: `registry/resource/resourceslice/strategy.go`, and the defaults of a device's taint.

use meta::Status;
use serde_json::Value;

use super::{Strategy, WriteContext, device_taint_rule};

/// Attributes with several values: upstream's gate `DRAListTypeAttributes` is off.
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

/// What a device takes of its node: upstream's gate `DRANodeAllocatableResources` is off.
const MAPPINGS: &str = "nodeAllocatableResourceMappings";

pub(super) struct ResourceSlices;

impl Strategy for ResourceSlices {
    fn resets_status(&self) -> bool {
        false
    }

    fn prepare_create(&self, ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        drop_lists(object);
        drop_mappings(object);
        set_times(ctx, object);
        Ok(())
    }

    fn prepare_update(
        &self,
        ctx: &WriteContext<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        if !has_lists(old) {
            drop_lists(object);
        }
        if !devices(old).any(|device| device.get(MAPPINGS).is_some()) {
            drop_mappings(object);
        }
        set_times(ctx, object);
        Ok(())
    }
}

fn devices(slice: &Value) -> impl Iterator<Item = &Value> {
    slice.pointer("/spec/devices").and_then(Value::as_array).into_iter().flatten()
}

fn devices_mut(slice: &mut Value) -> impl Iterator<Item = &mut Value> {
    slice.pointer_mut("/spec/devices").and_then(Value::as_array_mut).into_iter().flatten()
}

fn has_lists(slice: &Value) -> bool {
    devices(slice).any(|device| {
        let attributes = device.get("attributes").and_then(Value::as_object);
        let mut attributes = attributes.into_iter().flat_map(|map| map.values());
        attributes.any(|attribute| LISTS.iter().any(|list| attribute.get(list).is_some()))
    })
}

fn drop_lists(slice: &mut Value) {
    for device in devices_mut(slice) {
        let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
        for attribute in attributes.into_iter().flat_map(|map| map.values_mut()) {
            let Some(values) = attribute.as_object_mut() else { continue };
            values.retain(|name, _| !LISTS.contains(&name.as_str()));
        }
    }
}

fn drop_mappings(slice: &mut Value) {
    for device in devices_mut(slice).filter_map(Value::as_object_mut) {
        device.remove(MAPPINGS);
    }
}

fn set_times(ctx: &WriteContext<'_>, slice: &mut Value) {
    for device in devices_mut(slice) {
        let taints = device.get_mut("taints").and_then(Value::as_array_mut);
        for taint in taints.into_iter().flatten() {
            device_taint_rule::taint_now(ctx, taint);
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
            {"attributes": {"a": {"int": 1, "ints": [1]}, "b": {"strings": ["x"]}}},
            {"nodeAllocatableResourceMappings": {"cpu": {}}}]}});
        assert!(has_lists(&slice));
        drop_lists(&mut slice);
        assert!(!has_lists(&slice));
        drop_mappings(&mut slice);
        assert_eq!(slice["spec"]["devices"][1], json!({}));
        let attributes = &slice["spec"]["devices"][0]["attributes"];
        assert_eq!(*attributes, json!({"a": {"int": 1}, "b": {}}));
    }
}
