//! Storage: classes, and a driver from elsewhere that makes volumes and attaches them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::nodes::text;
use crate::world::World;

/// The class of claims that name none: directories of nodes, chosen with the pod.
pub(crate) const DEFAULT_CLASS: &str = "local";
/// All classes: of directories, of volumes that are made at once, and of such that stay.
pub(crate) const CLASSES: [&str; 3] = [DEFAULT_CLASS, "remote", "kept"];
/// Who makes the volumes of the latter two.
const PROVISIONER: &str = "remote.example.com";

/// What is played.
pub(crate) struct Storage {
    world: Arc<World>,
}

impl Storage {
    /// Makes the classes.
    pub(crate) fn start(world: &Arc<World>) -> Self {
        let classes = [
            ("ironclad/local-path", "WaitForFirstConsumer", "Delete"),
            (PROVISIONER, "Immediate", "Delete"),
            (PROVISIONER, "Immediate", "Retain"),
        ];
        for (name, (provisioner, mode, policy)) in CLASSES.iter().zip(classes) {
            let class = json!({ "metadata": { "name": name }, "provisioner": provisioner,
                "volumeBindingMode": mode, "reclaimPolicy": policy });
            world.write("user", "POST", "/apis/storage.k8s.io/v1/storageclasses", &class).ok();
        }
        let driver = json!({ "metadata": { "name": PROVISIONER }, "spec": {} });
        world.write("user", "POST", "/apis/storage.k8s.io/v1/csidrivers", &driver).ok();
        Self { world: Arc::clone(world) }
    }

    /// What the provisioner does at a time, with a chance in thousandths for each of its volumes.
    pub(crate) fn look(&self, works: u64) {
        let (claims, volumes) = {
            let api = self.world.api();
            let claims: Vec<Value> =
                api.all("/persistentvolumeclaims").filter(|one| is_asked(one)).cloned().collect();
            let volumes: Vec<Value> =
                api.all("/persistentvolumes").filter(|one| is_over(one)).cloned().collect();
            (claims, volumes)
        };
        self.attach(works);
        for claim in claims {
            if self.world.dice().chance(works) {
                self.make(&claim);
            }
        }
        for volume in volumes {
            if self.world.dice().chance(works) {
                let path =
                    format!("/api/v1/persistentvolumes/{}", text(&volume["metadata"]["name"]));
                self.world.write("provisioner", "DELETE", &path, &json!({})).ok();
            }
        }
    }

    fn attach(&self, works: u64) {
        let waits = |one: &&Value| {
            one["status"]["attached"] != true && one["metadata"]["deletionTimestamp"].is_null()
        };
        let waiting: Vec<Value> = {
            let api = self.world.api();
            api.all("storage.k8s.io/volumeattachments").filter(waits).cloned().collect()
        };
        for one in waiting {
            if self.world.dice().chance(works) {
                let name = text(&one["metadata"]["name"]);
                let path = format!("/apis/storage.k8s.io/v1/volumeattachments/{name}/status");
                let status = json!({ "status": { "attached": true } });
                self.world.write("attacher", "MERGE", &path, &status).ok();
            }
        }
    }

    fn make(&self, claim: &Value) {
        let (meta, spec) = (&claim["metadata"], &claim["spec"]);
        let policy = if spec["storageClassName"] == "kept" { "Retain" } else { "Delete" };
        let name = format!("pvc-{}", text(&meta["uid"]));
        let volume = json!({
            "metadata": { "name": name,
                "annotations": { "pv.kubernetes.io/provisioned-by": PROVISIONER } },
            "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": policy,
                "storageClassName": spec["storageClassName"],
                "csi": { "driver": PROVISIONER, "volumeHandle": name },
                "claimRef": { "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"] } } });
        let made = self.world.write("provisioner", "POST", "/api/v1/persistentvolumes", &volume);
        if let Err(status) = made {
            self.world.trace(&format!("the volume {name} is refused: {}", status.message));
        }
    }
}

/// Whether a claim waits for a volume of this provisioner.
fn is_asked(claim: &Value) -> bool {
    let meta = &claim["metadata"];
    text(&claim["spec"]["volumeName"]).is_empty()
        && meta["deletionTimestamp"].is_null()
        && meta["annotations"]["volume.kubernetes.io/storage-provisioner"] == PROVISIONER
}

/// Whether a volume of this provisioner is no longer needed.
fn is_over(volume: &Value) -> bool {
    let meta = &volume["metadata"];
    meta["annotations"]["pv.kubernetes.io/provisioned-by"] == PROVISIONER
        && meta["deletionTimestamp"].is_null()
        && volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        && volume["status"]["phase"] == "Released"
}

/// The claims that a pod uses, by name.
pub(crate) fn claims_of(pod: &Value) -> impl Iterator<Item = String> + '_ {
    let name = text(&pod["metadata"]["name"]);
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(move |volume| {
        if volume["ephemeral"].is_object() {
            return Some(format!("{name}-{}", text(&volume["name"])));
        }
        volume["persistentVolumeClaim"]["claimName"].as_str().map(str::to_owned)
    })
}
