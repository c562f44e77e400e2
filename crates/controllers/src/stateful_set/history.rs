//! The templates a StatefulSet has had, kept as ControllerRevisions.
//!
//! Upstream: `getStatefulSetRevisions`, `truncateHistory` in `stateful_set_control.go`.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::ClientError;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};

use super::HASH;
use crate::pod_control::Owner;
use crate::pod_view::PodView;
use crate::revisions::{self, RevisionControl, data, has_data};

/// Label of a set's revisions: their hash alone.
const REVISION_HASH: &str = "controller.kubernetes.io/hash";

/// Two templates that take turns at the same name are told apart by counting; more collisions than
/// this in one pass are no accident.
const COLLISIONS: usize = 8;

/// The revisions that count, and all there are, the oldest first.
#[derive(Debug)]
pub(super) struct History {
    /// What pods were of before the template changed.
    pub(super) current: Arc<ControllerRevision>,
    /// What they should be of.
    pub(super) update: Arc<ControllerRevision>,
    pub(super) all: Vec<Arc<ControllerRevision>>,
    pub(super) collisions: i32,
}

impl History {
    /// Finds or makes the revision of the template, with the highest number of all.
    pub(super) async fn settle(
        set: &StatefulSet,
        control: &RevisionControl<'_>,
        mut all: Vec<Arc<ControllerRevision>>,
    ) -> Result<Self, ClientError> {
        all.sort_by_key(|one| (one.revision, one.metadata.name.clone()));
        let mut collisions = collisions(set);
        let update = match decide(set, &all) {
            Decision::Use(revision) => revision,
            Decision::Raise(revision, number) => {
                let uid = &revision.metadata.uid;
                let change = json!({ "revision": number, "metadata": { "uid": uid } });
                Arc::new(control.change(&revision, &change).await?)
            }
            Decision::Make(number) => {
                Arc::new(create(set, control, number, &mut collisions).await?)
            }
        };
        let status = set.status.as_ref();
        let known = status.and_then(|status| status.current_revision.as_deref());
        let current =
            all.iter().find(|one| known.is_some() && one.metadata.name.as_deref() == known);
        let current = current.unwrap_or(&update).clone();
        Ok(Self { current, update, all, collisions })
    }

    /// Revisions beyond the limit that neither count nor have pods, the oldest first.
    pub(super) fn surplus(
        &self,
        set: &StatefulSet,
        pods: &[Arc<PodView>],
    ) -> Vec<Arc<ControllerRevision>> {
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let alive: BTreeSet<&str> = pods
            .iter()
            .filter_map(|pod| pod.labels.get(HASH).map(String::as_str))
            .chain([name_of(&self.current), name_of(&self.update)])
            .collect();
        let old: Vec<_> = self.all.iter().filter(|one| !alive.contains(name_of(one))).collect();
        let count = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.into_iter().take(count).cloned().collect()
    }
}

/// The name of a revision: what pods carry in their label.
pub(super) fn name_of(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// The template of a revision.
pub(super) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Where the revision of the template comes from.
#[derive(Debug)]
enum Decision {
    /// It is the last one.
    Use(Arc<ControllerRevision>),
    /// It is there, and becomes the last one: a rollback.
    Raise(Arc<ControllerRevision>, i64),
    /// It is not there.
    Make(i64),
}

fn decide(set: &StatefulSet, sorted: &[Arc<ControllerRevision>]) -> Decision {
    let data = data_of(set);
    let next = sorted.last().map_or(0, |last| last.revision).saturating_add(1);
    match sorted.iter().rposition(|one| has_data(one, &data)) {
        None => Decision::Make(next),
        Some(at) if at + 1 == sorted.len() => Decision::Use(Arc::clone(&sorted[at])),
        Some(at) => Decision::Raise(Arc::clone(&sorted[at]), next),
    }
}

async fn create(
    set: &StatefulSet,
    control: &RevisionControl<'_>,
    number: i64,
    collisions: &mut i32,
) -> Result<ControllerRevision, ClientError> {
    let api = control.client.api::<ControllerRevision>(&control.owner.key.namespace);
    let mut tries = COLLISIONS;
    loop {
        let revision = snapshot(set, control.owner, number, *collisions);
        let error = match api.create(&revision).await {
            Err(error) if error.is_already_exists() => error,
            result => return result,
        };
        // The cache may not have heard yet of what an earlier pass made.
        let present = api.get(name_of(&revision)).await?;
        if has_data(&present, &data_of(set)) {
            return Ok(present);
        }
        tries -= 1;
        if tries == 0 {
            return Err(error);
        }
        *collisions = collisions.saturating_add(1);
    }
}

fn snapshot(set: &StatefulSet, owner: &Owner, number: i64, collisions: i32) -> ControllerRevision {
    let counts = (number, Some(collisions));
    revisions::snapshot(&set.metadata, owner, &template(set), REVISION_HASH, counts)
}

fn template(set: &StatefulSet) -> PodTemplateSpec {
    set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default()
}

fn data_of(set: &StatefulSet) -> Value {
    data(&template(set))
}

fn collisions(set: &StatefulSet) -> i32 {
    set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn set(image: &str) -> StatefulSet {
        serde_json::from_value(json!({ "metadata": { "name": "web", "namespace": "n", "uid": "u" },
            "spec": { "selector": {}, "revisionHistoryLimit": 1, "template": {
                "metadata": { "labels": { "a": "b" } },
                "spec": { "containers": [{ "name": "c", "image": image }] } } } }))
        .unwrap()
    }

    fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
        let set = set(image);
        Arc::new(snapshot(&set, &super::super::owner(&set), number, 0))
    }

    #[test]
    fn a_template_is_made_used_or_raised() {
        let all = [revision("one", 1), revision("two", 2)];
        assert!(matches!(decide(&set("three"), &all), Decision::Make(3)));
        assert!(matches!(decide(&set("two"), &all), Decision::Use(one) if one.revision == 2));
        assert!(matches!(decide(&set("one"), &all), Decision::Raise(one, 3) if one.revision == 1));
        assert!(matches!(decide(&set("one"), &[]), Decision::Make(1)));
    }

    #[test]
    fn a_revision_brings_its_template_back_and_its_name_has_its_hash() {
        let one = revision("one", 1);
        assert_eq!(template_of(&one), set("one").spec.map(|spec| spec.template));
        let hash = &one.metadata.labels.as_ref().unwrap()[REVISION_HASH];
        assert_eq!(name_of(&one), format!("web-{hash}"));
    }

    #[test]
    fn revisions_that_count_or_have_pods_stay_beyond_the_limit() {
        let all: Vec<_> = (1..=5).map(|number| revision(&format!("i{number}"), number)).collect();
        let history = History {
            current: all[0].clone(),
            update: all[4].clone(),
            all: all.clone(),
            collisions: 0,
        };
        let numbers = |pods: &[Arc<PodView>]| {
            let surplus = history.surplus(&set("i5"), pods);
            surplus.iter().map(|one| one.revision).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&[]), [2, 3]);
        let pod = json!({ "metadata": { "labels": { HASH: name_of(&all[1]) } } });
        let pod = PodView::new(serde_json::from_value::<Pod>(pod).unwrap());
        assert_eq!(numbers(&[Arc::new(pod)]), [3]);
    }
}
