//! What brings a volume or a node back into the queues.

use std::sync::Arc;

use client::{Change, EventType};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use meta::ObjectKey;

use super::Attacher;
use super::csi::{self, CsiVolume, NodeView, is_attached, volume_of};
use crate::pod_view::PodView;

impl Attacher {
    /// Looks at volumes and nodes when something about them changes.
    pub(super) fn follow(self: &Arc<Self>) {
        self.follow_pods();
        self.follow_attachments();
        self.follow_nodes();
        let informers = &self.ctx.informers;
        let this = Arc::clone(self);
        informers.claims.on_change(move |_, change| {
            let (Change::Added(claim)
            | Change::Deleted(claim)
            | Change::Updated { new: claim, .. }) = change;
            this.add_volume(api::volumes::volume_name(claim));
        });
        let this = Arc::clone(self);
        informers.volumes.on_change(move |key, change| {
            let (Change::Added(volume)
            | Change::Deleted(volume)
            | Change::Updated { new: volume, .. }) = change;
            if CsiVolume::of(volume).is_some() {
                this.volumes.add(key.clone());
            }
        });
        let this = Arc::clone(self);
        informers.csi_drivers.on_change(move |key, _| {
            for volume in this.ctx.informers.volumes.list() {
                if CsiVolume::of(&volume).is_some_and(|csi| csi.driver == key.name) {
                    this.add_volume(volume.metadata.name.as_deref().unwrap_or_default());
                }
            }
        });
    }

    fn follow_pods(self: &Arc<Self>) {
        let this = Arc::clone(self);
        self.ctx.informers.pods.on_change(move |_, change| {
            if let Change::Updated { old, new } = &change
                && old.node == new.node
                && old.is_stopped() == new.is_stopped()
            {
                return;
            }
            let (Change::Added(pod) | Change::Deleted(pod) | Change::Updated { new: pod, .. }) =
                change;
            this.add_volumes_of(pod);
        });
    }

    fn add_volumes_of(&self, pod: &PodView) {
        if pod.node.is_empty() {
            return;
        }
        for claim in &pod.claims {
            let key = ObjectKey::new(&pod.key.namespace, claim);
            if let Some(claim) = self.ctx.informers.claims.get(&key) {
                self.add_volume(api::volumes::volume_name(&claim));
            }
        }
    }

    fn add_volume(&self, name: &str) {
        if !name.is_empty() {
            self.volumes.add(ObjectKey::cluster(name));
        }
    }

    fn follow_attachments(self: &Arc<Self>) {
        let this = Arc::clone(self);
        self.ctx.informers.attachments.on_change(move |_, change| {
            this.operations.follow(&change);
            if let Change::Updated { old, new } = &change {
                this.tell_outcome(old, new);
            }
            let is_gone = matches!(change, Change::Deleted(_));
            let (Change::Added(attachment)
            | Change::Deleted(attachment)
            | Change::Updated { new: attachment, .. }) = change;
            let node = &attachment.spec.node_name;
            if is_gone {
                let mut state = this.state();
                state.unneeded.remove(&(volume_of(attachment).to_owned(), node.clone()));
                let mut rest = this.ctx.informers.attachments.list().into_iter();
                if rest.all(|other| other.spec.node_name != *node) {
                    state.gone.remove(node);
                }
            }
            this.add_volume(volume_of(attachment));
            this.nodes.add(ObjectKey::cluster(node));
        });
    }

    fn follow_nodes(self: &Arc<Self>) {
        let this = Arc::clone(self);
        self.ctx.informers.nodes.on_change(move |key, change| {
            match &change {
                Change::Updated { old, new } if NodeView::of(old) == NodeView::of(new) => return,
                Change::Deleted(node) => {
                    drop(this.state().gone.insert(key.name.clone(), NodeView::of(node)));
                }
                Change::Added(_) => drop(this.state().gone.remove(&key.name)),
                Change::Updated { .. } => {}
            }
            this.nodes.add(key.clone());
            for pod in this.ctx.informers.pod_index.on_node(&key.name) {
                this.add_volumes_of(&pod);
            }
            for attachment in this.ctx.informers.attachments.list() {
                if attachment.spec.node_name == key.name {
                    this.add_volume(volume_of(&attachment));
                }
            }
        });
    }

    /// Tells the pods of an attachment what became of it.
    fn tell_outcome(&self, old: &VolumeAttachment, new: &VolumeAttachment) {
        let name = volume_of(new);
        let (kind, reason, text) = if is_attached(new) && !is_attached(old) {
            let text = format!("AttachVolume.Attach succeeded for volume {name:?} ");
            (EventType::Normal, "SuccessfulAttachVolume", text)
        } else if let Some(error) = csi::errors(new).filter(|error| csi::errors(old) != Some(error))
        {
            let text = format!("AttachVolume.Attach failed for volume {name:?} : {error}");
            (EventType::Warning, "FailedAttachVolume", text)
        } else {
            return;
        };
        let Some(volume) = self.ctx.informers.volumes.get(&ObjectKey::cluster(name)) else {
            return;
        };
        let wanted = self.wanted(&volume);
        let pods = wanted.get(&new.spec.node_name).into_iter().flatten();
        pods.for_each(|pod| self.recorder.record(&pod.regarding(), kind, reason, text.clone()));
    }
}
