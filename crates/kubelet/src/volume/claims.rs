//! From a claim to the volume that it is bound to.
//!
//! The rules and texts are upstream's `desired_state_of_world_populator.go`. A node may read the
//! claims and volumes of its pods one by one, but not watch them, so they are asked for anew until
//! the claim is bound.

use client::{Client, ClientError};
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod, Volume,
};

use crate::pod::spec;

/// A volume of a pod that is a persistent one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claimed {
    /// The name of the PersistentVolume.
    pub(crate) name: String,
    /// What it is.
    pub(crate) spec: PersistentVolumeSpec,
    /// No container may write to it.
    pub(crate) read_only: bool,
}

impl Claimed {
    /// Whether containers get a device instead of files.
    pub(crate) fn is_block(&self) -> bool {
        self.spec.volume_mode.as_deref() == Some("Block")
    }

    /// Whether only one pod may use it.
    pub(crate) fn is_for_one_pod(&self) -> bool {
        self.spec.access_modes.iter().flatten().any(|mode| mode == "ReadWriteOncePod")
    }
}

/// The claim that a volume of a pod uses: its name, whether the pod must own it, and whether it is
/// only read.
pub(crate) fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), false, source.read_only == Some(true)));
    }
    volume.ephemeral.as_ref()?;
    Some((format!("{}-{}", spec::name(pod), volume.name), true, false))
}

/// The persistent volume of a claim; the error is the end of a `FailedMount` event.
pub(crate) async fn resolve(
    client: &Client,
    pod: &Pod,
    volume: &Volume,
    (claim, owned, read_only): (&str, bool, bool),
) -> Result<Claimed, String> {
    let namespace = spec::namespace(pod);
    let wrong = |why: String| format!("error processing PVC {namespace}/{claim}: {why}");
    let failed = |error: ClientError| {
        format!("failed to fetch PVC from API server: {}", telemetry::Chain(&error))
    };
    let found: PersistentVolumeClaim =
        client.api(namespace).get(claim).await.map_err(failed).map_err(wrong)?;
    if owned && !is_owned(&found, pod) {
        return Err(format!(
            "PVC {namespace}/{claim} was not created for pod {namespace}/{} (pod is not owner)",
            spec::name(pod)
        ));
    }
    if found.metadata.deletion_timestamp.is_some() {
        return Err(wrong("PVC is being deleted".to_owned()));
    }
    let phase = found.status.as_ref().and_then(|status| status.phase.as_deref());
    let name = found.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    if phase != Some("Bound") || name.is_empty() {
        return Err(wrong(format!(
            "PVC {namespace}/{claim} has non-bound phase ({:?}) or empty pvc.Spec.VolumeName \
             ({name:?})",
            phase.unwrap_or_default()
        )));
    }
    let pv = fetch(client, &name, found.metadata.uid.as_deref().unwrap_or_default()).await?;
    let claimed = Claimed { name, spec: pv, read_only };
    check_use(pod, volume, &claimed)?;
    Ok(claimed)
}

async fn fetch(client: &Client, name: &str, uid: &str) -> Result<PersistentVolumeSpec, String> {
    let failed = |error: ClientError| {
        format!("failed to fetch PV {name:?} from API server: {}", telemetry::Chain(&error))
    };
    let pv: PersistentVolume = client.api("").get(name).await.map_err(failed)?;
    let spec = pv.spec.unwrap_or_default();
    let Some(bound) = &spec.claim_ref else {
        return Err(format!(
            "found PV object {name:?} with nil pv.Spec.ClaimRef indicating it is not yet bound to \
             the claim"
        ));
    };
    let other = bound.uid.as_deref().unwrap_or_default();
    if other != uid {
        return Err(format!(
            "found PV object {name:?} with a pv.Spec.ClaimRef.UID {other:?} that does not point to \
             claim.UID {uid:?}"
        ));
    }
    Ok(spec)
}

fn is_owned(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == spec::uid(pod))
}

/// Files are mounted and devices are not.
fn check_use(pod: &Pod, volume: &Volume, claimed: &Claimed) -> Result<(), String> {
    let name = &volume.name;
    let containers = spec::init_containers(pod).iter().chain(&spec::spec(pod).containers);
    for container in containers {
        let mounted = container.volume_mounts.iter().flatten().any(|mount| mount.name == *name);
        let device = container.volume_devices.iter().flatten().any(|d| d.name == *name);
        if claimed.is_block() && mounted {
            return Err(format!(
                "volume {name} has volumeMode Block, but is specified in volumeMounts"
            ));
        }
        if !claimed.is_block() && device {
            return Err(format!(
                "volume {name} has volumeMode Filesystem, but is specified in volumeDevices"
            ));
        }
    }
    Ok(())
}
