//! Paths inside a volume, which its contents must not lead out of.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;

/// Finds `sub_path` below `volume`, making directories that are missing. The answer has no
/// symbolic link in it.
pub(crate) fn resolve(volume: &Path, sub_path: &str) -> io::Result<PathBuf> {
    let relative = Path::new(sub_path);
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !relative.components().all(inside) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "must not leave the volume"));
    }
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let found = match open_beneath(&root, relative) {
        Err(Errno::NOENT) => make(&root, relative)?,
        result => result?,
    };
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

fn open_beneath(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), resolve)
}

fn make(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let mut walked = PathBuf::from(".");
    for part in path.components() {
        let parent = open_beneath(root, &walked)?;
        match mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
        walked.push(part);
    }
    Ok(open_beneath(root, &walked)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_inside_the_volume_and_never_leaves_it() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume").canonicalize().unwrap_or_else(|_| {
            std::fs::create_dir(dir.path().join("volume")).unwrap();
            dir.path().join("volume").canonicalize().unwrap()
        });
        assert_eq!(resolve(&volume, "a/b").unwrap(), volume.join("a/b"));
        assert!(volume.join("a/b").is_dir());
        std::os::unix::fs::symlink("a", volume.join("inner")).unwrap();
        assert_eq!(resolve(&volume, "inner/b").unwrap(), volume.join("a/b"));
        std::os::unix::fs::symlink("/etc", volume.join("outer")).unwrap();
        assert!(resolve(&volume, "outer/passwd").is_err());
        assert!(resolve(&volume, "../x").is_err());
    }
}
