//! Jobs: a selector of their own, unless the user wants to choose it.
//!
//! Upstream: `registry/batch/job/strategy.go`.

use meta::Status;
use serde_json::{Value, json};

use super::{Strategy, WriteContext};

pub(super) struct Jobs;

impl Strategy for Jobs {
    fn orphans_by_default(&self) -> bool {
        true
    }

    fn prepare_create(&self, _ctx: &WriteContext<'_>, object: &mut Value) -> Result<(), Status> {
        if object["spec"]["manualSelector"] == true {
            return Ok(());
        }
        // Defaulting has taken the labels of the template for those of the job, if it had none;
        // upstream's maps are then one map, and what is added to one is in the other.
        let of_template = object.pointer("/spec/template/metadata/labels");
        let is_shared = object["metadata"].get("labels").is_none_or(|own| Some(own) == of_template);
        generate_selector(object);
        if is_shared {
            object["metadata"]["labels"] = object["spec"]["template"]["metadata"]["labels"].clone();
        }
        Ok(())
    }
}

fn generate_selector(job: &mut Value) {
    let uid = job["metadata"]["uid"].clone();
    let name = job["metadata"]["name"].clone();
    let template = &mut job["spec"]["template"]["metadata"]["labels"];
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        template[key] = value.clone();
    }
    let selector = &mut job["spec"]["selector"];
    let labels = &mut selector["matchLabels"];
    if labels.is_null() {
        *labels = json!({});
    }
    labels["batch.kubernetes.io/controller-uid"] = uid;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_selected_by_the_uid_of_the_job() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {}}});
        generate_selector(&mut job);
        assert_eq!(
            job["spec"]["selector"],
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
        );
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
    }
}
