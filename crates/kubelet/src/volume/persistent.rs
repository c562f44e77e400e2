//! Setting up a persistent volume: a path of the node, which `hostPath` and `local` volumes are, or
//! a directory of a file server.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Node, PersistentVolumeSpec, Pod};

use crate::pod::spec;
use crate::volume::claims::Claimed;
use crate::volume::host_path;
use crate::volume::mounts::Mounts;
use crate::volume::nfs;
use crate::volume::ownership::{self, ChangePolicy};

/// A volume as containers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Files.
    Directory(PathBuf),
    /// A block device.
    Device(PathBuf),
}

/// With what directories of file servers are mounted, and below what directory of the pod.
#[derive(Clone, Copy)]
pub(crate) struct Nfs<'a> {
    pub(crate) mounts: &'a dyn Mounts,
    pub(crate) helpers: &'a [PathBuf],
    pub(crate) directory: &'a Path,
}

/// Sets the volume up; the error is the text of a `FailedMount` event.
pub(crate) async fn set_up(
    pod: &Pod,
    claimed: &Claimed,
    node: Option<&Node>,
    nfs: Nfs<'_>,
) -> Result<Found, String> {
    let name = &claimed.name;
    if !is_on(&claimed.spec, node) {
        return Err(format!(
            "MountVolume.NodeAffinity check failed for volume {name:?} : no matching \
             NodeSelectorTerms"
        ));
    }
    let failed = |why: String| format!("MountVolume.SetUp failed for volume {name:?} : {why}");
    if let Some(host) = &claimed.spec.host_path {
        let path = PathBuf::from(&host.path);
        if claimed.is_block() {
            return device(&path).map_err(|why| unmappable(name, &why));
        }
        host_path::check(&path, host.type_.as_deref().unwrap_or_default()).map_err(failed)?;
        return Ok(Found::Directory(path));
    }
    if let Some(source) = &claimed.spec.nfs {
        let options = claimed.spec.mount_options.as_deref().unwrap_or_default();
        let target = nfs.directory.join(name);
        let share = nfs::Share { source, read_only: claimed.read_only, options, target };
        let mounted = nfs::mount(nfs.mounts, nfs.helpers, share).await;
        return mounted.map(Found::Directory).map_err(failed);
    }
    let Some(local) = &claimed.spec.local else {
        return Err(failed("no volume plugin matched".to_owned()));
    };
    let path = PathBuf::from(&local.path);
    if claimed.is_block() {
        return device(&path).map_err(|why| unmappable(name, &why));
    }
    let Ok(found) = fs::metadata(&path) else {
        return Err(format!(
            "MountVolume.NewMounter initialization failed for volume {name:?} : path {:?} does \
             not exist",
            local.path
        ));
    };
    if !found.is_dir() {
        return Err(failed(format!("local volume path {:?} is not a directory", local.path)));
    }
    give_to_group(pod, &path, claimed.read_only).await.map_err(failed)?;
    Ok(Found::Directory(path))
}

fn unmappable(volume: &str, why: &str) -> String {
    format!("MapVolume.MapPodDevice failed for volume {volume:?} : {why}")
}

fn is_on(spec: &PersistentVolumeSpec, node: Option<&Node>) -> bool {
    let required = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    let (Some(required), Some(node)) = (required, node) else { return true };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let labels = node.metadata.labels.as_ref();
    api::node_selector::takes(required, name, |key| labels?.get(key).map(String::as_str))
}

fn device(path: &Path) -> Result<Found, String> {
    let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
    let found = fs::metadata(&path).map_err(|error| error.to_string())?;
    if !found.file_type().is_block_device() {
        return Err(format!("{} is not a block device", path.display()));
    }
    Ok(Found::Device(path))
}

async fn give_to_group(pod: &Pod, path: &Path, read_only: bool) -> Result<(), String> {
    let context = spec::spec(pod).security_context.as_ref();
    let group = context.and_then(|context| context.fs_group);
    let Some(group) = group.and_then(|group| u32::try_from(group).ok()) else { return Ok(()) };
    let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
    let policy = ChangePolicy::parse(policy);
    let root = path.to_path_buf();
    // A volume may hold millions of files.
    let set = move || ownership::set(&root, group, read_only, policy);
    let done = tokio::task::spawn_blocking(set).await.unwrap_or_else(|e| Err(e.into()));
    done.map_err(|error| format!("applyFSGroup failed for vol {}: {error}", path.display()))
}
