//! Writing a volume's files so that readers see all of the old ones or all of the new ones.
//!
//! The layout is upstream's, and programs rely on it:
//!
//! ```text
//!   volume/..2026_11_20_10_00_00.123456789/dir/file   the files
//!   volume/..data -> ..2026_11_20_10_00_00.123456789   replaced by rename
//!   volume/dir -> ..data/dir                           one link per first component
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

use jiff::Timestamp;

const DATA: &str = "..data";
const DATA_TMP: &str = "..data_tmp";

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) data: Vec<u8>,
    pub(crate) mode: u32,
    /// Who owns it; root when `None`.
    pub(crate) user: Option<u32>,
}

/// Files by their path in the volume.
pub(crate) type Payload = BTreeMap<String, File>;

/// Makes the volume hold exactly these files. Says whether anything changed.
///
/// # Errors
/// Any error of the file system; the volume is then unchanged. A path must stay in the volume.
pub(crate) fn write(
    volume: &Path,
    payload: &Payload,
    group: Option<u32>,
    now: Timestamp,
) -> io::Result<bool> {
    for path in payload.keys() {
        check(path)?;
    }
    let current = fs::read_link(volume.join(DATA)).ok();
    if let Some(current) = &current
        && same(&volume.join(current), payload)
    {
        return Ok(false);
    }
    let name = format!("..{}", now.strftime("%Y_%m_%d_%H_%M_%S.%9f"));
    let directory = volume.join(&name);
    fs::create_dir(&directory)?;
    let written = write_files(&directory, payload, group).and_then(|()| switch(volume, &name));
    if let Err(error) = written {
        // The first error is the one that matters.
        fs::remove_dir_all(&directory).ok();
        return Err(error);
    }
    link(volume, payload)?;
    if let Some(current) = current {
        fs::remove_dir_all(volume.join(current))?;
    }
    Ok(true)
}

fn check(path: &str) -> io::Result<()> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {path:?}")));
    }
    Ok(())
}

fn same(directory: &Path, payload: &Payload) -> bool {
    let mut found = BTreeSet::new();
    if collect(directory, directory, &mut found).is_err() {
        return false;
    }
    found.len() == payload.len()
        && payload.iter().all(|(path, file)| {
            found.contains(path) && fs::read(directory.join(path)).is_ok_and(|d| d == file.data)
        })
}

fn collect(root: &Path, directory: &Path, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(root, &entry.path(), found)?;
        } else if let Ok(path) = entry.path().strip_prefix(root) {
            found.insert(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

fn write_files(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    set(directory, 0o755, None, group)?;
    for (path, file) in payload {
        let target = directory.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
            set(parent, 0o755, None, group)?;
        }
        fs::write(&target, &file.data)?;
        // The group may read, as upstream's ownership of read-only volumes.
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        set(&target, mode, file.user, group)?;
    }
    Ok(())
}

fn set(path: &Path, mode: u32, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
    if user.is_some() || group.is_some() {
        std::os::unix::fs::chown(path, user, group)?;
    }
    let directory_bits = if group.is_some() && path.is_dir() { 0o2110 } else { 0 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode | directory_bits))
}

fn switch(volume: &Path, name: &str) -> io::Result<()> {
    let tmp = volume.join(DATA_TMP);
    match fs::remove_file(&tmp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(name, &tmp)?;
    fs::rename(&tmp, volume.join(DATA))
}

/// Makes the links users see and removes those of files that are gone.
fn link(volume: &Path, payload: &Payload) -> io::Result<()> {
    let first = |path: &String| Path::new(path).components().next().map(|c| c.as_os_str().into());
    let wanted: BTreeSet<OsString> = payload.keys().filter_map(first).collect();
    for name in &wanted {
        let path = volume.join(name);
        if fs::symlink_metadata(&path).is_err() {
            symlink(Path::new(DATA).join(name), &path)?;
        }
    }
    for entry in fs::read_dir(volume)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(volume.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { data: text.into(), mode: 0o640, user: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn files_are_replaced_together_and_gone_ones_removed() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path();
        let first = payload(&[("a", "1"), ("d/b", "2")]);
        assert!(write(volume, &first, None, at(1)).unwrap());
        assert!(!write(volume, &first, None, at(2)).unwrap(), "nothing changed");
        assert_eq!(fs::read(volume.join("d/b")).unwrap(), b"2");
        assert_eq!(fs::read_link(volume.join("a")).unwrap(), Path::new("..data/a"));
        let mode = fs::metadata(volume.join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(write(volume, &payload(&[("a", "3")]), None, at(3)).unwrap());
        assert_eq!(fs::read(volume.join("a")).unwrap(), b"3");
        assert!(!volume.join("d").exists());
        let left: BTreeSet<_> =
            fs::read_dir(volume).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }

    #[test]
    fn a_path_cannot_leave_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../a", "/a", "", "a/../../b", "..data"] {
            assert!(write(dir.path(), &payload(&[(path, "x")]), None, at(1)).is_err(), "{path}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
