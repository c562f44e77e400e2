//! Logs of containers that grow: `0.log` becomes `0.log.20260102-150405`, and the ones before are
//! packed.
//!
//! | file | holds |
//! |---|---|
//! | `0.log` | what is written at present |
//! | `0.log.TIME` | what was written before, for those who follow and are behind |
//! | `0.log.TIME.gz` | what is older |

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::{ContainerFilter, ContainerState};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

use crate::kubelet::Kubelet;

const PACKED: &str = ".gz";
/// What was being packed when the kubelet was killed.
const UNFINISHED: &str = ".tmp";

/// Rotates the logs that have become too large.
pub(crate) async fn rotate_all(kubelet: &Arc<Kubelet>) {
    let config = &kubelet.config;
    let runtime = &kubelet.deps.runtime;
    let filter =
        ContainerFilter { state: Some(ContainerState::Running), ..ContainerFilter::default() };
    for container in runtime.list_containers(&filter).await.unwrap_or_default() {
        let Ok(status) = runtime.container_status(&container.id).await else { continue };
        let path = PathBuf::from(&status.log_path);
        let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if size < config.container_log_max_bytes {
            continue;
        }
        let (at, files) = (kubelet.deps.clock.now(), config.container_log_max_files);
        let log = path.clone();
        let rotated = tokio::task::spawn_blocking(move || {
            make_room(&log, files)?;
            rotate(&log, at)
        });
        let rotated = match rotated.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(rotated) => rotated,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "log not rotated");
                continue;
            }
        };
        if let Err(error) = runtime.reopen_container_log(&container.id).await {
            tracing::warn!(path = %path.display(), %error, "log not opened anew");
            // It is written to as before, and so has its name again.
            if !path.exists()
                && let Err(error) = fs::rename(&rotated, &path)
            {
                tracing::warn!(path = %path.display(), %error, "log without its name");
            }
        }
    }
}

/// The files of the log at `path` that are neither packed nor written to, the oldest first.
pub(crate) fn readable(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = rotated(path)?;
    files.retain(|file| !has_suffix(file, PACKED) && !has_suffix(file, UNFINISHED));
    Ok(files)
}

/// All files of the log at `path` but the present one, the oldest first.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut files: Vec<PathBuf> = fs::read_dir(directory)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|other| {
            let other = other.file_name().unwrap_or_default().to_string_lossy();
            other.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.'))
        })
        .collect();
    // Their names sort by time.
    files.sort();
    Ok(files)
}

/// Packs what was rotated before, and removes the oldest, so that there are at most `files` when
/// the present one is rotated too.
fn make_room(path: &Path, files: usize) -> io::Result<()> {
    let (unfinished, mut rotated): (Vec<_>, Vec<_>) =
        rotated(path)?.into_iter().partition(|file| has_suffix(file, UNFINISHED));
    unfinished.iter().try_for_each(fs::remove_file)?;
    let kept = files.saturating_sub(2);
    for old in rotated.drain(..rotated.len().saturating_sub(kept)) {
        fs::remove_file(old)?;
    }
    rotated.iter().filter(|file| !has_suffix(file, PACKED)).try_for_each(|file| pack(file))
}

/// Gives the present file its other name.
fn rotate(path: &Path, at: Timestamp) -> io::Result<PathBuf> {
    let rotated = with_suffix(path, &format!(".{}", at.strftime("%Y%m%d-%H%M%S")));
    fs::rename(path, &rotated)?;
    Ok(rotated)
}

fn pack(file: &Path) -> io::Result<()> {
    let packed = with_suffix(file, PACKED);
    let unfinished = with_suffix(&packed, UNFINISHED);
    let mut from = File::open(file)?;
    let mode = from.metadata()?.permissions().mode();
    let to = File::options().write(true).create_new(true).mode(mode).open(&unfinished)?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?;
    fs::rename(unfinished, packed)?;
    fs::remove_file(file)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.to_string_lossy().ends_with(suffix)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_last_file_stays_as_it_is_and_older_ones_are_packed_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        // Left by somebody who was killed while packing.
        fs::write(dir.path().join("0.log.19700101-000000.gz.tmp"), "half").unwrap();
        for second in 0..6 {
            fs::write(&path, second.to_string()).unwrap();
            make_room(&path, 4).unwrap();
            rotate(&path, Timestamp::from_second(second).unwrap()).unwrap();
        }
        let left =
            ["0.log.19700101-000003.gz", "0.log.19700101-000004.gz", "0.log.19700101-000005"];
        assert_eq!(names(dir.path()), left);
        let mut text = String::new();
        let packed = File::open(dir.path().join(left[0])).unwrap();
        GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "3");
        assert_eq!(readable(&path).unwrap(), [dir.path().join(left[2])]);
    }
}
