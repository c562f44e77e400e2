//! What the operator decides about volumes, and the host that some of them are directories of.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures::future::BoxFuture;

use super::recycler::Recycler;

/// How volumes are made and reclaimed. The default is upstream's.
#[derive(Clone, Debug)]
pub struct VolumeSettings {
    /// Whether claims get volumes that are made for them (upstream
    /// `--enable-dynamic-provisioning`).
    pub provisioning: bool,
    /// Whether claims of classes of `kubernetes.io/host-path` get directories of this host
    /// (upstream `--enable-hostpath-provisioner`).
    pub host_path_provisioning: bool,
    /// How soon what failed, or has to wait for pods, is tried again (upstream
    /// `--pvclaimbinder-sync-period`).
    pub retry: Duration,
    /// How directories of hosts are scrubbed.
    pub host_path_recycler: Recycler,
    /// How NFS shares are scrubbed.
    pub nfs_recycler: Recycler,
}

impl Default for VolumeSettings {
    fn default() -> Self {
        Self {
            provisioning: true,
            host_path_provisioning: false,
            retry: Duration::from_secs(15),
            host_path_recycler: Recycler::new(60, 30),
            nfs_recycler: Recycler::new(300, 30),
        }
    }
}

/// Directories of the host that the controllers run on, for volumes of `kubernetes.io/host-path`.
///
/// Dropping a future midway leaves a part of its work done; all of it may be asked for again.
pub trait HostDirectories: Send + Sync {
    /// Makes a directory, and those above it, for its owner and its group. One that is there is no
    /// error.
    fn make<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>>;

    /// Removes what is there, with everything below it and without following links. That nothing
    /// is there is no error.
    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>>;
}

/// How it is told that something could not be done with a directory: in the words of upstream's
/// language, which name no number.
pub(super) fn failure(operation: &str, path: &str, error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    format!("{operation} {path}: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_upstreams_words() {
        let busy = io::Error::from_raw_os_error(16);
        let told = failure("unlinkat", "/tmp/v", &busy);
        assert_eq!(told, "unlinkat /tmp/v: device or resource busy");
    }
}
