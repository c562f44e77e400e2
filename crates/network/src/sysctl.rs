//! Kernel settings, remembered so that they can be put back.

use std::collections::BTreeMap;
use std::path::Path;

use crate::NetworkError;

/// Sets kernel settings, first recording in `record` what they were.
///
/// Settings that have their value already are neither written nor recorded.
pub(crate) fn set(record: &Path, settings: &[(String, &str)]) -> Result<(), NetworkError> {
    let mut before = read_record(record);
    let known = before.len();
    let mut changes = Vec::new();
    for (name, value) in settings {
        let current = std::fs::read_to_string(path(name)).map_err(|source| error(name, source))?;
        if current.trim() != *value {
            before.entry(name.clone()).or_insert_with(|| current.trim().to_owned());
            changes.push((name, value));
        }
    }
    if before.len() != known {
        let json = serde_json::to_vec(&before).unwrap_or_default();
        stdx::atomic_file::write(record, &json, 0o600)
            .map_err(|source| NetworkError::Record { path: record.to_path_buf(), source })?;
    }
    for (name, value) in changes {
        std::fs::write(path(name), value).map_err(|source| error(name, source))?;
    }
    Ok(())
}

/// Puts back what `record` says. Settings of devices that are gone are skipped.
pub(crate) fn restore(record: &Path) {
    for (name, value) in read_record(record) {
        if let Err(source) = std::fs::write(path(&name), value) {
            tracing::debug!(name, %source, "kernel setting not put back");
        }
    }
}

fn read_record(record: &Path) -> BTreeMap<String, String> {
    let bytes = std::fs::read(record).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new("/proc/sys").join(name)
}

fn error(name: &str, source: std::io::Error) -> NetworkError {
    NetworkError::Sysctl { name: name.to_owned(), source }
}
