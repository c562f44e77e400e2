//! PersistentVolumeClaimResize: claims grow only where their class allows it.

use meta::{Quantity, Status};
use serde_json::Value;

use crate::chain::Plugin;
use crate::refusal::forbidden;
use crate::request::{Operation, Request, View};

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(crate) struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        let is_update =
            request.operation == Operation::Update && request.is_for("", "persistentvolumeclaims");
        let (true, Some(object), Some(old)) = (is_update, object, old) else { return Ok(()) };
        if wanted(object) <= wanted(old) {
            return Ok(());
        }
        if old["status"]["phase"] != "Bound" {
            return Err(forbidden(request, "Only bound persistent volume claims can be expanded"));
        }
        if class(object) == class(old) && allows_expansion(object, view) {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that \
                   provisions the pvc must support resize";
        Err(forbidden(request, why))
    }
}

fn wanted(claim: &Value) -> Quantity {
    let storage = &claim["spec"]["resources"]["requests"]["storage"];
    storage.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The class of a claim, which an annotation named before there was a field.
fn class(claim: &Value) -> Option<&str> {
    let annotation = claim["metadata"]["annotations"].get(BETA_CLASS).and_then(Value::as_str);
    let name = annotation.or_else(|| claim["spec"]["storageClassName"].as_str());
    name.filter(|name| !name.is_empty())
}

fn allows_expansion(claim: &Value, view: &dyn View) -> bool {
    let Some(name) = class(claim) else { return false };
    let class = view.get("storage.k8s.io", "storageclasses", "", name);
    let class = class.and_then(|class| class.decode::<Value>().ok());
    class.is_some_and(|class| class["allowVolumeExpansion"] == true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use meta::{GroupResource, GroupVersionKind, Object};
    use serde_json::json;

    use super::*;

    /// A cluster with one class.
    struct OneClass(bool);

    impl View for OneClass {
        fn get(&self, _: &str, _: &str, _: &str, name: &str) -> Option<Arc<Object>> {
            let class = json!({"metadata": {"name": name}, "allowVolumeExpansion": self.0});
            Object::from_json(class.to_string().into()).ok().map(Arc::new)
        }

        fn list(&self, _: &str, _: &str, _: &str) -> Vec<Arc<Object>> {
            Vec::new()
        }
    }

    fn may_grow(class_allows: bool, phase: &str, to: &str) -> bool {
        let claim = |size: &str| {
            json!({"spec": {"storageClassName": "fast",
                "resources": {"requests": {"storage": size}}}, "status": {"phase": phase}})
        };
        let gvk = GroupVersionKind::new("", "v1", "PersistentVolumeClaim");
        let resource =
            GroupResource { group: String::new(), resource: "persistentvolumeclaims".to_owned() };
        let request = Request {
            operation: Operation::Update,
            gvk: &gvk,
            resource: &resource,
            subresource: "",
            namespace: "n",
            name: "c",
            user: authz::Subject { name: "u", groups: &[] },
            is_dry_run: false,
        };
        let (new, old) = (claim(to), claim("1Gi"));
        let plugin = PersistentVolumeClaimResize;
        plugin.validate(&request, Some(&new), Some(&old), &OneClass(class_allows)).is_ok()
    }

    #[test]
    fn a_claim_grows_when_it_is_bound_and_its_class_agrees() {
        assert!(may_grow(true, "Bound", "2Gi"));
        assert!(!may_grow(true, "Pending", "2Gi"));
        assert!(!may_grow(false, "Bound", "2Gi"));
        assert!(may_grow(false, "Bound", "1024Mi"));
    }
}
