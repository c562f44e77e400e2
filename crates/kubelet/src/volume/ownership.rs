//! Giving a volume to the group of a pod, so that its processes may write whoever they are:
//! upstream's `volume_linux.go`.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// What the group may do with files and directories of volumes that are written to, and of those
/// that are only read. Directories get their execute bits, and pass their group on.
const WRITE: (u32, u32) = (0o660, 0o2770);
const READ: (u32, u32) = (0o440, 0o2550);

/// Which volumes are walked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangePolicy {
    /// All of them.
    Always,
    /// Those whose root does not look as if they had been.
    OnRootMismatch,
}

impl ChangePolicy {
    /// Upstream's word for it.
    pub(crate) fn parse(word: Option<&str>) -> Self {
        match word {
            Some("OnRootMismatch") => Self::OnRootMismatch,
            _ => Self::Always,
        }
    }
}

/// Gives everything of a volume to `group`.
pub(crate) fn set(
    root: &Path,
    group: u32,
    read_only: bool,
    policy: ChangePolicy,
) -> io::Result<()> {
    let bits = if read_only { READ } else { WRITE };
    if policy == ChangePolicy::OnRootMismatch && !needs_change(root, group, bits.1)? {
        return Ok(());
    }
    // The root comes last: until then the next attempt sees that this one was not finished.
    walk(root, group, bits)
}

fn needs_change(root: &Path, group: u32, bits: u32) -> io::Result<bool> {
    let found = fs::metadata(root)?;
    Ok(found.gid() != group || found.mode() & bits != bits)
}

fn walk(path: &Path, group: u32, bits: (u32, u32)) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), group, bits)?;
        }
    }
    lchown(path, None, Some(group))?;
    if found.is_symlink() {
        return Ok(());
    }
    let added = if found.is_dir() { bits.1 } else { bits.0 };
    fs::set_permissions(path, fs::Permissions::from_mode(found.mode() & 0o7777 | added))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &Path) -> (u32, u32) {
        let found = fs::symlink_metadata(path).unwrap();
        (found.gid(), found.mode() & 0o7777)
    }

    #[test]
    fn a_volume_is_given_to_a_group_and_stays_given() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/file"), "").unwrap();
        for (path, mode) in [(".", 0o755), ("sub", 0o700), ("sub/file", 0o600)] {
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        let passwd = told(Path::new("/etc/passwd"));
        set(&root, 1001, false, ChangePolicy::OnRootMismatch).unwrap();
        assert_eq!(told(&root), (1001, 0o2775));
        assert_eq!(told(&root.join("sub")), (1001, 0o2770));
        assert_eq!(told(&root.join("sub/file")), (1001, 0o660));
        assert_eq!(told(&root.join("link")).0, 1001);
        assert_eq!(told(Path::new("/etc/passwd")), passwd, "links are not followed");

        fs::write(root.join("sub/late"), "").unwrap();
        fs::set_permissions(root.join("sub/late"), fs::Permissions::from_mode(0o600)).unwrap();
        set(&root, 1001, false, ChangePolicy::OnRootMismatch).unwrap();
        assert_eq!(told(&root.join("sub/late")).1, 0o600, "the root says that all was done");
        set(&root, 1001, false, ChangePolicy::Always).unwrap();
        assert_eq!(told(&root.join("sub/late")), (1001, 0o660));
    }

    #[test]
    fn a_volume_that_is_only_read_is_not_made_writable() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o500)).unwrap();
        set(&root, 7, true, ChangePolicy::Always).unwrap();
        assert_eq!(told(&root), (7, 0o2550));
    }
}
