//! Pod groups and workloads: fields of features that are off are dropped.
//!
//! Upstream: `registry/scheduling/podgroup/strategy.go`, `registry/scheduling/workload/strategy.go`.

use features::Features;
use meta::Status;
use serde_json::Value;

use super::{Strategy, WriteContext};

/// Fields and the gates they need.
const GATED: [(&str, &str); 5] = [
    ("schedulingConstraints", "TopologyAwareWorkloadScheduling"),
    ("resourceClaims", "DRAWorkloadResourceClaims"),
    ("disruptionMode", "WorkloadAwarePreemption"),
    ("priorityClassName", "WorkloadAwarePreemption"),
    ("priority", "WorkloadAwarePreemption"),
];

pub(super) struct PodGroups;

impl Strategy for PodGroups {
    fn prepare_create(&self, ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        let features = &ctx.server.config.features;
        drop_closed(features, object.get_mut("spec"), None);
        Ok(())
    }

    fn prepare_update(
        &self,
        ctx: &WriteContext<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        let features = &ctx.server.config.features;
        drop_closed(features, object.get_mut("spec"), old.get("spec"));
        Ok(())
    }
}

pub(super) struct Workloads;

impl Strategy for Workloads {
    fn resets_status(&self) -> bool {
        false
    }

    fn prepare_create(&self, ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        for template in templates(object) {
            drop_closed(&ctx.server.config.features, Some(template), None);
        }
        Ok(())
    }

    fn prepare_update(
        &self,
        ctx: &WriteContext<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        let before = old.pointer("/spec/podGroupTemplates").and_then(Value::as_array);
        for (at, template) in templates(object).enumerate() {
            let old = before.and_then(|list| list.get(at));
            drop_closed(&ctx.server.config.features, Some(template), old);
        }
        Ok(())
    }
}

fn templates(workload: &mut Value) -> impl Iterator<Item = &mut Value> {
    let list = workload.pointer_mut("/spec/podGroupTemplates").and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// What was there before may stay.
fn drop_closed(features: &Features, spec: Option<&mut Value>, old: Option<&Value>) {
    let Some(spec) = spec.and_then(Value::as_object_mut) else { return };
    let had =
        |field: &str| old.and_then(Value::as_object).is_some_and(|map| map.contains_key(field));
    let is_closed = |(field, gate): &&(&str, &str)| !features.is_enabled(gate) && !had(field);
    for (field, _) in GATED.iter().filter(is_closed) {
        spec.remove(*field);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_of_closed_gates_are_dropped_unless_they_were_there() {
        let features = Features::default();
        let mut spec = json!({"disruptionMode": "Pod", "priority": 1, "schedulingPolicy": {}});
        let old = json!({"priority": 2});
        drop_closed(&features, Some(&mut spec), Some(&old));
        assert_eq!(spec, json!({"priority": 1, "schedulingPolicy": {}}));
    }
}
