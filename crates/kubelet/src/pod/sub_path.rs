//! Paths inside a volume, which its contents must not lead out of.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;

/// Opens `sub_path` below `volume`, making directories that are missing, with the permissions of
/// the volume itself.
///
/// What is open cannot be exchanged any more, as a name could be by whoever writes to the volume:
/// it is to be mounted through its descriptor.
pub(crate) fn open(volume: &Path, sub_path: &str) -> io::Result<OwnedFd> {
    let relative = Path::new(sub_path);
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match open_beneath(&root, relative) {
        Err(Errno::NOENT) => make(&root, relative),
        result => Ok(result?),
    }
}

/// Opens what is there already at `sub_path` below `volume`.
pub(crate) fn open_existing(volume: &Path, sub_path: &str) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(open_beneath(&root, Path::new(sub_path))?)
}

/// Whether the path can lead into a volume at all; the error is the message of
/// `CreateContainerConfigError`.
pub(crate) fn check(sub_path: &str) -> Result<(), String> {
    let path = Path::new(sub_path);
    if path.is_absolute() {
        return Err(format!("error SubPath `{sub_path}` must not be an absolute path"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!(
            "unable to provision SubPath `{sub_path}`: must not contain '..': Invalid value: \
             {sub_path:?}: must not contain '..'"
        ));
    }
    Ok(())
}

/// Makes what a part of a volume is mounted on: of the same kind.
pub(crate) fn make_target(open: &OwnedFd, target: &Path) -> io::Result<()> {
    let parent = target.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent)?;
    let is_directory =
        FileType::from_raw_mode(rustix::fs::fstat(open)?.st_mode) == FileType::Directory;
    let present = std::fs::symlink_metadata(target).ok();
    match present {
        Some(found) if found.is_dir() == is_directory => return Ok(()),
        Some(found) if found.is_dir() => std::fs::remove_dir(target)?,
        Some(_) => std::fs::remove_file(target)?,
        None => {}
    }
    if is_directory { std::fs::create_dir(target) } else { std::fs::File::create(target).map(drop) }
}

fn open_beneath(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), resolve)
}

fn make(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(root)?.st_mode & 0o7777);
    let mut walked = PathBuf::from(".");
    for part in path.components() {
        let parent = open_beneath(root, &walked)?;
        walked.push(part);
        match mkdirat(&parent, part.as_os_str(), mode) {
            // Exactly these bits, whatever the umask.
            Ok(()) => set_mode(&open_beneath(root, &walked)?, mode)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(open_beneath(root, &walked)?)
}

fn set_mode(open: &OwnedFd, mode: Mode) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // A descriptor that is but a path takes no mode of its own.
    let path = format!("/proc/self/fd/{}", open.as_raw_fd());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode.as_raw_mode()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(volume: &Path, sub_path: &str) -> io::Result<PathBuf> {
        let open = open(volume, sub_path)?;
        std::fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd()))
    }

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
        assert_eq!(check("/a").unwrap_err(), "error SubPath `/a` must not be an absolute path");
        assert!(check("a/../b").is_err() && check("a/..b").is_ok());
    }

    #[test]
    fn new_directories_have_the_permissions_of_the_volume() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o2777)).unwrap();
        let made = resolve(dir.path(), "a/b").unwrap();
        assert_eq!(std::fs::metadata(made).unwrap().permissions().mode() & 0o7777, 0o2777);
    }

    #[test]
    fn what_is_open_stays_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/mine"), "").unwrap();
        let open = open(dir.path(), "a").unwrap();
        std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("a")).unwrap();
        let seen = std::fs::read_dir(format!("/proc/self/fd/{}", open.as_raw_fd())).unwrap();
        let names: Vec<_> = seen.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["mine"]);
        let target = dir.path().join("targets/0");
        make_target(&open, &target).unwrap();
        assert!(target.is_dir());
    }
}
