//! `/dev` of a container.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;
use rustix::fs::{FileType, Gid, Mode, Uid, chmodat, chownat, makedev, mknodat, symlinkat};
use rustix::io::Errno;

use super::step::{Step, StepError};
use super::tree::{Kind, Root, attach};
use crate::spec::ContainerSpec;

/// Name, major and minor number of the devices that every container has.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// A device file to be made in the container.
pub(super) struct Device {
    path: PathBuf,
    kind: FileType,
    number: u64,
    mode: u32,
    owner: (u32, u32),
}

/// Every device of the node, for a privileged container.
pub(super) fn copy_node_devices() -> Vec<Device> {
    let mut devices = Vec::new();
    let mut directories = vec![PathBuf::from("/dev")];
    while let Some(directory) = directories.pop() {
        // A directory that vanishes or cannot be read has no devices to give.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let private = ["pts", "shm", "fd", "mqueue", ".lxc", ".udev"];
            let name = entry.file_name();
            if metadata.is_dir() {
                let at_top = directory == Path::new("/dev");
                if !(at_top && private.iter().any(|p| name == *p)) {
                    directories.push(path);
                }
            } else if name != "console" {
                devices.extend(device(&path, path.clone(), &metadata));
            }
        }
    }
    devices
}

fn device(source: &Path, path: PathBuf, metadata: &fs::Metadata) -> Option<Device> {
    let kind = if metadata.file_type().is_char_device() {
        FileType::CharacterDevice
    } else if metadata.file_type().is_block_device() {
        FileType::BlockDevice
    } else {
        return None;
    };
    debug_assert!(source.is_absolute(), "devices are named from the node's root");
    Some(Device {
        path,
        kind,
        number: metadata.rdev(),
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
    })
}

/// Fills `/dev`, which is an empty file system of its own.
pub(super) fn populate(
    root: &Root,
    spec: &ContainerSpec,
    node: &[Device],
) -> Result<(), StepError> {
    let dev = root.ensure_directories(Path::new("/dev")).step(|| "opening /dev".to_owned())?;
    for (name, major, minor) in DEFAULT {
        let device = Device {
            path: Path::new("/dev").join(name),
            kind: FileType::CharacterDevice,
            number: makedev(major, minor),
            mode: 0o666,
            owner: (0, 0),
        };
        make(root, &device).step(|| format!("creating device node {name:?}"))?;
    }
    links(&dev)?;
    for device in node {
        make(root, device).step(|| format!("creating device node {:?}", device.path))?;
    }
    for given in &spec.devices {
        let name = || format!("error gathering device information for {:?}", given.source);
        let metadata = fs::metadata(&given.source).step(name)?;
        let device = device(&given.source, given.target.clone(), &metadata)
            .ok_or_else(|| StepError::plain(format!("{:?} is not a device", given.source)))?;
        make(root, &device).step(|| format!("creating device node {:?}", given.target))?;
    }
    Ok(())
}

/// Where a container's devices are on the node, and in the container.
pub(super) fn sources(spec: &ContainerSpec) -> Vec<(PathBuf, PathBuf)> {
    let default = DEFAULT.iter().map(|(name, ..)| Path::new("/dev").join(name));
    let node = if spec.privileged { copy_node_devices() } else { Vec::new() };
    let own = default.chain(node.into_iter().map(|device| device.path));
    let mut sources: Vec<(PathBuf, PathBuf)> = own.map(|path| (path.clone(), path)).collect();
    sources.sort();
    sources.dedup();
    sources.extend(spec.devices.iter().map(|given| (given.source.clone(), given.target.clone())));
    sources
}

/// Fills `/dev` with devices of the node that are mounted there.
pub(super) fn bind(root: &Root, devices: &[(PathBuf, OwnedFd)]) -> Result<(), StepError> {
    let dev = root.ensure_directories(Path::new("/dev")).step(|| "opening /dev".to_owned())?;
    links(&dev)?;
    for (path, tree) in devices {
        let name = || format!("mounting device {path:?}");
        let target = root.ensure(path, Kind::File).step(name)?;
        attach(tree, target).step(name)?;
    }
    Ok(())
}

fn links(dev: &OwnedFd) -> Result<(), StepError> {
    for (name, target) in LINKS {
        link(dev, name, target).step(|| format!("linking /dev/{name}"))?;
    }
    if Path::new("/proc/kcore").exists() {
        link(dev, "core", "/proc/kcore").step(|| "linking /dev/core".to_owned())?;
    }
    Ok(())
}

fn link(dev: &OwnedFd, name: &str, target: &str) -> io::Result<()> {
    match symlinkat(target, dev, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn make(root: &Root, device: &Device) -> io::Result<()> {
    let parent = root.ensure_directories(device.path.parent().unwrap_or(Path::new("/")))?;
    let name = device.path.file_name().ok_or(Errno::INVAL)?;
    let mode = Mode::from_raw_mode(device.mode);
    match mknodat(&parent, name, device.kind, mode, device.number) {
        // The same device given twice, or one of the default ones.
        Err(Errno::EXIST) => return Ok(()),
        other => other?,
    }
    let (uid, gid) = (Uid::from_raw(device.owner.0), Gid::from_raw(device.owner.1));
    chownat(parent.as_fd(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    // Again, because making it obeyed the process's mask.
    Ok(chmodat(&parent, name, mode, AtFlags::empty())?)
}
