//! The file system of a container.
//!
//! Everything is mounted inside the container's own mount namespace, so it goes with the
//! container's last process and nothing is ever left on the node.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{CWD, FileType, OFlags, fstat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use super::device;
use super::step::{Step, StepError};
use super::sys;
use super::tree::{Kind, Root, attach, copy_of, file_system};
use super::users::Users;
use crate::spec::{BindMount, ContainerSpec, PidNamespace, Propagation};

mod gathered;

use gathered::map_ids;
pub(super) use gathered::{Gathered, assemble_gathered, gather};

const SYSTEM: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Puts the container's root together in this process's mount namespace and answers it.
pub(super) fn assemble(spec: &ContainerSpec, shm: Option<OwnedFd>) -> Result<Root, StepError> {
    // Copies are made before the namespace is cut off, so that a mount shared with the node can
    // stay shared.
    let binds = copy_binds(spec, None)?;
    let devices = if spec.privileged { device::copy_node_devices() } else { Vec::new() };
    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .step(|| "making the node's mounts private".to_owned())?;
    let root = mount_root(spec)?;
    mount_system(&root, shm)?;
    mount_sys(spec, &root, cgroup_trees(spec)?)?;
    device::populate(&root, spec, &devices)?;
    for (bind, tree) in spec.mounts.iter().zip(binds) {
        let tree = match tree {
            Some(tree) => tree,
            None => image_tree(spec, bind)?,
        };
        attach_bind(&root, bind, &tree)?;
    }
    finish(spec, root)
}

fn attach_bind(root: &Root, bind: &BindMount, tree: &OwnedFd) -> Result<(), StepError> {
    let name = || bind_name(&bind.source, &bind.target);
    let kind = kind_of(tree).step(name)?;
    let target = root.ensure(&bind.target, kind).step(name)?;
    attach(tree, target).step(name)
}

/// What comes when everything is mounted.
fn finish(spec: &ContainerSpec, root: Root) -> Result<Root, StepError> {
    if !spec.privileged {
        restrict(spec, &root)?;
    }
    prepare_directory(spec, &root)?;
    if spec.readonly_rootfs {
        sys::set_readonly(root.as_fd(), false).step(|| "making / read-only".to_owned())?;
    }
    Ok(root)
}

fn bind_name(source: &Path, target: &Path) -> String {
    format!("error mounting {:?} to rootfs at {target:?}", source.display())
}

/// Copies of the node's mounts; `None` stands for an image.
fn copy_binds(
    spec: &ContainerSpec,
    users: Option<&Users>,
) -> Result<Vec<Option<OwnedFd>>, StepError> {
    let mut trees = Vec::with_capacity(spec.mounts.len());
    for bind in &spec.mounts {
        if !bind.layers.is_empty() {
            trees.push(None);
            continue;
        }
        let name = || bind_name(&bind.source, &bind.target);
        let tree = copy_of(&bind.source, true).step(name)?;
        if let Some(users) = users.filter(|_| bind.id_mapped) {
            map_ids(&tree, users, &bind.source)?;
        }
        sys::set_propagation(tree.as_fd(), bind.propagation).step(name)?;
        if bind.readonly {
            sys::set_readonly(tree.as_fd(), bind.recursive_readonly).step(name)?;
        }
        trees.push(Some(tree));
    }
    Ok(trees)
}

/// A read-only view of an image, or of a part of it.
fn image_tree(spec: &ContainerSpec, bind: &BindMount) -> Result<OwnedFd, StepError> {
    let name = || format!("error mounting image to rootfs at {:?}", bind.target);
    let image = overlay_of_image(&bind.layers, &spec.directory.join("empty")).step(name)?;
    if bind.sub_path.as_os_str().is_empty() {
        return Ok(image);
    }
    // A part can be copied only from what is mounted somewhere: here, and only for a moment.
    let place = spec.directory.join("empty");
    let target = Root::open(&place).step(name)?;
    attach(image, target.as_fd()).step(name)?;
    let part = Root::open(&place)
        .and_then(|root| root.find(&bind.sub_path, OFlags::PATH))
        .and_then(|part| copy_of(&descriptor_path(&part), false));
    umount2(&place, MntFlags::MNT_DETACH).step(name)?;
    part.step(|| format!("image volume sub path {:?}", bind.sub_path))
}

/// Overlayfs without a layer to write to wants two others, so an empty one is the lowest.
fn overlay_of_image(layers: &[PathBuf], empty: &Path) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in layers.iter().map(PathBuf::as_path).chain([empty]) {
        fsconfig_set_string(context.as_fd(), "lowerdir+", layer)?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn kind_of(tree: &OwnedFd) -> std::io::Result<Kind> {
    let kind = FileType::from_raw_mode(fstat(tree)?.st_mode);
    Ok(if kind == FileType::Directory { Kind::Directory } else { Kind::File })
}

/// The image's layers with the container's own on top.
fn mount_root(spec: &ContainerSpec) -> Result<Root, StepError> {
    let at = spec.directory.join("rootfs");
    let name = || format!("error mounting the image at {at:?}");
    let (upper, work) = (spec.directory.join("upper"), spec.directory.join("work"));
    let tree = match overlay(&spec.lower, &upper, &work) {
        // Before Linux 6.8 there is no option for a single layer.
        Err(rustix::io::Errno::INVAL) => {
            let none = None::<&Path>;
            let lower: Vec<String> =
                spec.lower.iter().map(|layer| layer.display().to_string()).collect();
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                lower.join(":"),
                upper.display(),
                work.display()
            );
            mount(none, &at, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
                .step(name)?;
            return Root::open(&at).step(name);
        }
        other => other.step(name)?,
    };
    let target =
        rustix::fs::openat(CWD, &at, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .step(name)?;
    attach(tree, target).step(name)?;
    Root::open(&at).step(name)
}

fn overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in lower {
        fsconfig_set_string(context.as_fd(), "lowerdir+", layer)?;
    }
    fsconfig_set_string(context.as_fd(), "upperdir", upper)?;
    fsconfig_set_string(context.as_fd(), "workdir", work)?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn mount_system(root: &Root, shm: Option<OwnedFd>) -> Result<(), StepError> {
    mount_new(root, "/proc", "proc", &[], SYSTEM)?;
    let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let dev = [("mode", "755"), ("size", "65536k")];
    mount_new(root, "/dev", "tmpfs", &dev, nosuid | MountAttrFlags::MOUNT_ATTR_STRICTATIME)?;
    let pts = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let noexec = nosuid | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mount_new(root, "/dev/pts", "devpts", &pts, noexec)?;
    mount_new(root, "/dev/mqueue", "mqueue", &[], SYSTEM)?;
    let shm = match shm {
        Some(shm) => shm,
        None => copy_of(Path::new("/dev/shm"), false).step(|| "copying /dev/shm".to_owned())?,
    };
    let name = || "error mounting \"shm\" to rootfs at \"/dev/shm\"".to_owned();
    let target = root.ensure(Path::new("/dev/shm"), Kind::Directory).step(name)?;
    attach(shm, target).step(name)
}

type Trees = Vec<(PathBuf, OwnedFd)>;

/// The container's cgroups, and where they are to be seen.
fn cgroup_trees(spec: &ContainerSpec) -> Result<Trees, StepError> {
    let mut trees = Trees::new();
    for (controller, directory) in spec.cgroup_mounts.iter().filter(|(name, _)| !name.is_empty()) {
        let target = Path::new("/sys/fs/cgroup").join(controller);
        let name = || bind_name(directory, &target);
        let tree = copy_of(directory, false).step(name)?;
        if !spec.privileged {
            sys::set_readonly(tree.as_fd(), false).step(name)?;
        }
        trees.push((target, tree));
    }
    Ok(trees)
}

fn mount_sys(spec: &ContainerSpec, root: &Root, cgroups: Trees) -> Result<(), StepError> {
    let readonly =
        if spec.privileged { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    mount_new(root, "/sys", "sysfs", &[], SYSTEM | readonly)?;
    let cgroup = Path::new("/sys/fs/cgroup");
    match spec.cgroup_mounts.get("") {
        Some(_) => mount_new(root, "/sys/fs/cgroup", "cgroup2", &[], SYSTEM | readonly)?,
        None if spec.cgroup_mounts.is_empty() => {}
        None => {
            mount_new(root, "/sys/fs/cgroup", "tmpfs", &[("mode", "755")], SYSTEM)?;
            for (target, tree) in cgroups {
                let name = || format!("error mounting cgroup to rootfs at {target:?}");
                attach(tree, root.ensure(&target, Kind::Directory).step(name)?).step(name)?;
            }
            if !spec.privileged {
                let tree = root.find(cgroup, OFlags::PATH).step(|| "finding cgroup".to_owned())?;
                sys::set_readonly(tree.as_fd(), false)
                    .step(|| "making /sys/fs/cgroup read-only".to_owned())?;
            }
        }
    }
    Ok(())
}

fn mount_new(
    root: &Root,
    path: &str,
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<(), StepError> {
    let name = || format!("error mounting {kind:?} to rootfs at {path:?}");
    let target = root.ensure(Path::new(path), Kind::Directory).step(name)?;
    let tree = file_system(kind, options, attributes).step(name)?;
    attach(tree, target).step(name)
}

/// Hides and protects paths. Those that do not exist need neither.
fn restrict(spec: &ContainerSpec, root: &Root) -> Result<(), StepError> {
    for path in &spec.readonly_paths {
        // What is seen of the node's processes is the node's own business.
        if spec.pid == PidNamespace::Node && path.starts_with("/proc/sys") && spec.node_network {
            continue;
        }
        let name = || format!("making {path:?} read-only");
        let Some(target) = existing(root, path).step(name)? else { continue };
        let tree = copy_of(&descriptor_path(&target), true).step(name)?;
        sys::set_propagation(tree.as_fd(), Propagation::Private).step(name)?;
        sys::set_readonly(tree.as_fd(), true).step(name)?;
        attach(tree, target).step(name)?;
    }
    for path in &spec.masked_paths {
        let name = || format!("masking {path:?}");
        let Some(target) = existing(root, path).step(name)? else { continue };
        let tree = match kind_of(&target).step(name)? {
            Kind::Directory => {
                file_system("tmpfs", &[], SYSTEM | MountAttrFlags::MOUNT_ATTR_RDONLY)
            }
            Kind::File => copy_of(Path::new("/dev/null"), false),
        };
        attach(tree.step(name)?, target).step(name)?;
    }
    Ok(())
}

fn existing(root: &Root, path: &Path) -> std::io::Result<Option<OwnedFd>> {
    match root.find(path, OFlags::PATH) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A name for what a descriptor stands for, for calls that want a path.
fn descriptor_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Makes the working directory while the root can still be written.
fn prepare_directory(spec: &ContainerSpec, root: &Root) -> Result<(), StepError> {
    root.ensure_directories(Path::new(&spec.cwd)).map(drop).step(|| format!("mkdir {}", spec.cwd))
}
