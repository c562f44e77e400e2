//! Stateful sets: fields of features that are off are dropped.
//!
//! Upstream: `registry/apps/statefulset/strategy.go`, `apis/apps/v1/defaults.go`.

use features::Features;
use meta::Status;
use serde_json::{Value, json};

use super::{Strategy, WriteContext, remove};

const STRATEGY: &str = "/spec/updateStrategy";

pub(super) struct StatefulSets;

impl Strategy for StatefulSets {
    fn prepare_create(&self, ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        max_unavailable(&ctx.server.config.features, object, None);
        Ok(())
    }

    fn prepare_update(
        &self,
        ctx: &WriteContext<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        max_unavailable(&ctx.server.config.features, object, Some(old));
        Ok(())
    }
}

/// Behind its gate one pod may be missing where nothing is said; without it the field goes, unless
/// it was there before.
fn max_unavailable(features: &Features, object: &mut Value, old: Option<&Value>) {
    let had = |old: &Value| {
        let rolling = old.pointer(STRATEGY).and_then(|strategy| strategy.get("rollingUpdate"));
        rolling.is_some_and(|rolling| rolling.get("maxUnavailable").is_some())
    };
    let Some(rolling) = object
        .pointer_mut(STRATEGY)
        .filter(|strategy| strategy["type"] == "RollingUpdate")
        .and_then(|strategy| strategy.get_mut("rollingUpdate"))
    else {
        return;
    };
    if features.is_enabled("MaxUnavailableStatefulSet") {
        if let Some(rolling) = rolling.as_object_mut() {
            rolling.entry("maxUnavailable").or_insert(json!(1));
        }
    } else if !old.is_some_and(had) {
        remove(rolling, "maxUnavailable");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rolling: Value) -> Value {
        json!({ "spec": { "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling } } })
    }

    #[test]
    fn max_unavailable_follows_its_gate() {
        let off = Features::default();
        let on = Features::parse(&["MaxUnavailableStatefulSet=true".to_owned()]).unwrap();
        let cases = [
            (&off, json!({ "maxUnavailable": 2 }), None, json!({})),
            (&off, json!({ "maxUnavailable": 2 }), Some(json!({})), json!({})),
            (
                &off,
                json!({ "maxUnavailable": 2 }),
                Some(json!({ "maxUnavailable": 1 })),
                json!({ "maxUnavailable": 2 }),
            ),
            (&on, json!({ "maxUnavailable": 2 }), None, json!({ "maxUnavailable": 2 })),
            (&on, json!({ "partition": 1 }), None, json!({ "partition": 1, "maxUnavailable": 1 })),
        ];
        for (features, given, old, expected) in cases {
            let mut object = set(given);
            max_unavailable(features, &mut object, old.map(set).as_ref());
            assert_eq!(object, set(expected));
        }
    }
}
