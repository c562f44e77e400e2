//! Volumes that are a path of the node.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Makes sure that the path is of the kind asked for; the error is the end of a `FailedMount`
/// event, as upstream words it.
pub(crate) fn check(path: &Path, kind: &str) -> Result<(), String> {
    let shown = path.display();
    let found = fs::metadata(path).ok();
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if found.is_none() => {
            fs::create_dir_all(path).map_err(|error| error.to_string())
        }
        "FileOrCreate" if found.is_none() => {
            fs::File::create(path).map_err(|error| error.to_string())?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))
                .map_err(|error| error.to_string())
        }
        "Directory" | "DirectoryOrCreate" => {
            require(found.is_some_and(|f| f.is_dir()), &shown, "directory")
        }
        "File" | "FileOrCreate" => require(found.is_some_and(|f| f.is_file()), &shown, "file"),
        "Socket" => {
            require(found.is_some_and(|f| f.file_type().is_socket()), &shown, "socket file")
        }
        "CharDevice" => {
            let device = found.is_some_and(|f| f.file_type().is_char_device());
            require(device, &shown, "character device")
        }
        "BlockDevice" => {
            let device = found.is_some_and(|f| f.file_type().is_block_device());
            require(device, &shown, "block device")
        }
        other => Err(format!("{other} is an invalid volume type")),
    }
}

fn require(holds: bool, path: &impl std::fmt::Display, kind: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("hostPath type check failed: {path} is not a {kind}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_must_be_what_it_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let (new, file) = (dir.path().join("new/er"), dir.path().join("file"));
        check(&new, "DirectoryOrCreate").unwrap();
        check(&new, "Directory").unwrap();
        check(&file, "FileOrCreate").unwrap();
        check(&dir.path().join("absent"), "").unwrap();
        let error = check(&file, "Directory").unwrap_err();
        assert!(error.ends_with("file is not a directory"), "{error}");
        assert!(check(&new, "Socket").is_err());
    }
}
