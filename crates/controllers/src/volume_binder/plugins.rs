//! Which of the plugins that are part of the controllers make, delete and scrub volumes. There are
//! two: `kubernetes.io/host-path` does all of it, `kubernetes.io/nfs` scrubs.
//!
//! Upstream: `findProvisionablePlugin` and `findDeletablePlugin` in
//! `pkg/controller/volume/persistentvolume/pv_controller.go`, over those plugins of
//! `cmd/kube-controller-manager/app/plugins.go` that can do something of it.

use api::volumes::{self, annotation};
use k8s_openapi::api::core::v1::PersistentVolume;

/// The plugin for directories of the host.
pub(super) const HOST_PATH: &str = "kubernetes.io/host-path";

/// Scrubs volumes, and nothing else.
const NFS: &str = "kubernetes.io/nfs";

/// Provisioners of upstream's own whose work drivers do now.
const MIGRATED: [&str; 7] = [
    "kubernetes.io/aws-ebs",
    "kubernetes.io/azure-disk",
    "kubernetes.io/azure-file",
    "kubernetes.io/cinder",
    "kubernetes.io/gce-pd",
    "kubernetes.io/portworx-volume",
    "kubernetes.io/vsphere-volume",
];

/// Who makes or deletes a volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Worker {
    /// Somebody outside.
    External,
    /// [`HOST_PATH`].
    HostPath,
    /// Nobody; why.
    Nobody(String),
}

/// Whether a provisioner of this name is not one of upstream's own, or not any more.
pub(super) fn is_external(name: &str) -> bool {
    !name.starts_with("kubernetes.io/") || MIGRATED.contains(&name)
}

/// Who makes the volumes of a provisioner.
pub(super) fn provisioner(name: &str) -> Worker {
    by_name(name, "no provisionable volume plugin matched")
}

/// Who deletes a volume: whoever made it, or else whoever knows what it is made of.
pub(super) fn deleter(volume: &PersistentVolume) -> Worker {
    let annotations = volume.metadata.annotations.as_ref();
    let by = annotation(annotations, volumes::PROVISIONED_BY).filter(|by| !by.is_empty());
    if let Some(by) = by {
        return by_name(by, "no deletable volume plugin matched");
    }
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let nobody = |why: &str| {
        let text = format!("error getting deleter volume plugin for volume {name:?}: {why}");
        Worker::Nobody(text)
    };
    match &volume.spec {
        _ if annotation(annotations, volumes::MIGRATED_TO).is_some() => Worker::External,
        Some(spec) if spec.csi.is_some() => Worker::External,
        Some(spec) if spec.host_path.is_some() => Worker::HostPath,
        Some(spec) if spec.nfs.is_some() => nobody("no deletable volume plugin matched"),
        _ => nobody("no volume plugin matched"),
    }
}

fn by_name(name: &str, incapable: &str) -> Worker {
    match name {
        HOST_PATH => Worker::HostPath,
        NFS => Worker::Nobody(incapable.to_owned()),
        name if is_external(name) => Worker::External,
        name => Worker::Nobody(format!("no volume plugin matched name: {name}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn provisioners_of_upstreams_own_are_here_or_nowhere() {
        let nobody = |text: &str| Worker::Nobody(text.to_owned());
        assert_eq!(provisioner("csi.example.com"), Worker::External);
        assert_eq!(provisioner("kubernetes.io/aws-ebs"), Worker::External);
        assert_eq!(provisioner(HOST_PATH), Worker::HostPath);
        assert_eq!(provisioner(NFS), nobody("no provisionable volume plugin matched"));
        let none = "kubernetes.io/no-provisioner";
        assert_eq!(provisioner(none), nobody(&format!("no volume plugin matched name: {none}")));
    }

    #[test]
    fn a_volume_is_deleted_by_its_maker_or_by_who_knows_what_it_is() {
        let deleter = |annotations: Value, spec: Value| {
            let metadata = json!({ "name": "v", "annotations": annotations });
            deleter(&serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap())
        };
        let directory = || json!({ "hostPath": { "path": "/x" } });
        let by = |name: &str| json!({ volumes::PROVISIONED_BY: name });
        assert_eq!(deleter(json!({}), directory()), Worker::HostPath);
        assert_eq!(deleter(by("csi.example.com"), directory()), Worker::External);
        assert_eq!(deleter(by(""), directory()), Worker::HostPath);
        let migrated = json!({ volumes::MIGRATED_TO: "ebs.csi.aws.com" });
        assert_eq!(deleter(migrated, json!({})), Worker::External);
        let driver = json!({ "csi": { "driver": "d", "volumeHandle": "h" } });
        assert_eq!(deleter(json!({}), driver), Worker::External);
        let why = |annotations: Value, spec: Value| match deleter(annotations, spec) {
            Worker::Nobody(why) => why,
            other => panic!("{other:?}"),
        };
        let share = || json!({ "nfs": { "server": "s", "path": "/x" } });
        let getting = "error getting deleter volume plugin for volume \"v\"";
        let text = format!("{getting}: no deletable volume plugin matched");
        assert_eq!(why(json!({}), share()), text);
        assert_eq!(why(by(NFS), share()), "no deletable volume plugin matched");
        let local = json!({ "local": { "path": "/x" } });
        assert_eq!(why(json!({}), local), format!("{getting}: no volume plugin matched"));
    }
}
