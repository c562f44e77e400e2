//! What the controller writes.

use std::sync::Arc;

use api::annotations::DEPLOYMENT_REVISION;
use client::{
    ClientError, DeleteOptions, EventType, Outcome, Patch, Propagation, Regarding, ResourcePath,
};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use meta::LabelSelector;
use serde_json::{Value, json};

use super::revision::{self, Create};
use super::{Controller, Rollout, progress, size};
use crate::selection::controller_of;

impl Controller {
    /// The Deployment's ReplicaSets, after adopting and releasing.
    pub(super) async fn claim_sets(
        &self,
        deployment: &Deployment,
        selector: &LabelSelector,
    ) -> Result<Vec<ReplicaSet>, ClientError> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let deleted = deployment.metadata.deletion_timestamp.is_some();
        let mut claimed = Vec::new();
        for set in self.ctx.informers.replica_sets.list_namespace(namespace) {
            let matches = super::matches(selector, &set.metadata);
            match controller_of(&set.metadata) {
                Some(owner) if Some(&owner.uid) != deployment.metadata.uid.as_ref() => {}
                Some(_) if matches => claimed.push(ReplicaSet::clone(&set)),
                Some(_) if deleted || set.metadata.deletion_timestamp.is_some() => {}
                Some(_) => self.release(deployment, &set).await?,
                None if !matches || deleted || set.metadata.deletion_timestamp.is_some() => {}
                None => {
                    if self.is_alive(deployment).await? {
                        claimed.push(self.adopt(deployment, &set).await?);
                    }
                }
            }
        }
        Ok(claimed)
    }

    async fn is_alive(&self, deployment: &Deployment) -> Result<bool, ClientError> {
        let meta = &deployment.metadata;
        let api = self.client.api::<Deployment>(meta.namespace.as_deref().unwrap_or_default());
        let fresh = api.get_opt(meta.name.as_deref().unwrap_or_default()).await?;
        Ok(fresh.is_some_and(|fresh| {
            fresh.metadata.uid == meta.uid && fresh.metadata.deletion_timestamp.is_none()
        }))
    }

    async fn adopt(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
    ) -> Result<ReplicaSet, ClientError> {
        let owner = revision::reference(deployment);
        let patch = json!({ "metadata": { "ownerReferences": [owner], "uid": set.metadata.uid } });
        self.patch_set(set, Patch::Strategic(patch)).await
    }

    async fn release(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<(), ClientError> {
        let gone = json!({ "$patch": "delete", "uid": deployment.metadata.uid });
        let patch = json!({ "metadata": { "ownerReferences": [gone], "uid": set.metadata.uid } });
        self.patch_set(set, Patch::Strategic(patch)).await.map(drop)
    }

    async fn patch_set(&self, set: &ReplicaSet, patch: Patch) -> Result<ReplicaSet, ClientError> {
        let meta = &set.metadata;
        let api = self.client.api::<ReplicaSet>(meta.namespace.as_deref().unwrap_or_default());
        api.patch(meta.name.as_deref().unwrap_or_default(), &patch).await
    }

    /// Sizes a ReplicaSet, and says so in an event of the Deployment.
    pub(super) async fn resize(
        &self,
        rollout: &Rollout,
        set: &ReplicaSet,
        wanted: i32,
    ) -> Result<ReplicaSet, ClientError> {
        let annotations: Value = revision::size_annotations(rollout)
            .into_iter()
            .map(|(key, value)| (key, Value::from(value)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let patch = json!({
            "metadata": {
                "annotations": annotations,
                "resourceVersion": set.metadata.resource_version,
            },
            "spec": { "replicas": wanted },
        });
        let scaled = self.patch_set(set, Patch::Merge(patch)).await?;
        let before = size(set);
        if before != wanted {
            let direction = if before < wanted { "up" } else { "down" };
            let name = set.metadata.name.as_deref().unwrap_or_default();
            self.event(
                rollout,
                EventType::Normal,
                "ScalingReplicaSet",
                format!("Scaled {direction} replica set {name} from {before} to {wanted}"),
            );
        }
        Ok(scaled)
    }

    /// Finds the ReplicaSet of the template and brings its annotations up to date, or makes it.
    pub(super) async fn sync_revision(
        &self,
        rollout: &mut Rollout,
        create: Create,
    ) -> Result<(), ClientError> {
        let revision = revision::next_revision(&rollout.old);
        let known = status_of(rollout).conditions;
        if let Some(new) = rollout.new.clone() {
            let new = self.update_new(rollout, new, revision).await?;
            if progress::find(&status_of(rollout), progress::PROGRESSING).is_none() {
                let text = format!("Found new replica set {:?}", name_of(&new));
                self.note_progress(rollout, "FoundNewReplicaSet", text);
            }
            rollout.new = Some(new);
        } else if create == Create::Yes {
            self.create_new(rollout, revision).await?;
        }
        if let Some(new) = &rollout.new {
            let revision = revision::annotation(&new.metadata, DEPLOYMENT_REVISION);
            let revision = revision.map(str::to_owned);
            let is_news = status_of(rollout).conditions != known;
            self.number_deployment(rollout, revision.as_deref(), is_news).await?;
        }
        Ok(())
    }

    async fn update_new(
        &self,
        rollout: &Rollout,
        new: ReplicaSet,
        revision: i64,
    ) -> Result<ReplicaSet, ClientError> {
        let present = new.metadata.annotations.clone().unwrap_or_default();
        let wanted = revision::annotations(rollout, &present, revision);
        let min_ready = rollout.spec().min_ready_seconds.unwrap_or(0);
        let known = new.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        if wanted == present && min_ready == known {
            return Ok(new);
        }
        let patch = json!({
            "metadata": {
                "annotations": wanted,
                "resourceVersion": new.metadata.resource_version,
            },
            "spec": { "minReadySeconds": min_ready },
        });
        self.patch_set(&new, Patch::Merge(patch)).await
    }

    async fn create_new(&self, rollout: &mut Rollout, revision: i64) -> Result<(), ClientError> {
        let set = revision::make(rollout, revision);
        let namespace = set.metadata.namespace.clone().unwrap_or_default();
        let name = set.metadata.name.clone().unwrap_or_default();
        let api = self.client.api::<ReplicaSet>(&namespace);
        let now = self.ctx.clock.now();
        let created = match api.create(&set).await {
            Ok(created) => created,
            Err(error) if error.is_already_exists() => {
                let present = api.get_opt(&name).await?;
                return self.name_taken(rollout, present, error).await;
            }
            Err(error) if error.is_namespace_terminating() => return Err(error),
            Err(error) => {
                let text = format!("Failed to create new replica set {name:?}: {error}");
                let status = rollout.deployment.status.get_or_insert_default();
                let reason = "ReplicaSetCreateError";
                progress::set(status, progress::PROGRESSING, "False", reason, text.clone(), now);
                self.event(rollout, EventType::Warning, reason, text);
                let status = status_of(rollout);
                self.write_status(rollout, &status).await?;
                return Err(error);
            }
        };
        if size(&created) > 0 {
            let text = format!("Scaled up replica set {name} from 0 to {}", size(&created));
            self.event(rollout, EventType::Normal, "ScalingReplicaSet", text);
        }
        let text = format!("Created new replica set {name:?}");
        self.note_progress(rollout, "NewReplicaSetCreated", text);
        rollout.new = Some(created);
        Ok(())
    }

    /// Where progress is expected at all, a ReplicaSet to begin with is news.
    fn note_progress(&self, rollout: &mut Rollout, reason: &str, text: String) {
        if progress::deadline(rollout).is_none() {
            return;
        }
        let status = rollout.deployment.status.get_or_insert_default();
        let now = self.ctx.clock.now();
        progress::set(status, progress::PROGRESSING, "True", reason, text, now);
    }

    /// The name is taken: by our own ReplicaSet that the cache has not seen yet, or by another
    /// template with the same hash, which the collision count gives another name.
    async fn name_taken(
        &self,
        rollout: &mut Rollout,
        present: Option<ReplicaSet>,
        taken: ClientError,
    ) -> Result<(), ClientError> {
        let own = present.filter(|set| {
            let owner = controller_of(&set.metadata).map(|owner| &owner.uid);
            owner == rollout.deployment.metadata.uid.as_ref()
                && revision::has_template(set, &rollout.spec().template)
        });
        if own.is_some() {
            rollout.new = own;
            return Ok(());
        }
        let mut status = status_of(rollout);
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.write_status(rollout, &status).await?;
        // With another count there is another name: begin anew, as upstream.
        Err(taken)
    }

    /// The Deployment carries the revision of its newest ReplicaSet. It is written with the status,
    /// as upstream does it, so that it makes no new generation; with it goes what is new in the
    /// conditions, before anything else replaces that.
    async fn number_deployment(
        &self,
        rollout: &mut Rollout,
        revision: Option<&str>,
        is_news: bool,
    ) -> Result<(), ClientError> {
        let meta = &rollout.deployment.metadata;
        let is_known =
            revision::annotation(meta, DEPLOYMENT_REVISION) == revision || revision.is_none();
        if is_known && !is_news {
            return Ok(());
        }
        let mut change =
            json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version } });
        if !is_known {
            change["metadata"]["annotations"] = json!({ DEPLOYMENT_REVISION: revision });
        }
        if is_news {
            change["status"] = json!({ "conditions": status_of(rollout).conditions });
        }
        let api = self.client.api::<Deployment>(meta.namespace.as_deref().unwrap_or_default());
        let name = meta.name.as_deref().unwrap_or_default();
        let written = api.merge_update(name, "status", &change).await?;
        rollout.deployment.metadata.resource_version = written.metadata.resource_version;
        Ok(())
    }

    /// A pause, and its end, are news in the Progressing condition.
    pub(super) async fn note_pause(&self, rollout: &mut Rollout) -> Result<(), ClientError> {
        if rollout.spec().progress_deadline_seconds.is_none() {
            return Ok(());
        }
        let mut status = status_of(rollout);
        let condition = progress::find(&status, progress::PROGRESSING);
        let reason = condition.and_then(|condition| condition.reason.as_deref());
        let paused = rollout.spec().paused == Some(true);
        let (reason, text) = match (paused, reason) {
            // A roll-out that is late stays late.
            (_, Some("ProgressDeadlineExceeded")) => return Ok(()),
            (true, known) if known != Some("DeploymentPaused") => {
                ("DeploymentPaused", "Deployment is paused")
            }
            (false, Some("DeploymentPaused")) => ("DeploymentResumed", "Deployment is resumed"),
            _ => return Ok(()),
        };
        let now = self.ctx.clock.now();
        progress::set(&mut status, progress::PROGRESSING, "Unknown", reason, text.into(), now);
        self.write_status(rollout, &status).await?;
        rollout.deployment.status = Some(status);
        Ok(())
    }

    pub(super) async fn sync_status(&self, rollout: &mut Rollout) -> Result<(), ClientError> {
        let status = progress::counts(rollout, self.ctx.clock.now());
        self.write_status(rollout, &status).await
    }

    /// The generation is observed although nothing else can be done.
    pub(super) async fn observe_generation(
        &self,
        deployment: &Arc<Deployment>,
    ) -> Result<Outcome, ClientError> {
        let mut rollout =
            Rollout { deployment: Deployment::clone(deployment), new: None, old: Vec::new() };
        let mut status = status_of(&rollout);
        status.observed_generation = deployment.metadata.generation;
        self.write_status(&mut rollout, &status).await?;
        Ok(Outcome::Done)
    }

    /// Writes the status if it is not what the cache has.
    pub(super) async fn write_status(
        &self,
        rollout: &mut Rollout,
        status: &DeploymentStatus,
    ) -> Result<(), ClientError> {
        let meta = &rollout.deployment.metadata;
        let key = crate::selection::key_of(meta);
        let cached = self.ctx.informers.deployments.get(&key);
        let known = cached.and_then(|d| d.status.clone()).unwrap_or_default();
        if normalized(&known) == normalized(status) {
            return Ok(());
        }
        let body = json!({
            "observedGeneration": status.observed_generation,
            "replicas": status.replicas,
            "updatedReplicas": status.updated_replicas,
            "readyReplicas": status.ready_replicas,
            "availableReplicas": status.available_replicas,
            "unavailableReplicas": status.unavailable_replicas,
            "terminatingReplicas": status.terminating_replicas,
            "collisionCount": status.collision_count,
            "conditions": status.conditions,
        });
        // What a cache that is late knows must not replace what is known since.
        let pinned = json!({ "uid": meta.uid, "resourceVersion": meta.resource_version });
        let change = json!({ "metadata": pinned, "status": body });
        let path = ResourcePath::of::<Deployment>();
        let api = self.client.dynamic::<Value>(path, &key.namespace);
        match api.merge_update(&key.name, "status", &change).await {
            Ok(written) => {
                let version = written["metadata"]["resourceVersion"].as_str().map(str::to_owned);
                rollout.deployment.metadata.resource_version = version;
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes the oldest ReplicaSets beyond the history limit.
    pub(super) async fn clean_up(&self, rollout: &Rollout) -> Result<(), ClientError> {
        for set in superfluous(rollout) {
            let meta = &set.metadata;
            let options = DeleteOptions {
                uid: meta.uid.clone(),
                propagation: Some(Propagation::Background),
                ..DeleteOptions::default()
            };
            let api = self.client.api::<ReplicaSet>(meta.namespace.as_deref().unwrap_or_default());
            match api.delete(meta.name.as_deref().unwrap_or_default(), &options).await {
                Ok(()) => {}
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn event(&self, rollout: &Rollout, kind: EventType, reason: &str, text: String) {
        self.recorder.record(&Regarding::object(&rollout.deployment), kind, reason, text);
    }
}

fn name_of(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

fn status_of(rollout: &Rollout) -> DeploymentStatus {
    rollout.deployment.status.clone().unwrap_or_default()
}

/// Absent and zero are the same, but the order of conditions is not compared.
fn normalized(status: &DeploymentStatus) -> DeploymentStatus {
    let mut status = status.clone();
    for number in [
        &mut status.replicas,
        &mut status.updated_replicas,
        &mut status.ready_replicas,
        &mut status.available_replicas,
        &mut status.unavailable_replicas,
    ] {
        *number = number.filter(|number| *number != 0);
    }
    let conditions = status.conditions.get_or_insert_default();
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    status
}

/// Old ReplicaSets that are empty and beyond the limit, the oldest revision first.
fn superfluous(rollout: &Rollout) -> Vec<&ReplicaSet> {
    let Some(limit) = rollout.spec().revision_history_limit else { return Vec::new() };
    let alive = rollout.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none());
    let mut alive: Vec<&ReplicaSet> = alive.collect();
    let excess = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    alive.sort_by_key(|set| revision::revision_of(set));
    alive.truncate(excess);
    alive.retain(|set| {
        let status = set.status.clone().unwrap_or_default();
        status.replicas == 0
            && size(set) == 0
            && set.metadata.generation <= status.observed_generation
    });
    alive
}

#[cfg(test)]
pub(super) fn superfluous_names(rollout: &Rollout) -> Vec<String> {
    superfluous(rollout).iter().filter_map(|set| set.metadata.name.clone()).collect()
}
