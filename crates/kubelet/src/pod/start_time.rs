//! When a static pod began. Its status is in no API, so it is kept in its directory.

use std::path::Path;

use jiff::Timestamp;

const FILE: &str = "start-time";

/// The time that was noted, or now, which is noted then.
pub(crate) fn of_static(pod_dir: &Path, now: Timestamp) -> Timestamp {
    let path = pod_dir.join(FILE);
    let noted = std::fs::read_to_string(&path).ok().and_then(|text| text.parse().ok());
    noted.unwrap_or_else(|| {
        let write = || {
            std::fs::create_dir_all(pod_dir)?;
            stdx::atomic_file::write(&path, now.to_string().as_bytes(), 0o600)
        };
        if let Err(error) = write() {
            tracing::warn!(path = %path.display(), %error, "start of a static pod not noted");
        }
        now
    })
}
