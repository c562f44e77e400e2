//! Network namespaces.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Runs `work` on a thread of its own inside the namespace.
///
/// The calling thread's namespace never changes, so this is safe on a thread of an async runtime
/// (where it blocks for as long as `work` does).
///
/// # Errors
/// When the thread cannot be made or cannot enter the namespace.
pub fn inside<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(|| {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work())
    })
}

/// Makes a new namespace, which lives as long as the file that stands for it is open or mounted.
///
/// # Errors
/// When the thread or the namespace cannot be made.
pub fn create() -> io::Result<File> {
    on_a_thread(|| {
        // SAFETY: this thread is new, shares nothing that the flag unshares (no file descriptor
        // table, no filesystem attributes) and ends right after.
        #[expect(unsafe_code, reason = "unshare is unsafe for flags that are not used here")]
        unsafe {
            rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
        }
        current()
    })
}

/// The namespace of the calling thread.
///
/// # Errors
/// When `/proc` is not there.
pub fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Opens a namespace by a path, such as one under `/proc` or a bind mount.
///
/// # Errors
/// When the path cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
