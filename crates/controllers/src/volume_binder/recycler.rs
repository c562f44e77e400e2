//! The pure core of recycling: which pod scrubs a volume, and for how long it may.
//!
//! Upstream: `NewPersistentVolumeRecyclerPodTemplate` in `pkg/volume/plugins.go`, and `Recycle` of
//! `pkg/volume/hostpath` and `pkg/volume/nfs`.

use api::Typed;
use api::volumes;
use k8s_openapi::api::core::v1::{
    Container, HostPathVolumeSource, NFSVolumeSource, PersistentVolume, Pod, PodSpec, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schema::FieldValidation;

/// How volumes of one kind are scrubbed.
#[derive(Clone, Debug)]
pub struct Recycler {
    /// The pod that scrubs: what is mounted from its first volume. Its name, the source of that
    /// volume and its deadline come from the volume that is to be scrubbed.
    pub template: Pod,
    /// Seconds that it has at least.
    pub timeout_secs_min: i32,
    /// Seconds that it has for each whole GiB of the volume, when these are more.
    pub timeout_secs_per_gib: i32,
}

impl Recycler {
    /// Upstream's template, with these times.
    pub fn new(timeout_secs_min: i32, timeout_secs_per_gib: i32) -> Self {
        Self { template: template(), timeout_secs_min, timeout_secs_per_gib }
    }

    fn deadline_secs(&self, volume: &PersistentVolume) -> i64 {
        let gib = volumes::capacity(volume).value() >> 30;
        gib.saturating_mul(self.timeout_secs_per_gib.into()).max(self.timeout_secs_min.into())
    }
}

/// A file does not hold the template of a pod that scrubs volumes.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// There is nothing in it.
    #[error("file was empty")]
    Empty,
    /// It is not the pod of any version.
    #[error("failed decoding file: {0}")]
    Decode(String),
    /// There is nothing that the volume could stand in for.
    #[error("does not contain any volume(s)")]
    NoVolumes,
}

/// Reads a template, in YAML or JSON; what it does not say the API server makes of it later.
///
/// # Errors
/// [`TemplateError`].
pub fn read_template(bytes: &[u8]) -> Result<Pod, TemplateError> {
    if bytes.is_empty() {
        return Err(TemplateError::Empty);
    }
    let failed = |error: String| TemplateError::Decode(error);
    let gvk = meta::GroupVersionKind::new("", "v1", "Pod");
    let ty = schema::registry().kind(&gvk).ok_or_else(|| failed("no such kind".to_owned()))?;
    let decoded = schema::decode_yaml(ty, bytes, FieldValidation::Ignore);
    let pod = decoded.map_err(|error| failed(error.to_string()))?.value;
    let text = |field: &str| pod[field].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if (version, kind) != ("v1", "Pod") {
        let why = format!("no kind {kind:?} is registered for version {version:?}");
        return Err(failed(why));
    }
    let pod = Pod::from_json(pod.to_string().as_bytes());
    let pod = pod.map_err(|error| failed(error.to_string()))?;
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    match volumes {
        None | Some([]) => Err(TemplateError::NoVolumes),
        Some(_) => Ok(pod),
    }
}

/// The pod that scrubs a volume: `None` of one that nobody can.
pub(super) fn pod_for(
    volume: &PersistentVolume,
    host_path: &Recycler,
    nfs: &Recycler,
) -> Option<Pod> {
    let source = volume.spec.as_ref()?;
    let (recycler, source) = match (&source.host_path, &source.nfs) {
        (Some(directory), None) => {
            // Without its type: what is not there has nothing to be scrubbed from.
            let directory = HostPathVolumeSource { path: directory.path.clone(), type_: None };
            (host_path, Volume { host_path: Some(directory), ..Volume::default() })
        }
        (None, Some(share)) => {
            // To be written to, also where its pods may only read.
            let share = NFSVolumeSource {
                path: share.path.clone(),
                server: share.server.clone(),
                read_only: None,
            };
            (nfs, Volume { nfs: Some(share), ..Volume::default() })
        }
        _ => return None,
    };
    let mut pod = recycler.template.clone();
    pod.metadata.name = volume.metadata.name.as_ref().map(|name| format!("recycler-for-{name}"));
    pod.metadata.generate_name = None;
    let spec = pod.spec.get_or_insert_default();
    spec.active_deadline_seconds = Some(recycler.deadline_secs(volume));
    let first = spec.volumes.get_or_insert_default().first_mut()?;
    *first = Volume { name: std::mem::take(&mut first.name), ..source };
    Some(pod)
}

/// Deletes everything below where the volume is mounted, and fails when something is left.
const SCRUB: &str = "cd /scrub && find . -mindepth 1 -delete && ! ls -A | grep -q .";

fn template() -> Pod {
    let mount = VolumeMount {
        name: "vol".to_owned(),
        mount_path: "/scrub".to_owned(),
        ..VolumeMount::default()
    };
    let container = Container {
        name: "pv-recycler".to_owned(),
        image: Some("registry.k8s.io/build-image/debian-base:bookworm-v1.0.6".to_owned()),
        command: Some(vec!["/bin/sh".to_owned()]),
        args: Some(vec!["-c".to_owned(), SCRUB.to_owned()]),
        volume_mounts: Some(vec![mount]),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta { namespace: Some("default".to_owned()), ..ObjectMeta::default() },
        spec: Some(PodSpec {
            restart_policy: Some("Never".to_owned()),
            volumes: Some(vec![Volume { name: "vol".to_owned(), ..Volume::default() }]),
            containers: vec![container],
            ..PodSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(size: &str, source: &Value) -> PersistentVolume {
        let mut volume = json!({ "metadata": { "name": "v" },
            "spec": { "capacity": { "storage": size } } });
        volume["spec"].as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        serde_json::from_value(volume).unwrap()
    }

    fn pod(volume: &PersistentVolume) -> Option<Value> {
        let pod = pod_for(volume, &Recycler::new(60, 30), &Recycler::new(300, 30))?;
        Some(serde_json::to_value(pod).unwrap())
    }

    #[test]
    fn the_first_volume_of_the_template_is_the_one_that_is_scrubbed() {
        let directory = json!({ "hostPath": { "path": "/x", "type": "DirectoryOrCreate" } });
        let made = pod(&volume("10Gi", &directory)).unwrap();
        assert_eq!(made["metadata"], json!({ "name": "recycler-for-v", "namespace": "default" }));
        let spec = &made["spec"];
        assert_eq!(spec["volumes"], json!([{ "name": "vol", "hostPath": { "path": "/x" } }]));
        assert_eq!(spec["restartPolicy"], "Never");
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], "vol");
        let share = json!({ "nfs": { "server": "s", "path": "/x", "readOnly": true } });
        let made = pod(&volume("10Gi", &share)).unwrap();
        let source = json!([{ "name": "vol", "nfs": { "server": "s", "path": "/x" } }]);
        assert_eq!(made["spec"]["volumes"], source);
        assert_eq!(pod(&volume("10Gi", &json!({ "local": { "path": "/x" } }))), None);
    }

    #[test]
    fn a_large_volume_has_more_time() {
        let directory = json!({ "hostPath": { "path": "/x" } });
        let deadline = |size: &str| {
            let made = pod(&volume(size, &directory)).unwrap();
            made["spec"]["activeDeadlineSeconds"].as_i64().unwrap()
        };
        assert_eq!(deadline("1Mi"), 60);
        assert_eq!(deadline("2Gi"), 60);
        assert_eq!(deadline("3Gi"), 90);
        assert_eq!(deadline("4095Mi"), 90, "whole ones count");
        assert_eq!(deadline("100Gi"), 3000);
    }

    #[test]
    fn a_template_is_a_pod_with_a_volume() {
        let read = |text: &str| read_template(text.as_bytes()).map_err(|error| error.to_string());
        let pod =
            "apiVersion: v1\nkind: Pod\nmetadata: {namespace: mine}\nspec:\n  containers: []\n";
        let with = read(&format!("{pod}  volumes: [{{name: v}}]")).unwrap();
        assert_eq!(with.metadata.namespace.as_deref(), Some("mine"));
        let without = read(pod).unwrap_err();
        assert_eq!(without, "does not contain any volume(s)");
        assert_eq!(read("").unwrap_err(), "file was empty");
        let other = read("apiVersion: v1\nkind: Service").unwrap_err();
        assert!(other.starts_with("failed decoding file: "), "{other}");
        assert!(read("{").is_err());
    }
}
