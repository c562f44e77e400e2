//! DefaultStorageClass: claims that do not say get the default class.

use meta::Status;
use serde_json::{Value, json};

use crate::chain::Plugin;
use crate::request::{Operation, Request, View};

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
/// Upstream's older names of the same things.
const BETA_DEFAULT: &str = "storageclass.beta.kubernetes.io/is-default-class";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(crate) struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        _old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_for("", "persistentvolumeclaims") {
            return Ok(());
        }
        let says = object["spec"].get("storageClassName").is_some()
            || object["metadata"]["annotations"].get(BETA_CLASS).is_some();
        if says {
            return Ok(());
        }
        let classes = view.list("storage.k8s.io", "storageclasses", "");
        let mut defaults: Vec<Value> = classes
            .iter()
            .filter_map(|class| class.decode::<Value>().ok())
            .filter(|class| {
                let annotations = &class["metadata"]["annotations"];
                annotations[DEFAULT] == "true" || annotations[BETA_DEFAULT] == "true"
            })
            .collect();
        // The newest; of several as new, the first by name.
        let text = |class: &Value, field: &str| {
            class["metadata"][field].as_str().unwrap_or_default().to_owned()
        };
        defaults.sort_by(|a, b| {
            let newer = text(b, "creationTimestamp").cmp(&text(a, "creationTimestamp"));
            newer.then_with(|| text(a, "name").cmp(&text(b, "name")))
        });
        if let Some(class) = defaults.first() {
            object["spec"]["storageClassName"] = json!(text(class, "name"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, attempt};

    fn class(name: &str, made: &str, annotation: &str) -> Value {
        json!({"metadata": {"name": name, "creationTimestamp": made,
            "annotations": {annotation: "true"}}})
    }

    fn chosen(classes: &[Value], claim: &Value) -> Value {
        let cluster = Cluster::default().with("storageclasses", classes);
        let mut claim = claim.clone();
        let create = attempt("", "persistentvolumeclaims", Operation::Create);
        create.admit(&DefaultStorageClass, &mut claim, None, &cluster).unwrap();
        claim["spec"]["storageClassName"].clone()
    }

    #[test]
    fn a_claim_gets_the_newest_default_class() {
        let old = class("a", "2020-01-01T00:00:00Z", DEFAULT);
        let new = class("z", "2021-01-01T00:00:00Z", BETA_DEFAULT);
        let same = class("b", "2021-01-01T00:00:00Z", DEFAULT);
        let plain = json!({"spec": {}});
        assert_eq!(chosen(&[old.clone(), new.clone()], &plain), "z");
        assert_eq!(chosen(&[old.clone(), new, same], &plain), "b");
        assert_eq!(chosen(&[], &plain), Value::Null);
        let other = class("c", "2021-01-01T00:00:00Z", "other");
        assert_eq!(chosen(&[other], &plain), Value::Null);
        assert_eq!(
            chosen(std::slice::from_ref(&old), &json!({"spec": {"storageClassName": ""}})),
            ""
        );
        let annotated = json!({"metadata": {"annotations": {BETA_CLASS: "x"}}, "spec": {}});
        assert_eq!(chosen(&[old], &annotated), Value::Null);
    }
}
