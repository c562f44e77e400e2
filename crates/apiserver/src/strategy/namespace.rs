//! Namespaces: finalizers of their own, and a phase.

use meta::Status;
use serde_json::{Value, json};

use super::{Strategy, WriteContext, keep_old};

pub(super) struct Namespaces;

impl Strategy for Namespaces {
    fn prepare_create(&self, _ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        object["status"] = json!({"phase": "Active"});
        let name = object["metadata"]["name"].clone();
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        let finalizers = &mut object["spec"]["finalizers"];
        let has = finalizers
            .as_array()
            .is_some_and(|list| list.iter().any(|finalizer| finalizer == "kubernetes"));
        if !has {
            match finalizers.as_array_mut() {
                Some(list) => list.push(json!("kubernetes")),
                None => *finalizers = json!(["kubernetes"]),
            }
        }
        Ok(())
    }

    fn prepare_update(
        &self,
        _ctx: &WriteContext<'_>,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        // Only `/finalize` changes them.
        keep_old(object, old, "spec");
        let name = object["metadata"]["name"].clone();
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        Ok(())
    }
}
