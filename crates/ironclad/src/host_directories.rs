//! Directories of this host, as controllers make and remove them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use controllers::HostDirectories;
use futures::FutureExt;
use futures::future::BoxFuture;

/// All of them.
pub(crate) struct ThisHost;

impl HostDirectories for ThisHost {
    fn make<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        aside(path, |path| DirBuilder::new().recursive(true).mode(0o750).create(path))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        aside(path, |path| {
            let removed = match fs::symlink_metadata(path) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(path),
                Ok(_) => fs::remove_file(path),
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        })
    }
}

/// Off the tasks: a large directory takes seconds.
fn aside(path: &Path, work: fn(&Path) -> io::Result<()>) -> BoxFuture<'static, io::Result<()>> {
    let path = PathBuf::from(path);
    let work = tokio::task::spawn_blocking(move || work(&path));
    async move { work.await.map_err(io::Error::other)? }.boxed()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_directory_is_made_and_removed_with_all_that_is_in_it() {
        let around = tempfile::tempdir().unwrap();
        let path = around.path().join("volumes/one");
        for _ in 0..2 {
            ThisHost.make(&path).await.unwrap();
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750);
        let outside = around.path().join("outside");
        fs::write(&outside, "x").unwrap();
        fs::create_dir(path.join("inner")).unwrap();
        std::os::unix::fs::symlink(&outside, path.join("inner/link")).unwrap();
        for _ in 0..2 {
            ThisHost.remove(&path).await.unwrap();
        }
        assert!(!path.exists() && outside.exists());
        ThisHost.remove(&outside).await.unwrap();
        assert!(!outside.exists(), "a file, too");
    }
}
