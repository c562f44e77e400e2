//! Jobs: a selector of their own, unless the user wants to choose it.
//!
//! Upstream: `registry/batch/job/strategy.go`.

use meta::Status;
use serde_json::Value;

use super::{Strategy, WriteContext};

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

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

/// What the user has set of it stays, for validation to find.
fn generate_selector(job: &mut Value) {
    let uid = job["metadata"]["uid"].clone();
    let name = job["metadata"]["name"].clone();
    let labels = &mut job["spec"]["template"]["metadata"]["labels"];
    for (key, value) in [
        (CONTROLLER_UID, &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        set_if_absent(labels, key, value);
    }
    set_if_absent(&mut job["spec"]["selector"]["matchLabels"], CONTROLLER_UID, &uid);
}

fn set_if_absent(labels: &mut Value, key: &str, value: &Value) {
    if labels.get(key).is_none() {
        labels[key] = value.clone();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
    #[test]
    fn what_the_user_has_set_stays() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "v", "a": "b"}},
            "template": {"metadata": {"labels": {"job-name": "k"}}}}});
        generate_selector(&mut job);
        assert_eq!(
            job["spec"]["selector"]["matchLabels"],
            json!({"batch.kubernetes.io/controller-uid": "v", "a": "b"})
        );
        let labels = &job["spec"]["template"]["metadata"]["labels"];
        assert_eq!((&labels["job-name"], &labels["controller-uid"]), (&json!("k"), &json!("u")));
    }
}
