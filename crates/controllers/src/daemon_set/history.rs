//! The templates a DaemonSet has had, kept as ControllerRevisions.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::{Client, ClientError, ResourcePath};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use meta::{Reason, Status};
use serde_json::{Value, json};

use super::HASH;
use crate::pod_control::{Owner, PodControl};
use crate::pod_view::PodView;
use crate::revisions::{self, Claim, RevisionControl, has_data};

/// The revision of the current template and the others, the oldest first.
#[derive(Debug)]
pub(super) struct History {
    pub(super) current: Arc<ControllerRevision>,
    pub(super) old: Vec<Arc<ControllerRevision>>,
}

/// Whose a revision is, and whose it should be.
pub(super) fn claim(set: &DaemonSet, revision: &ControllerRevision) -> Claim {
    revisions::claim(&set.metadata, set.spec.as_ref().map(|spec| &spec.selector), revision)
}

/// Those of the current template, and the others, both by revision.
pub(super) fn sort(
    set: &DaemonSet,
    mut revisions: Vec<Arc<ControllerRevision>>,
) -> (Vec<Arc<ControllerRevision>>, Vec<Arc<ControllerRevision>>) {
    revisions.sort_by_key(|revision| (revision.revision, revision.metadata.name.clone()));
    let data = data(set);
    revisions.into_iter().partition(|revision| has_data(revision, &data))
}

/// Old revisions beyond the limit that no pod is of.
pub(super) fn surplus(
    set: &DaemonSet,
    old: &[Arc<ControllerRevision>],
    pods: &[Arc<PodView>],
) -> Vec<Arc<ControllerRevision>> {
    let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let count = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let alive: BTreeSet<&String> = pods.iter().filter_map(|pod| pod.labels.get(HASH)).collect();
    let is_unused =
        |revision: &&Arc<ControllerRevision>| !hash_of(revision).is_some_and(|h| alive.contains(h));
    old.iter().filter(is_unused).take(count).cloned().collect()
}

/// The hash in a revision's label.
pub(super) fn hash_of(revision: &ControllerRevision) -> Option<&String> {
    revision.metadata.labels.as_ref()?.get(HASH)
}

/// A revision of the current template.
pub(super) fn snapshot(set: &DaemonSet, owner: &Owner, number: i64) -> ControllerRevision {
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    revisions::snapshot(&set.metadata, owner, &template(set), HASH, (number, collisions))
}

fn template(set: &DaemonSet) -> PodTemplateSpec {
    set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default()
}

fn data(set: &DaemonSet) -> Value {
    revisions::data(&template(set))
}

/// Writes revisions.
pub(super) struct Revisions<'a> {
    pub(super) client: &'a Client,
    pub(super) pods: &'a PodControl,
    pub(super) set: &'a DaemonSet,
    pub(super) owner: &'a Owner,
}

impl Revisions<'_> {
    /// Finds the revision of the current template, makes it if there is none, and gives it the
    /// highest number.
    pub(super) async fn settle(
        &self,
        revisions: Vec<Arc<ControllerRevision>>,
        pods: &[Arc<PodView>],
    ) -> Result<History, ClientError> {
        let (mut same, old) = sort(self.set, revisions);
        let number = old.last().map_or(0, |last| last.revision).saturating_add(1);
        let Some(current) = same.pop() else {
            let current = Arc::new(self.create(number).await?);
            return Ok(History { current, old });
        };
        let name = current.metadata.name.clone().unwrap_or_default();
        let hash = hash_of(&current).unwrap_or(&name);
        // Of several the last one stays, and the pods of the others become its own.
        for twin in same {
            for pod in pods.iter().filter(|pod| pod.labels.get(HASH) == hash_of(&twin)) {
                self.relabel(pod, hash).await?;
            }
            self.control().delete(&twin).await?;
        }
        let mut change = json!({});
        if current.revision < number {
            change["revision"] = number.into();
        }
        if hash_of(&current).is_none() {
            change["metadata"]["labels"][HASH] = name.into();
        }
        if change == json!({}) {
            return Ok(History { current, old });
        }
        change["metadata"]["uid"] = json!(current.metadata.uid);
        Ok(History { current: Arc::new(self.control().change(&current, &change).await?), old })
    }

    fn control(&self) -> RevisionControl<'_> {
        RevisionControl { client: self.client, owner: self.owner }
    }

    async fn relabel(&self, pod: &PodView, hash: &str) -> Result<(), ClientError> {
        let patch = json!({ "metadata": { "uid": pod.uid, "labels": { HASH: hash } } });
        self.pods.patch(Some(self.owner), pod, patch).await
    }

    async fn create(&self, number: i64) -> Result<ControllerRevision, ClientError> {
        let revision = snapshot(self.set, self.owner, number);
        let api = self.client.api::<ControllerRevision>(&self.owner.key.namespace);
        let error = match api.create(&revision).await {
            Err(error) if error.is_already_exists() => error,
            result => return result,
        };
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        let present = api.get(name).await?;
        // The cache has not heard yet of what an earlier pass made.
        if has_data(&present, &data(self.set)) {
            return Ok(present);
        }
        self.count_collision().await?;
        Err(error)
    }

    /// Another template has the name: with another count, the hash is another one.
    async fn count_collision(&self) -> Result<(), ClientError> {
        let key = &self.owner.key;
        let fresh = self.client.api::<DaemonSet>(&key.namespace).get(&key.name).await?;
        let count = |set: &DaemonSet| set.status.as_ref().and_then(|status| status.collision_count);
        let known = count(self.set);
        if count(&fresh) != known {
            let text = format!("found a stale collision count ({known:?}) of DaemonSet {key}");
            return Err(Status::failure(Reason::Conflict, text).into());
        }
        let change = json!({ "metadata": { "uid": self.owner.uid },
            "status": { "collisionCount": known.unwrap_or(0).saturating_add(1) } });
        let api = self.client.dynamic::<Value>(ResourcePath::of::<DaemonSet>(), &key.namespace);
        api.merge_update(&key.name, "status", &change).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(image: &str) -> DaemonSet {
        let set = json!({ "metadata": { "name": "d", "namespace": "n", "uid": "u" },
            "spec": { "selector": { "matchLabels": { "a": "b" } }, "revisionHistoryLimit": 1,
                "template": { "metadata": { "labels": { "a": "b" } },
                    "spec": { "containers": [{ "name": "c", "image": image }] } } } });
        serde_json::from_value(set).unwrap()
    }

    fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
        let set = set(image);
        Arc::new(snapshot(&set, &super::super::owner(&set), number))
    }

    #[test]
    fn a_template_is_found_again_whatever_came_after_it() {
        let all = vec![revision("three", 3), revision("one", 1), revision("two", 2)];
        let (same, old) = sort(&set("one"), all);
        assert_eq!(same.iter().map(|one| one.revision).collect::<Vec<_>>(), [1]);
        assert_eq!(old.iter().map(|one| one.revision).collect::<Vec<_>>(), [2, 3]);
        let data = same[0].data.as_ref().unwrap();
        assert_eq!(data.0["spec"]["template"]["$patch"], "replace");
    }

    #[test]
    fn revisions_that_pods_are_of_stay_beyond_the_limit() {
        let old = [revision("one", 1), revision("two", 2), revision("three", 3)];
        let numbers = |pods: &[Arc<PodView>]| {
            let surplus = surplus(&set("four"), &old, pods);
            surplus.iter().map(|one| one.revision).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&[]), [1, 2]);
        let pod = json!({ "metadata": { "labels": { HASH: hash_of(&old[0]) } } });
        let pod = PodView::new(serde_json::from_value(pod).unwrap());
        assert_eq!(numbers(&[Arc::new(pod)]), [2, 3]);
    }

    #[test]
    fn only_what_the_selector_selects_is_claimed() {
        let set = set("one");
        let with = |change: fn(&mut ControllerRevision)| {
            let mut revision = ControllerRevision::clone(&revision("one", 1));
            change(&mut revision);
            claim(&set, &revision)
        };
        assert_eq!(with(|_| ()), Claim::Keep);
        assert_eq!(with(|one| one.metadata.labels = None), Claim::Release);
        assert_eq!(with(|one| one.metadata.owner_references = None), Claim::Adopt);
        let other = |one: &mut ControllerRevision| {
            one.metadata.owner_references.as_mut().unwrap()[0].uid = "v".to_owned();
        };
        assert_eq!(with(other), Claim::Ignore);
    }
}
