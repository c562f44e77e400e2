//! Files that are either the old or the new, never half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Replaces `path` with `contents`, created with `mode`, durable when this returns.
///
/// Writes a sibling file, syncs it, renames it over `path` and syncs the directory.
///
/// # Errors
/// Any error of the file system; `path` is then unchanged.
pub fn write(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let sibling = directory.join(name);
    let written = write_and_rename(&sibling, path, contents, mode);
    if written.is_err() {
        // The error that matters is the first one.
        fs::remove_file(&sibling).ok();
        return written;
    }
    File::open(&directory)?.sync_all()
}

fn write_and_rename(sibling: &Path, path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(sibling) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(sibling)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(sibling, path)
}
