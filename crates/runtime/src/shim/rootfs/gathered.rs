//! The file system of a container whose users are not the node's.
//!
//! What is the node's is opened before the process is among the pod's users, as mounts that are
//! nowhere yet; the container's mount namespace, which those users own, is made of them.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::unistd::{Gid, Uid, chown};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{
    Trees, attach_bind, cgroup_trees, copy_binds, finish, image_tree, mount_sys, mount_system,
    overlay,
};
use crate::shim::device;
use crate::shim::sandbox::Namespaces;
use crate::shim::step::{Step, StepError};
use crate::shim::sys;
use crate::shim::tree::{Root, attach, copy_of};
use crate::shim::users::Users;
use crate::spec::ContainerSpec;

/// Where the root is attached before it becomes the root: a directory that everybody may enter,
/// and under which nothing is looked up from then on.
const PLACE: &str = "/sys";

/// What a container's file system is made of.
pub(in crate::shim) struct Gathered {
    root: OwnedFd,
    binds: Vec<OwnedFd>,
    devices: Trees,
    cgroups: Trees,
    shm: Option<OwnedFd>,
}

/// Opens it, with the rights of the node, in a mount namespace for that.
pub(in crate::shim) fn gather(
    spec: &ContainerSpec,
    users: &Users,
    namespaces: &Namespaces,
) -> Result<Gathered, StepError> {
    let shm = if spec.node_ipc {
        None
    } else {
        namespaces.copy_shm().step(|| "copying shared memory".to_owned())?
    };
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .step(|| "making the mount namespace".to_owned())?;
    let binds = copy_binds(spec, Some(users))?;
    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .step(|| "making the node's mounts private".to_owned())?;
    let devices = device_trees(spec)?;
    let cgroups = cgroup_trees(spec)?;
    map_layers(spec, users)?;
    let root = own_root(spec, users)?;
    let mut trees = Vec::with_capacity(binds.len());
    for (bind, tree) in spec.mounts.iter().zip(binds) {
        trees.push(match tree {
            Some(tree) => tree,
            None => image_tree(spec, bind)?,
        });
    }
    Ok(Gathered { root, binds: trees, devices, cgroups, shm })
}

/// Puts it together in this process's mount namespace, as [`super::assemble`] does.
pub(in crate::shim) fn assemble_gathered(
    spec: &ContainerSpec,
    gathered: Gathered,
) -> Result<Root, StepError> {
    let name = || "mounting the container's root".to_owned();
    let place = openat(CWD, PLACE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(name)?;
    attach(gathered.root, place).step(name)?;
    let root = Root::open(Path::new(PLACE)).step(name)?;
    mount_system(&root, gathered.shm)?;
    mount_sys(spec, &root, gathered.cgroups)?;
    device::bind(&root, &gathered.devices)?;
    for (bind, tree) in spec.mounts.iter().zip(&gathered.binds) {
        attach_bind(&root, bind, tree)?;
    }
    finish(spec, root)
}

/// Devices of the node: nobody but the node's root makes device files.
fn device_trees(spec: &ContainerSpec) -> Result<Trees, StepError> {
    let mut trees = Trees::new();
    for (source, target) in device::sources(spec) {
        let name = || format!("error gathering device information for {source:?}");
        let tree = copy_of(&source, false).step(name)?;
        trees.push((target, tree));
    }
    Ok(trees)
}

/// Has the layers of images show the pod's users as owners, each where it is.
fn map_layers(spec: &ContainerSpec, users: &Users) -> Result<(), StepError> {
    let of_images = spec.mounts.iter().flat_map(|bind| &bind.layers);
    let parents: BTreeSet<PathBuf> = spec
        .lower
        .iter()
        .chain(of_images)
        .filter_map(|layer| layer.parent().map(Path::to_path_buf))
        .collect();
    for parent in parents {
        let name = || format!("mounting the layers at {parent:?}");
        let tree = copy_of(&parent, false).step(name)?;
        map_ids(&tree, users, &parent)?;
        let place =
            openat(CWD, &parent, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(name)?;
        attach(tree, place).step(name)?;
    }
    Ok(())
}

/// The image's layers with the container's own on top. That one is not mapped: what is written
/// there is owned by the pod's users on the node, too, since who mounts could not make files in it
/// otherwise.
fn own_root(spec: &ContainerSpec, users: &Users) -> Result<OwnedFd, StepError> {
    let name = || "error mounting the image".to_owned();
    let (upper, work) = (spec.directory.join("upper"), spec.directory.join("work"));
    let (uid, gid) = users.root();
    chown(&upper, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).step(name)?;
    overlay(&spec.lower, &upper, &work).step(name)
}

/// Has a mount show the owners of its files as the pod's users.
pub(super) fn map_ids(tree: &OwnedFd, users: &Users, source: &Path) -> Result<(), StepError> {
    use std::os::fd::AsFd;
    let mapped = sys::map_ids(tree.as_fd(), users.as_fd(), true).or_else(|_| {
        // What is mounted below may be of a kind that cannot: its files are then nobody's.
        sys::map_ids(tree.as_fd(), users.as_fd(), false)
    });
    mapped.step(|| format!("failed to set MOUNT_ATTR_IDMAP on {}", source.display())).map_err(
        |error| {
            StepError::plain(format!(
                "{error} (maybe the filesystem used doesn't support idmap mounts on this kernel?)"
            ))
        },
    )
}
