//! Mounts as descriptors, and paths that cannot leave the container's root.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// The kernel asks for a repeat when something was renamed while it looked.
const LOOKUP_REPEATS: usize = 128;

/// What a mount point has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// A mount that is not yet anywhere: a copy of what is at `path`, with everything below.
pub(super) fn copy_of(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(CWD, path, flags)?)
}

/// A new file system that is not yet anywhere. Options without a value are flags.
pub(super) fn file_system(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value.is_empty() {
            true => fsconfig_set_flag(context.as_fd(), *key)?,
            false => fsconfig_set_string(context.as_fd(), *key, *value)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Puts a mount on top of `target`.
pub(super) fn attach(tree: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree.as_fd(), "", target.as_fd(), "", flags)?)
}

/// The container's root directory while it is put together.
pub(super) struct Root(OwnedFd);

impl Root {
    /// Looks at a directory as a container's root.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?))
    }

    /// The directory itself.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens what is at `path`, following links as the container would.
    pub(super) fn find(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.look(path, flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// Opens `path` as a mount point, making it and what is missing on the way.
    pub(super) fn ensure(&self, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
        match self.find(path, OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = self.ensure_directories(parent)?;
        match kind {
            Kind::Directory => match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            },
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                drop(openat(&parent, name, flags, Mode::from_raw_mode(0o644))?);
            }
        }
        self.find(path, OFlags::PATH)
    }

    /// Opens a directory, making what is missing on the way.
    pub(super) fn ensure_directories(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut at = PathBuf::from("/");
        let mut directory = self.find(&at, OFlags::PATH)?;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            at.push(name);
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            directory = match self.find(&at, flags) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
                        Err(Errno::EXIST) | Ok(()) => self.find(&at, flags)?,
                        Err(error) => return Err(error.into()),
                    }
                }
                other => other?,
            };
        }
        Ok(directory)
    }

    /// Reads a small file of the image; an absent one is empty.
    pub(super) fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        use std::io::Read as _;
        let file = match self.find(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => File::from(other?),
        };
        if !file.metadata()?.is_file() {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn look(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..LOOKUP_REPEATS {
            match openat2(&self.0, path, flags, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }
}
