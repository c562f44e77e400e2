//! File systems in memory, for secrets and for `emptyDir` with medium `Memory`.

use std::ffi::CString;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Mounts and unmounts file systems in memory.
pub(crate) trait MemoryMounts: Send + Sync {
    /// Mounts one unless one is there; `bytes` of 0 leave the size to the kernel.
    fn mount(&self, path: &Path, bytes: u64) -> io::Result<()>;

    /// Unmounts it; where nothing is mounted this does nothing.
    fn unmount(&self, path: &Path) -> io::Result<()>;
}

/// The kernel's tmpfs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tmpfs;

impl MemoryMounts for Tmpfs {
    fn mount(&self, path: &Path, bytes: u64) -> io::Result<()> {
        if is_mount_point(path)? {
            return Ok(());
        }
        let options = if bytes == 0 { String::new() } else { format!("size={bytes}") };
        let options = CString::new(options).map_err(io::Error::other)?;
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str())?;
        Ok(())
    }

    fn unmount(&self, path: &Path) -> io::Result<()> {
        if !path.exists() || !is_mount_point(path)? {
            return Ok(());
        }
        // Detached, because a process may still have a file of it open.
        unmount(path, UnmountFlags::DETACH)?;
        Ok(())
    }
}

/// A directory is a mount point when it is on another device than its parent.
fn is_mount_point(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let parent = path.parent().unwrap_or(path);
    Ok(std::fs::metadata(path)?.dev() != std::fs::metadata(parent)?.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_in_memory_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        std::fs::create_dir(&path).unwrap();
        // A mount namespace of this thread's own, gone with the thread.
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
            nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            for _ in 0..2 {
                Tmpfs.mount(&path, 1 << 20).unwrap();
            }
            assert!(is_mount_point(&path).unwrap());
            let size = nix::sys::statvfs::statvfs(&path).unwrap();
            assert_eq!(size.blocks() * size.fragment_size(), 1 << 20);
            for _ in 0..2 {
                Tmpfs.unmount(&path).unwrap();
            }
            assert!(!is_mount_point(&path).unwrap());
        })
        .join()
        .unwrap();
    }
}
