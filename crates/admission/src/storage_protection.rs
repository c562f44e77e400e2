//! StorageObjectInUseProtection: volumes and claims wait until nobody uses them.

use meta::Status;
use serde_json::{Value, json};

use crate::chain::Plugin;
use crate::request::{Operation, Request, View};

pub(crate) struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        _old: Option<&Value>,
        _view: &dyn View,
    ) -> Result<(), Status> {
        if request.operation != Operation::Create {
            return Ok(());
        }
        if request.is_for("", "persistentvolumes") {
            add_finalizer(object, "kubernetes.io/pv-protection");
        } else if request.is_for("", "persistentvolumeclaims") {
            add_finalizer(object, "kubernetes.io/pvc-protection");
        } else if request.is_for("storage.k8s.io", "volumeattributesclasses") {
            add_finalizer(object, "kubernetes.io/vac-protection");
        }
        Ok(())
    }
}

fn add_finalizer(object: &mut Value, name: &str) {
    let finalizers = &mut object["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|found| found == name) => {}
        Some(list) => list.push(json!(name)),
        None => *finalizers = json!([name]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, attempt};

    #[test]
    fn what_is_used_is_protected_from_the_beginning() {
        let check = |group: &str, resource: &str, operation, expected: Value| {
            let mut object = json!({"metadata": {"finalizers": ["mine"]}});
            let write = attempt(group, resource, operation);
            let plugin = StorageObjectInUseProtection;
            for _ in 0..2 {
                write.admit(&plugin, &mut object, None, &Cluster::default()).unwrap();
            }
            assert_eq!(object["metadata"]["finalizers"], expected, "{resource}");
        };
        let create = Operation::Create;
        check("", "persistentvolumes", create, json!(["mine", "kubernetes.io/pv-protection"]));
        check(
            "",
            "persistentvolumeclaims",
            create,
            json!(["mine", "kubernetes.io/pvc-protection"]),
        );
        check(
            "storage.k8s.io",
            "volumeattributesclasses",
            create,
            json!(["mine", "kubernetes.io/vac-protection"]),
        );
        check("", "persistentvolumes", Operation::Update, json!(["mine"]));
        check("", "secrets", create, json!(["mine"]));
    }
}
