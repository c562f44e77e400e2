//! Goes back to an earlier template, where the annotation of old clients asks for it.
//!
//! Upstream: `pkg/controller/deployment/rollback.go`.

use api::Typed;
use client::{ClientError, EventType, Regarding, ResourcePath};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::revision::{annotation, has_template, revision_of, taken_over};
use super::{Controller, Rollout};

/// The revision to go back to; 0 is the one before the last.
pub(super) const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// The revision that a Deployment should go back to.
pub(super) fn wanted(deployment: &Deployment) -> Option<i64> {
    annotation(&deployment.metadata, ROLLBACK_TO)?.parse().ok()
}

/// What comes of a wish.
#[derive(Debug, PartialEq)]
enum Step<'a> {
    /// This ReplicaSet has the template.
    To(&'a ReplicaSet, i64),
    /// Nothing is to be done; reason and text say why.
    Nothing(&'static str, String),
}

fn decide(rollout: &Rollout, revision: i64) -> Step<'_> {
    let not_found =
        |text: &str| Step::Nothing("DeploymentRollbackRevisionNotFound", text.to_owned());
    let revision = if revision == 0 {
        let mut revisions: Vec<_> = rollout.all().map(revision_of).collect();
        revisions.sort_unstable();
        match revisions.iter().rev().nth(1).filter(|revision| **revision != 0) {
            Some(last) => *last,
            None => return not_found("Unable to find last revision."),
        }
    } else {
        revision
    };
    let Some(set) = rollout.all().find(|set| revision_of(set) == revision) else {
        return not_found("Unable to find the revision to rollback to.");
    };
    if has_template(set, &rollout.spec().template) {
        let text = format!(
            "The rollback revision contains the same template as current deployment {:?}",
            rollout.deployment.metadata.name.as_deref().unwrap_or_default()
        );
        return Step::Nothing("DeploymentRollbackTemplateUnchanged", text);
    }
    Step::To(set, revision)
}

impl Controller {
    /// Goes back, and takes the annotation away.
    pub(super) async fn roll_back(
        &self,
        rollout: &Rollout,
        revision: i64,
    ) -> Result<(), ClientError> {
        let deployment = &rollout.deployment;
        let regarding = Regarding::object(deployment);
        let mut change = json!({});
        let told = match decide(rollout, revision) {
            Step::Nothing(reason, text) => (EventType::Warning, reason, text),
            Step::To(set, revision) => {
                change = restore(deployment, set);
                let name = deployment.metadata.name.as_deref().unwrap_or_default();
                let text = format!("Rolled back deployment {name:?} to revision {revision}");
                (EventType::Normal, "DeploymentRollback", text)
            }
        };
        change["metadata"]["annotations"][ROLLBACK_TO] = Value::Null;
        change["metadata"]["uid"] = json!(deployment.metadata.uid);
        change["metadata"]["resourceVersion"] = json!(deployment.metadata.resource_version);
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let path = ResourcePath::of::<Deployment>();
        self.client.dynamic::<Value>(path, namespace).merge_update(name, "", &change).await?;
        let (kind, reason, text) = told;
        self.recorder.record(&regarding, kind, reason, text);
        Ok(())
    }
}

/// The merge patch that makes a Deployment have the template and annotations of a ReplicaSet.
fn restore(deployment: &Deployment, set: &ReplicaSet) -> Value {
    let mut template = set.spec.clone().and_then(|spec| spec.template).unwrap_or_default();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(api::labels::POD_TEMPLATE_HASH);
    }
    let now = deployment.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let tree = |template: &k8s_openapi::api::core::v1::PodTemplateSpec| {
        template.to_tree().unwrap_or_default()
    };
    let annotations = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        let all = meta.annotations.iter().flatten();
        json!(all.filter(|(key, _)| taken_over(key)).collect::<std::collections::BTreeMap<_, _>>())
    };
    json!({
        "metadata": { "annotations":
            difference(&annotations(&deployment.metadata), &annotations(&set.metadata)) },
        "spec": { "template": difference(&tree(&now), &tree(&template)) },
    })
}

/// What has to be merged (RFC 7386) into one value to get the other.
fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let mut change = serde_json::Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        change.insert(key.clone(), Value::Null);
    }
    for (key, value) in to {
        match from.get(key) {
            Some(known) if known == value => {}
            Some(known) => drop(change.insert(key.clone(), difference(known, value))),
            None => drop(change.insert(key.clone(), value.clone())),
        }
    }
    change.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(revision: i64, image: &str) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": { "name": image, "annotations": {
                "deployment.kubernetes.io/revision": revision.to_string(), "why": image } },
            "spec": { "selector": {}, "template": {
                "metadata": { "labels": { "app": "w", "pod-template-hash": image } },
                "spec": { "containers": [{ "name": "c", "image": image }] } } } }))
        .unwrap()
    }

    /// Revision 3 is the one of now, with a node selector that the others do not have.
    fn rollout() -> Rollout {
        let deployment = json!({ "metadata": { "name": "d", "annotations": { "why": "three" } },
            "spec": { "selector": {}, "template": { "metadata": { "labels": { "app": "w" } },
                "spec": { "nodeSelector": { "a": "b" },
                    "containers": [{ "name": "c", "image": "three" }] } } } });
        let mut new = set(3, "three");
        let template = new.spec.as_mut().unwrap().template.as_mut().unwrap();
        template.spec.as_mut().unwrap().node_selector =
            Some([("a".to_owned(), "b".to_owned())].into());
        Rollout {
            deployment: serde_json::from_value(deployment).unwrap(),
            new: Some(new),
            old: vec![set(1, "one"), set(2, "two")],
        }
    }

    #[test]
    fn a_revision_is_found_or_not() {
        let rollout = rollout();
        assert_eq!(decide(&rollout, 0), Step::To(&rollout.old[1], 2));
        assert_eq!(decide(&rollout, 1), Step::To(&rollout.old[0], 1));
        let reason = |rollout: &Rollout, revision| match decide(rollout, revision) {
            Step::Nothing(reason, _) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(&rollout, 7), "DeploymentRollbackRevisionNotFound");
        assert_eq!(reason(&rollout, 3), "DeploymentRollbackTemplateUnchanged");
        let first = Rollout { old: Vec::new(), ..rollout };
        assert_eq!(reason(&first, 0), "DeploymentRollbackRevisionNotFound");
    }

    #[test]
    fn the_whole_template_is_restored() {
        let rollout = rollout();
        let change = restore(&rollout.deployment, &rollout.old[0]);
        assert_eq!(
            change,
            json!({ "metadata": { "annotations": { "why": "one" } },
                "spec": { "template": { "spec": { "nodeSelector": null,
                    "containers": [{ "name": "c", "image": "one" }] } } } })
        );
    }
}
