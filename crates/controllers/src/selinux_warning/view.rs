//! What is read of pods and volumes.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::Regarding;
use k8s_openapi::api::core::v1::{
    PersistentVolume, Pod, PodSpec, SELinuxOptions, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::api::storage::v1::CSIDriver;

/// The labels with which a pod uses its volumes.
#[derive(Clone, Debug)]
pub(super) struct PodLabels {
    pub(super) regarding: Regarding,
    pub(super) is_over: bool,
    pub(super) policy: Option<String>,
    pub(super) volumes: Vec<Labelled>,
}

impl PartialEq for PodLabels {
    /// Nothing else of it changes as long as it is the same pod.
    fn eq(&self, other: &Self) -> bool {
        self.regarding.uid == other.regarding.uid && self.is_over == other.is_over
    }
}

/// A volume that containers of the pod mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Labelled {
    /// They do it with different labels.
    Twice { name: String },
    /// It is a claim's; the label may be empty.
    Claim { claim: String, label: String },
}

impl PodLabels {
    /// Reads a pod.
    pub(super) fn of(pod: &Pod) -> Self {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let context = spec.and_then(|spec| spec.security_context.as_ref());
        Self {
            regarding: Regarding::object(pod),
            is_over: matches!(phase, Some("Succeeded" | "Failed")),
            policy: context.and_then(|context| context.se_linux_change_policy.clone()),
            volumes: spec.map(|spec| volumes(spec, name)).unwrap_or_default(),
        }
    }
}

fn volumes(spec: &PodSpec, pod: &str) -> Vec<Labelled> {
    let labelled = |volume: &Volume| {
        let labels = labels(spec, &volume.name)?;
        if labels.len() > 1 {
            return Some(Labelled::Twice { name: volume.name.clone() });
        }
        let claim = match &volume.persistent_volume_claim {
            Some(source) => source.claim_name.clone(),
            None => volume.ephemeral.as_ref().map(|_| format!("{pod}-{}", volume.name))?,
        };
        Some(Labelled::Claim { claim, label: labels.into_iter().next().unwrap_or_default() })
    };
    spec.volumes.iter().flatten().filter_map(labelled).collect()
}

/// The labels of the containers that mount a volume; `None` when no container does.
fn labels(spec: &PodSpec, volume: &str) -> Option<BTreeSet<String>> {
    let of_pod = spec.security_context.as_ref().and_then(|all| all.se_linux_options.as_ref());
    let mut labels = None;
    let mut note = |mounts: Option<&Vec<VolumeMount>>, context: Option<&SecurityContext>| {
        if mounts.into_iter().flatten().any(|mount| mount.name == volume) {
            let own = context.and_then(|context| context.se_linux_options.as_ref());
            let labels: &mut BTreeSet<String> = labels.get_or_insert_default();
            labels.extend(own.or(of_pod).map(label));
        }
    };
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        note(container.volume_mounts.as_ref(), container.security_context.as_ref());
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        note(container.volume_mounts.as_ref(), container.security_context.as_ref());
    }
    labels
}

/// What is said of a label; the node completes it.
fn label(options: &SELinuxOptions) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let parts = [&options.user, &options.role, &options.type_, &options.level].map(part);
    if parts.iter().all(String::is_empty) { String::new() } else { parts.join(":") }
}

/// A volume that pods may share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VolumeView {
    /// The same for two volumes that are one.
    pub(super) id: String,
    /// Its driver, if it has one.
    pub(super) driver: String,
    /// Whether it can be mounted with a label.
    pub(super) takes_labels: bool,
}

impl VolumeView {
    /// Reads a volume, with what its driver says of itself.
    pub(super) fn of(
        volume: &PersistentVolume,
        driver: impl Fn(&str) -> Option<Arc<CSIDriver>>,
    ) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        if let Some(csi) = &spec.csi {
            let mounts = driver(&csi.driver).and_then(|driver| driver.spec.se_linux_mount);
            return Some(Self {
                id: format!("kubernetes.io/csi/{}^{}", csi.driver, csi.volume_handle),
                driver: csi.driver.clone(),
                takes_labels: mounts == Some(true),
            });
        }
        Some(Self {
            id: volume.metadata.name.clone()?,
            driver: String::new(),
            takes_labels: spec.iscsi.is_some() || spec.fc.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> PodLabels {
        let pod = json!({ "metadata": { "name": "p", "namespace": "n" }, "spec": spec });
        PodLabels::of(&serde_json::from_value(pod).unwrap())
    }

    fn container(volume: &str, options: Value) -> Value {
        json!({ "name": "c", "volumeMounts": [{ "name": volume, "mountPath": "/v" }],
            "securityContext": { "seLinuxOptions": options } })
    }

    #[test]
    fn a_containers_label_counts_before_the_pods() {
        let of_pod = json!({ "seLinuxOptions": { "level": "s0" },
            "seLinuxChangePolicy": "Recursive" });
        let volumes = json!([
            { "name": "v", "persistentVolumeClaim": { "claimName": "c" } },
            { "name": "own", "ephemeral": {} },
            { "name": "unused", "persistentVolumeClaim": { "claimName": "d" } },
            { "name": "dir", "emptyDir": {} }]);
        let pod = read(json!({ "securityContext": of_pod, "volumes": volumes,
            "containers": [container("v", json!({ "user": "u", "type": "t" })),
                container("dir", Value::Null)],
            "initContainers": [container("own", Value::Null)] }));
        assert_eq!(pod.policy.as_deref(), Some("Recursive"));
        let claim = |claim: &str, label: &str| Labelled::Claim {
            claim: claim.to_owned(),
            label: label.to_owned(),
        };
        assert_eq!(pod.volumes, [claim("c", "u::t:"), claim("p-own", ":::s0")]);
    }

    #[test]
    fn a_volume_that_is_mounted_with_two_labels_is_told() {
        let volumes = json!([{ "name": "dir", "emptyDir": {} },
            { "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]);
        let one = |volume| container(volume, json!({ "level": "s0:c1" }));
        let two = |volume| container(volume, json!({ "level": "s0:c2" }));
        // Who says nothing is in nobody's way.
        let pod = read(json!({ "volumes": volumes, "containers": [
            one("dir"), two("dir"), one("v"), container("v", Value::Null)] }));
        let claim = Labelled::Claim { claim: "c".to_owned(), label: ":::s0:c1".to_owned() };
        assert_eq!(pod.volumes, [Labelled::Twice { name: "dir".to_owned() }, claim]);
    }

    #[test]
    fn a_driver_says_whether_its_volumes_take_labels() {
        let volume = |spec: Value| -> PersistentVolume {
            let volume = json!({ "metadata": { "name": "v" }, "spec": spec });
            serde_json::from_value(volume).unwrap()
        };
        let driver = |mounts: Value| -> Arc<CSIDriver> {
            Arc::new(serde_json::from_value(json!({ "spec": { "seLinuxMount": mounts } })).unwrap())
        };
        let csi = volume(json!({ "csi": { "driver": "d", "volumeHandle": "h" } }));
        let takes = |mounts: Value| {
            let view = VolumeView::of(&csi, |_| Some(driver(mounts.clone()))).unwrap();
            assert_eq!((view.id.as_str(), view.driver.as_str()), ("kubernetes.io/csi/d^h", "d"));
            view.takes_labels
        };
        assert!(takes(json!(true)) && !takes(json!(false)) && !takes(Value::Null));
        assert!(!VolumeView::of(&csi, |_| None).unwrap().takes_labels);
        let of = |spec: Value| VolumeView::of(&volume(spec), |_| None).unwrap().takes_labels;
        assert!(of(json!({ "fc": {} })) && !of(json!({ "hostPath": { "path": "/x" } })));
    }
}
