//! Volumes that are scrubbed or deleted here: by a pod that deletes what is on them, or, as
//! directories of this host, from it.
//!
//! A pod that scrubs goes when it has ended. One that is there already may be of an earlier run, or
//! anybody's: it is deleted, and the volume waits for the next try.
//!
//! Upstream: `recycleVolumeOperation` and `deleteVolumeOperation` in
//! `pkg/controller/volume/persistentvolume/pv_controller.go`, `pkg/volume/util/recyclerclient`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use api::Typed;
use api::finalizers::PV_CONTROLLER;
use client::{
    ClientError, DeleteOptions, EventType, ListOptions, Outcome, ResourcePath, WatchStream,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, PersistentVolume, Pod};
use meta::{Object, ObjectKey, ResourceVersion, WatchEvent};
use serde_json::json;

use super::operations::Operation;
use super::{Binder, Told, plugins, recycler, settings, volume};
use crate::pod_view::PodView;

/// How long a pod that scrubs is followed beyond its deadline, which begins when it starts:
/// upstream's API server ends watches after half an hour to an hour.
const FOLLOW_SECS: u32 = 1800;

impl Binder {
    /// Does what is decided about a volume as the server knows it now.
    pub(super) async fn reclaim(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let api = self.client.api::<PersistentVolume>("");
        let Some(volume) = api.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
        let claim = self.claim_of(&volume).await?;
        match volume::decide(&volume, claim.as_deref()) {
            volume::Step::Recycle => tokio::select! {
                biased;
                // The pod stays, and is told from one of this run by whoever comes next.
                () = self.ctx.shutdown.begun() => Ok(Outcome::Done),
                result = self.recycle(&volume) => result,
            },
            volume::Step::Delete => self.delete(&volume).await,
            _ => Ok(Outcome::Done),
        }
    }

    async fn recycle(&self, volume: &PersistentVolume) -> Result<Outcome, ClientError> {
        let again = Ok(Outcome::RequeueAfter(self.ctx.config.volumes.retry));
        let users = self.users_of(volume).await?;
        if !users.is_empty() {
            let users: Vec<_> = users.into_iter().collect();
            let text = format!("Volume is used by pods: {}", users.join(","));
            self.tell(volume, Some(Told(EventType::Normal, "VolumeFailedRecycle", text)));
            return again;
        }
        let settings = &self.ctx.config.volumes;
        let pod = recycler::pod_for(volume, &settings.host_path_recycler, &settings.nfs_recycler);
        let Some(pod) = pod else {
            let text = "No recycler plugin found for the volume!".to_owned();
            let told = Told(EventType::Warning, "VolumeFailedRecycle", text);
            return self.fail(volume, told).await.map(|()| Outcome::Done);
        };
        if let Err(why) = self.scrub(volume, &pod).await {
            let text = format!("Recycle failed: {why}");
            self.fail(volume, Told(EventType::Warning, "VolumeFailedRecycle", text)).await?;
            return again;
        }
        let text = "Volume recycled".to_owned();
        self.tell(volume, Some(Told(EventType::Normal, "VolumeRecycled", text)));
        // It may have changed while it was scrubbed, which is no reason to scrub it again.
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let fresh = self.client.api::<PersistentVolume>("").get_opt(name).await?;
        if let Some(fresh) = fresh.filter(|fresh| is_same_binding(fresh, volume)) {
            self.release(&fresh).await?;
        }
        Ok(Outcome::Done)
    }

    /// The pods that have not ended and mount the claim that a volume was bound to, unless there
    /// is another claim of its name, which they mount then. That there are none is believed the
    /// server only.
    async fn users_of(&self, volume: &PersistentVolume) -> Result<BTreeSet<String>, ClientError> {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let Some(reference) = reference else { return Ok(BTreeSet::new()) };
        let claim = super::named_by(reference);
        if self.ctx.informers.claims.get(&claim).is_some() {
            return Ok(BTreeSet::new());
        }
        let is_user = |pod: &PodView| !pod.is_stopped() && pod.claims.contains(&claim.name);
        let known = self.ctx.informers.pod_index.with_claim(&claim);
        let known: BTreeSet<_> =
            known.iter().filter(|pod| is_user(pod)).map(|pod| pod.key.to_string()).collect();
        if !known.is_empty() {
            return Ok(known);
        }
        let pods = self.client.api::<Pod>(&claim.namespace).list(&ListOptions::all()).await?;
        let pods = pods.into_iter().map(PodView::new).filter(|pod| is_user(pod));
        Ok(pods.map(|pod| pod.key.to_string()).collect())
    }

    /// Runs the pod until it has ended, and says why that was no success.
    async fn scrub(&self, volume: &PersistentVolume, pod: &Pod) -> Result<(), String> {
        let says = |error: ClientError| error.to_string();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let pods = self.watch_named(ResourcePath::of::<Pod>(), "metadata", pod);
        let pods = pods.await.map_err(says)?;
        let events = self.watch_named(ResourcePath::of::<Event>(), "involvedObject", pod);
        let events = events.await.map_err(says)?;
        let api = self.client.api::<Pod>(namespace);
        let made = match api.create(pod).await {
            Ok(made) => made,
            Err(error) if error.is_already_exists() => {
                api.delete(name, &DeleteOptions::default()).await.map_err(|error| {
                    format!("failed to delete old recycler pod {namespace}/{name}: {error}")
                })?;
                return Err("old recycler pod found, will retry later".to_owned());
            }
            Err(error) => return Err(format!("unexpected error creating recycler pod:  {error}")),
        };
        let result = self.follow_recycler(volume, &made, pods, events).await;
        let options = DeleteOptions { uid: made.metadata.uid, ..DeleteOptions::default() };
        let deleted = match api.delete(name, &options).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            deleted => deleted,
        };
        result.map_err(|why| format!("failed to recycle volume: {why}"))?;
        deleted.map_err(|error| format!("failed to delete recycler pod: {error}"))
    }

    /// Watches what has the pod's name in a field, for longer than the pod may run.
    async fn watch_named(
        &self,
        path: ResourcePath,
        field: &str,
        pod: &Pod,
    ) -> Result<WatchStream, ClientError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let deadline = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
        let deadline = u32::try_from(deadline.unwrap_or_default()).unwrap_or(u32::MAX);
        let time = deadline.saturating_add(FOLLOW_SECS);
        let options = ListOptions::fields(format!("{field}.name={name}"));
        self.client.watch(&path, namespace, &options, ResourceVersion(0), time).await
    }

    /// Waits until the pod has ended, and tells of the volume what is told of the pod.
    async fn follow_recycler(
        &self,
        volume: &PersistentVolume,
        pod: &Pod,
        mut pods: WatchStream,
        mut events: WatchStream,
    ) -> Result<(), String> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let mut are_told = true;
        loop {
            let change = tokio::select! {
                biased;
                event = events.next(), if are_told => {
                    match event {
                        Some(Ok(WatchEvent::Added(event))) => self.hand_on(volume, pod, &event),
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => are_told = false,
                    }
                    continue;
                }
                change = pods.next() => change,
            };
            // Others had its name before.
            let is_it = |seen: &Object| Some(&seen.header().uid) == pod.metadata.uid.as_ref();
            match change {
                None => return Err(format!("recycler pod {name:?} watch channel had been closed")),
                Some(Err(_)) => return Err("recycler pod watcher failed".to_owned()),
                Some(Ok(WatchEvent::Deleted(seen))) if is_it(&seen) => {
                    return Err("recycler pod was deleted".to_owned());
                }
                Some(Ok(WatchEvent::Added(seen) | WatchEvent::Modified(seen))) if is_it(&seen) => {
                    if let Some(result) = outcome(&seen) {
                        return result;
                    }
                }
                Some(Ok(_)) => {}
            }
        }
    }

    fn hand_on(&self, volume: &PersistentVolume, pod: &Pod, event: &Object) {
        let Ok(event) = Event::of(event) else { return };
        if event.involved_object.uid != pod.metadata.uid {
            return;
        }
        let kind = match event.type_.as_deref() {
            Some("Warning") => EventType::Warning,
            _ => EventType::Normal,
        };
        let text = format!("Recycler pod: {}", event.message.unwrap_or_default());
        self.tell(volume, Some(Told(kind, "RecyclerPod", text)));
    }

    /// Removes the directory that a volume is, and then the volume.
    async fn delete(&self, volume: &PersistentVolume) -> Result<Outcome, ClientError> {
        if let Err(why) = self.remove_directory(volume).await {
            self.operations.fail(Operation::Delete, plugins::HOST_PATH);
            self.fail(volume, Told(EventType::Warning, "VolumeFailedDelete", why)).await?;
            return Ok(Outcome::RequeueAfter(self.ctx.config.volumes.retry));
        }
        let finalizers = volume.metadata.finalizers.as_deref().unwrap_or_default();
        if finalizers.iter().any(|one| one == PV_CONTROLLER) {
            let left: Vec<_> = finalizers.iter().filter(|one| *one != PV_CONTROLLER).collect();
            let left = json!({ "metadata": { "finalizers": left } });
            super::gone(self.change(volume, "", left).await)?;
        }
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let options =
            DeleteOptions { uid: volume.metadata.uid.clone(), ..DeleteOptions::default() };
        super::gone(self.client.api::<PersistentVolume>("").delete(name, &options).await)?;
        Ok(Outcome::Done)
    }

    /// Removes the directory that a volume is, which is timed.
    pub(super) async fn remove_directory(&self, volume: &PersistentVolume) -> Result<(), String> {
        let directory = volume.spec.as_ref().and_then(|spec| spec.host_path.as_ref());
        let Some(directory) = directory else {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let why = "spec.PersistentVolumeSource.HostPath is nil";
            return Err(format!("failed to create deleter for volume {name:?}: {why}"));
        };
        let began = self.ctx.clock.monotonic();
        let removed = self.remove(&directory.path).await;
        self.took("volume_delete", removed.is_ok(), began);
        removed
    }

    /// Upstream `hostPathDeleter`.
    async fn remove(&self, path: &str) -> Result<(), String> {
        if path.split_once("/tmp/").is_none_or(|(_, below)| below.is_empty()) {
            let why = "host_path deleter only supports /tmp/.+ but received provided";
            return Err(format!("{why} {path}"));
        }
        let removed = self.ctx.directories.remove(Path::new(path)).await;
        removed.map_err(|error| settings::failure("unlinkat", path, &error))
    }

    /// Counts what the plugin for directories of this host took.
    pub(super) fn took(&self, operation: &str, is_ok: bool, began: Instant) {
        let took = self.ctx.clock.monotonic().saturating_duration_since(began);
        self.ctx.counts.storage.took(plugins::HOST_PATH, operation, is_ok, took);
    }
}

/// How a pod has ended, if it has.
fn outcome(pod: &Object) -> Option<Result<(), String>> {
    let status = Pod::of(pod).ok()?.status?;
    match status.phase.as_deref() {
        Some("Succeeded") => Some(Ok(())),
        Some("Failed") => {
            let unknown = || "pod failed, pod.Status.Message unknown".to_owned();
            Some(Err(status.message.filter(|text| !text.is_empty()).unwrap_or_else(unknown)))
        }
        _ => None,
    }
}

/// Whether a volume is bound to the same claim in both.
fn is_same_binding(one: &PersistentVolume, other: &PersistentVolume) -> bool {
    let of = |volume: &PersistentVolume| volume.spec.as_ref()?.claim_ref.as_ref()?.uid.clone();
    one.metadata.uid == other.metadata.uid && of(one) == of(other)
}
