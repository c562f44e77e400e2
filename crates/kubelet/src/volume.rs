//! The volumes of pods.
//!
//! Setting a pod's volumes up is idempotent and is also how they are kept up to date: the files of
//! configMap, secret, downwardAPI and projected volumes are written anew when they changed.

mod atomic_writer;
mod claims;
mod host_path;
pub(crate) mod mounts;
pub(crate) mod objects;
mod ownership;
mod payload;
mod persistent;
mod pod_certificates;
mod tokens;
mod trust_bundles;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use client::Client;
use clock::SharedClock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, EmptyDirVolumeSource, Node, Pod, Secret, Volume};
use stdx::shutdown::Shutdown;

use crate::kubelet::lock;
use crate::pod::fields::Surroundings;
use crate::pod::pod_resources;
use crate::pod::qos;
use crate::pod::spec;
use crate::pod::users::Users;
use claims::Claimed;
use mounts::Mounts;
use objects::{Objects, Wake};
use payload::{Files, Owner, Selection, Sources};
use persistent::Found;
use pod_certificates::PodCertificates;
use tokens::Tokens;
use trust_bundles::TrustBundles;

/// Volumes could not be set up. What it prints is the text of a `FailedMount` event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// One of the pod's own.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {message}")]
    SetUp { volume: String, message: String },
    /// A persistent one.
    #[error("{0}")]
    Persistent(String),
    /// Claims are not bound, or cannot be read. Nobody tells the node when that changes.
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{names}], unattached volumes=[], \
         failed to process volumes=[{names}]: {why}",
        names = volumes.join(" ")
    )]
    Claims { volumes: Vec<String>, why: String },
}

/// A pod's volumes, ready for its containers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounted {
    /// Where each volume is on the node.
    pub(crate) paths: BTreeMap<String, PathBuf>,
    /// Those that containers get as devices.
    pub(crate) devices: BTreeMap<String, PathBuf>,
    /// Those of which the pod says that nobody writes to them.
    pub(crate) read_only: BTreeSet<String>,
    /// When the volumes must be set up again, for tokens that end.
    pub(crate) refresh_at: Option<Timestamp>,
}

/// The volumes of all pods of the node.
pub(crate) struct Volumes {
    pods_dir: PathBuf,
    clock: SharedClock,
    pub(crate) config_maps: Objects<ConfigMap>,
    pub(crate) secrets: Objects<Secret>,
    tokens: Tokens,
    bundles: TrustBundles,
    certificates: PodCertificates,
    client: Client,
    pub(crate) mounts: Arc<dyn Mounts>,
    /// Persistent volumes of pods, by uid and name of the volume in the pod.
    claimed: Mutex<BTreeMap<(String, String), Claimed>>,
    /// Who the users of pods are on the node, which is noted in their directories.
    pub(crate) users: Users,
}

impl Volumes {
    /// Volumes below `root_dir`; `wake` is told the uid of a pod whose objects changed.
    pub(crate) fn new(
        root_dir: &Path,
        client: &Client,
        clock: &SharedClock,
        shutdown: &Shutdown,
        mounts: Arc<dyn Mounts>,
        wake: &Wake,
    ) -> Self {
        let (client, clock) = (client.clone(), Arc::clone(clock));
        let stop = shutdown.clone();
        let bundles =
            TrustBundles::new(client.clone(), Arc::clone(&clock), stop.clone(), Arc::clone(wake));
        Self {
            bundles,
            certificates: PodCertificates::new(client.clone(), Arc::clone(&clock)),
            pods_dir: root_dir.join("pods"),
            users: Users::new(root_dir.join("pods")),
            config_maps: Objects::new(
                client.clone(),
                Arc::clone(&clock),
                stop.clone(),
                Arc::clone(wake),
            ),
            secrets: Objects::new(client.clone(), Arc::clone(&clock), stop, Arc::clone(wake)),
            tokens: Tokens::new(client.clone(), Arc::clone(&clock)),
            client,
            clock,
            mounts,
            claimed: Mutex::default(),
        }
    }

    /// The directory of a pod.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir.join(uid)
    }

    /// The uids of all pods that have a directory.
    pub(crate) fn pods_with_directories(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.pods_dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Sets all volumes of the pod up, or brings them up to date.
    pub(crate) async fn set_up(
        &self,
        pod: &Pod,
        node: Option<&Node>,
        around: &Surroundings<'_>,
    ) -> Result<Mounted, VolumeError> {
        let mut mounted = Mounted::default();
        let (mut unbound, mut why) = (Vec::new(), Vec::new());
        for volume in spec::spec(pod).volumes.iter().flatten() {
            let name = volume.name.clone();
            if let Some((claim, owned, read_only)) = claims::claim_of(pod, volume) {
                match self.claimed(pod, volume, (&claim, owned, read_only)).await {
                    Ok(claimed) => {
                        self.persistent(pod, node, &name, &claimed, &mut mounted).await?;
                    }
                    Err(error) => {
                        unbound.push(name);
                        why.push(error);
                    }
                }
                continue;
            }
            let done = self.set_up_one(pod, node, volume, around).await;
            let (path, refresh_at) =
                done.map_err(|message| VolumeError::SetUp { volume: name.clone(), message })?;
            if let Some(path) = path {
                mounted.paths.insert(name, path);
            }
            mounted.refresh_at = mounted.refresh_at.into_iter().chain(refresh_at).min();
        }
        if unbound.is_empty() {
            return Ok(mounted);
        }
        Err(VolumeError::Claims { volumes: unbound, why: why.join("; ") })
    }

    /// The persistent volume of a claim, which stays the same for the pod's whole life.
    async fn claimed(
        &self,
        pod: &Pod,
        volume: &Volume,
        claim: (&str, bool, bool),
    ) -> Result<Claimed, String> {
        let key = (spec::uid(pod).to_owned(), volume.name.clone());
        if let Some(known) = lock(&self.claimed).get(&key).cloned() {
            return Ok(known);
        }
        claims::resolve(&self.client, pod, volume, claim).await
    }

    async fn persistent(
        &self,
        pod: &Pod,
        node: Option<&Node>,
        name: &str,
        claimed: &Claimed,
        mounted: &mut Mounted,
    ) -> Result<(), VolumeError> {
        let key = (spec::uid(pod).to_owned(), name.to_owned());
        self.reserve(&key, claimed)?;
        let found = persistent::set_up(pod, claimed, node).await.map_err(|why| {
            // What is wrong with it may be mended.
            lock(&self.claimed).remove(&key);
            VolumeError::Persistent(why)
        })?;
        match found {
            Found::Directory(path) => mounted.paths.insert(name.to_owned(), path),
            Found::Device(path) => mounted.devices.insert(name.to_owned(), path),
        };
        if claimed.read_only {
            mounted.read_only.insert(name.to_owned());
        }
        Ok(())
    }

    /// Notes that a pod uses a volume, which may be one for a single pod.
    fn reserve(&self, key: &(String, String), claimed: &Claimed) -> Result<(), VolumeError> {
        let mut used = lock(&self.claimed);
        let by_another =
            used.iter().any(|((uid, _), other)| *uid != key.0 && other.name == claimed.name);
        if claimed.is_for_one_pod() && by_another {
            return Err(VolumeError::SetUp {
                volume: claimed.name.clone(),
                message: "volume uses the ReadWriteOncePod access mode and is already in use by \
                          another pod"
                    .to_owned(),
            });
        }
        used.insert(key.clone(), claimed.clone());
        Ok(())
    }

    /// Takes the pod's volumes back, and its directory.
    pub(crate) fn tear_down(&self, uid: &str) -> io::Result<()> {
        self.config_maps.release(uid);
        self.secrets.release(uid);
        self.tokens.release(uid);
        self.bundles.release(uid);
        self.certificates.release(uid);
        lock(&self.claimed).retain(|(user, _), _| user != uid);
        let directory = self.pod_dir(uid);
        // What is mounted there is not the pod's to remove.
        self.mounts.unmount_all(&directory)?;
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.users.release(uid);
        Ok(())
    }

    async fn set_up_one(
        &self,
        pod: &Pod,
        node: Option<&Node>,
        volume: &Volume,
        around: &Surroundings<'_>,
    ) -> Result<(Option<PathBuf>, Option<Timestamp>), String> {
        let sources = Sources {
            config_maps: &self.config_maps,
            secrets: &self.secrets,
            tokens: &self.tokens,
            bundles: &self.bundles,
            certificates: &self.certificates,
            node,
            around,
        };
        let owner = owner(pod);
        if let Some(host) = &volume.host_path {
            let path = PathBuf::from(&host.path);
            host_path::check(&path, host.type_.as_deref().unwrap_or_default())?;
            return Ok((Some(path), None));
        }
        if let Some(empty) = &volume.empty_dir {
            let node = around.allocatable.get("memory").copied().unwrap_or(0);
            return Ok((Some(self.empty_dir(pod, &volume.name, (empty, node), owner)?), None));
        }
        if volume.image.is_some() {
            // The runtime mounts the image itself.
            return Ok((None, None));
        }
        let (plugin, memory, files) = files(&sources, pod, volume, owner).await?;
        let path = self.directory(pod, plugin, &volume.name)?;
        if memory {
            self.mounts.memory(&path, 0).map_err(|error| format!("mount failed: {error}"))?;
        }
        atomic_writer::write(&path, &files.payload, owner.group, self.clock.now())
            .map_err(|error| error.to_string())?;
        Ok((Some(path), files.refresh_at))
    }

    fn empty_dir(
        &self,
        pod: &Pod,
        name: &str,
        (source, node): (&EmptyDirVolumeSource, i64),
        owner: Owner,
    ) -> Result<PathBuf, String> {
        let path = self.directory(pod, "empty-dir", name)?;
        match source.medium.as_deref().unwrap_or_default() {
            "" => {}
            "Memory" => {
                let bytes = memory_bytes(pod, source, node);
                let mounted = self.mounts.memory(&path, bytes);
                mounted.map_err(|error| format!("mount failed: {error}"))?;
            }
            other => return Err(format!("unknown storage medium {other:?}")),
        }
        let bits = if owner.group.is_some() { 0o2777 } else { 0o777 };
        let set = || {
            if owner.group.is_some() {
                std::os::unix::fs::chown(&path, None, owner.group)?;
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(bits))
        };
        set().map_err(|error: io::Error| error.to_string())?;
        Ok(path)
    }

    fn directory(&self, pod: &Pod, plugin: &str, name: &str) -> Result<PathBuf, String> {
        let path = self
            .pod_dir(spec::uid(pod))
            .join("volumes")
            .join(format!("kubernetes.io~{plugin}"))
            .join(name);
        fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        Ok(path)
    }
}

/// The size of a volume in memory: what it may have, and no more than the pod or the node has.
fn memory_bytes(pod: &Pod, source: &EmptyDirVolumeSource, node: i64) -> u64 {
    let own = source.size_limit.as_ref().map(|limit| qos::parse(limit).value());
    let all = [Some(node), pod_resources::limit(pod, "memory"), own];
    let least = all.into_iter().flatten().filter(|bytes| *bytes > 0).min();
    u64::try_from(least.unwrap_or(0)).unwrap_or(0)
}

/// The plugin's name, whether its files are kept in memory, and the files.
async fn files(
    sources: &Sources<'_>,
    pod: &Pod,
    volume: &Volume,
    owner: Owner,
) -> Result<(&'static str, bool, Files), String> {
    let mut files = Files::default();
    if let Some(from) = &volume.config_map {
        let selection = Selection {
            name: &from.name,
            items: from.items.as_deref(),
            mode: from.default_mode,
            optional: from.optional == Some(true),
        };
        sources.config_map(pod, &selection, &mut files.payload).await?;
        return Ok(("configmap", false, files));
    }
    if let Some(from) = &volume.secret {
        let selection = Selection {
            name: from.secret_name.as_deref().unwrap_or_default(),
            items: from.items.as_deref(),
            mode: from.default_mode,
            optional: from.optional == Some(true),
        };
        sources.secret(pod, &selection, &mut files.payload).await?;
        return Ok(("secret", true, files));
    }
    if let Some(from) = &volume.downward_api {
        let items = from.items.as_deref().unwrap_or_default();
        sources.downward_api(pod, items, from.default_mode, &mut files.payload)?;
        return Ok(("downward-api", true, files));
    }
    if let Some(from) = &volume.projected {
        let list = from.sources.as_deref().unwrap_or_default();
        let volume = (volume.name.as_str(), from.default_mode);
        let files = sources.projected(pod, volume, list, owner).await?;
        return Ok(("projected", true, files));
    }
    Err("no volume plugin matched".to_owned())
}

fn owner(pod: &Pod) -> Owner {
    let number = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
    let context = spec::spec(pod).security_context.as_ref();
    let of_pod = context.and_then(|context| context.run_as_user);
    let mut users = spec::init_containers(pod)
        .iter()
        .chain(&spec::spec(pod).containers)
        .map(|c| c.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let first = users.next().flatten();
    let same = users.all(|user| user == first);
    Owner {
        user: number(first.filter(|_| same)),
        group: number(context.and_then(|context| context.fs_group)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_in_memory_is_no_larger_than_what_the_pod_may_use() {
        let pod = |limits: serde_json::Value| -> Pod {
            let container = json!({ "name": "c", "resources": { "limits": limits } });
            serde_json::from_value(json!({ "spec": { "containers": [container] } })).unwrap()
        };
        let source = |limit: Option<&str>| -> EmptyDirVolumeSource {
            serde_json::from_value(json!({ "medium": "Memory", "sizeLimit": limit })).unwrap()
        };
        let (plain, limited) = (pod(json!({})), pod(json!({ "memory": "4Mi" })));
        assert_eq!(memory_bytes(&plain, &source(None), 8 << 20), 8 << 20);
        assert_eq!(memory_bytes(&plain, &source(Some("1Mi")), 8 << 20), 1 << 20);
        assert_eq!(memory_bytes(&limited, &source(None), 8 << 20), 4 << 20);
        assert_eq!(memory_bytes(&limited, &source(Some("16Mi")), 8 << 20), 4 << 20);
    }
}
