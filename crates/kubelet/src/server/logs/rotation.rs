//! Following a log from one file to the next.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::fs::File;

use crate::log_rotation;

/// The file that follows `file` in the log at `path`, once there is one: nothing is written to
/// `file` from then on.
pub(super) async fn next(file: &File, path: &Path) -> Option<PathBuf> {
    let open = file.metadata().await.ok()?;
    // A log that was renamed gets its successor when the runtime opens it anew.
    let named = tokio::fs::metadata(path).await.ok()?;
    if is_same(&open, &named) {
        return None;
    }
    let mut files = log_rotation::readable(path).unwrap_or_default();
    files.push(path.to_path_buf());
    // Who is so far behind that his file was taken away goes on with the oldest.
    let after = files
        .iter()
        .position(|other| std::fs::metadata(other).is_ok_and(|metadata| is_same(&open, &metadata)));
    files.into_iter().nth(after.map_or(0, |own| own + 1))
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_follow_each_other_in_the_order_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let older = dir.path().join("0.log.20260101-000010");
        let newer = dir.path().join("0.log.20260101-000020");
        std::fs::write(&older, "1").unwrap();
        let first = File::open(&older).await.unwrap();
        // Renamed, but not opened anew yet.
        assert_eq!(next(&first, &path).await, None);
        std::fs::write(&path, "2").unwrap();
        assert_eq!(next(&first, &path).await.as_deref(), Some(path.as_path()));
        let second = File::open(&path).await.unwrap();
        assert_eq!(next(&second, &path).await, None);
        std::fs::rename(&path, &newer).unwrap();
        std::fs::write(&path, "3").unwrap();
        assert_eq!(next(&first, &path).await.as_deref(), Some(newer.as_path()));
        std::fs::remove_file(&older).unwrap();
        assert_eq!(next(&first, &path).await.as_deref(), Some(newer.as_path()));
    }
}
