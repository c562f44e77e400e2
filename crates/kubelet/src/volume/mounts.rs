//! Mounts that the kubelet makes: file systems in memory, and parts of volumes that containers see.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

/// Makes mounts and takes them back.
pub(crate) trait Mounts: Send + Sync {
    /// Mounts a file system in memory unless one is there; `bytes` of 0 leave the size to the
    /// kernel.
    fn memory(&self, path: &Path, bytes: u64) -> io::Result<()>;

    /// Mounts what is open on `target`, which must be of its kind, instead of what was mounted
    /// there before.
    fn bind(&self, open: &OwnedFd, target: &Path) -> io::Result<()>;

    /// Whether something is mounted at `path`, which is not touched itself.
    fn is_mounted(&self, path: &Path) -> io::Result<bool>;

    /// Unmounts everything at `directory` and below it. When this succeeds nothing is left that
    /// a removal of the directory could reach through.
    fn unmount_all(&self, directory: &Path) -> io::Result<()>;
}

/// The kernel's mounts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelMounts;

/// Somebody may mount while we unmount, but not for ever.
const ROUNDS_MAX: usize = 8;

impl Mounts for KernelMounts {
    fn memory(&self, path: &Path, bytes: u64) -> io::Result<()> {
        if below(path)?.iter().any(|mounted| mounted == path) {
            return Ok(());
        }
        let options = if bytes == 0 { String::new() } else { format!("size={bytes}") };
        let options = CString::new(options).map_err(io::Error::other)?;
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str())?;
        Ok(())
    }

    fn bind(&self, open: &OwnedFd, target: &Path) -> io::Result<()> {
        self.unmount_all(target)?;
        mount_bind(format!("/proc/self/fd/{}", open.as_raw_fd()), target)?;
        Ok(())
    }

    fn is_mounted(&self, path: &Path) -> io::Result<bool> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(false);
        };
        Ok(below(parent)?.iter().any(|mounted| {
            mounted.file_name() == Some(name)
                && mounted.parent().is_some_and(|of| parent.canonicalize().is_ok_and(|p| p == of))
        }))
    }

    fn unmount_all(&self, directory: &Path) -> io::Result<()> {
        for _ in 0..ROUNDS_MAX {
            let mounted = below(directory)?;
            if mounted.is_empty() {
                return Ok(());
            }
            // The last one made hides the others.
            for path in mounted.iter().rev() {
                // Detached, because a process may still have a file of it open.
                match unmount(path, UnmountFlags::DETACH) {
                    Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("{} still has something mounted", directory.display()),
        ))
    }
}

/// The mount points at a path and below it, in the order in which they were made.
fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let table = fs::read("/proc/thread-self/mountinfo")?;
    let points = table.split(|byte| *byte == b'\n').filter_map(mount_point);
    Ok(points.filter(|point| point.starts_with(&path)).collect())
}

/// The fifth field of a line, in which blanks and backslashes are three octal digits.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(octal);
        match code {
            Some(code) => {
                path.push(code);
                rest = &after[3..];
            }
            None => {
                path.push(*first);
                rest = after;
            }
        }
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(path)))
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs in a mount namespace of a thread's own, gone with the thread.
    fn alone(work: impl FnOnce() + Send + 'static) {
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
            nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            work();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_file_system_in_memory_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a volume");
        fs::create_dir(&path).unwrap();
        alone(move || {
            for _ in 0..2 {
                KernelMounts.memory(&path, 1 << 20).unwrap();
            }
            assert_eq!(below(&path).unwrap(), std::slice::from_ref(&path));
            assert!(KernelMounts.is_mounted(&path).unwrap());
            assert!(!KernelMounts.is_mounted(path.parent().unwrap()).unwrap());
            let size = nix::sys::statvfs::statvfs(&path).unwrap();
            assert_eq!(size.blocks() * size.fragment_size(), 1 << 20);
            for _ in 0..2 {
                KernelMounts.unmount_all(&path).unwrap();
            }
            assert!(below(&path).unwrap().is_empty());
            assert!(!KernelMounts.is_mounted(&path).unwrap());
        });
    }

    #[test]
    fn what_is_mounted_below_a_directory_is_not_removed_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (data, pod) = (dir.path().join("data"), dir.path().join("pod/v/0"));
        fs::create_dir_all(&data).unwrap();
        fs::create_dir_all(&pod).unwrap();
        fs::write(data.join("kept"), "1").unwrap();
        let (root, kept) = (dir.path().join("pod"), data.join("kept"));
        alone(move || {
            for _ in 0..2 {
                let open = OwnedFd::from(fs::File::open(&data).unwrap());
                KernelMounts.bind(&open, &pod).unwrap();
            }
            assert!(pod.join("kept").exists());
            assert_eq!(below(&root).unwrap().len(), 1);
            KernelMounts.unmount_all(&root).unwrap();
            fs::remove_dir_all(&root).unwrap();
        });
        assert!(kept.exists());
    }
}
