//! System calls that need `unsafe`, each behind a safe function.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::unistd::{ForkResult, Pid};

use crate::spec::Propagation;

/// Duplicates this process. `None` is the child.
#[expect(unsafe_code, reason = "fork has no safe form")]
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: a shim has exactly one thread, so the child holds no lock of another one and may
    // allocate and call anything.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Duplicates this process into another child of its parent. `None` is the new one, whose number
/// is that of this process's own namespace.
#[expect(unsafe_code, reason = "clone has no safe form")]
pub(super) fn fork_sibling() -> io::Result<Option<Pid>> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without a stack and without shared memory this is fork with another parent, and as
    // there, a shim has exactly one thread. The pointers that are zero are not asked for by flags.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match i32::try_from(pid).map_err(io::Error::other)? {
        0 => Ok(None),
        pid @ 1.. => Ok(Some(Pid::from_raw(pid))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct mount_attr` of the kernel.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// From `linux/mount.h`.
const MOUNT_ATTR_RDONLY: u64 = 1;
/// From `linux/mount.h`.
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
/// From `linux/fcntl.h`.
const AT_RECURSIVE: libc::c_uint = 0x8000;

/// Makes the mount that `tree` is the root of read-only, with all mounts below it or without.
pub(super) fn set_readonly(tree: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(tree, &attr, recursive)
}

/// Has the mount that `tree` is the root of show the owners of its files as the users of a
/// namespace, with all mounts below it or without.
pub(super) fn map_ids(
    tree: BorrowedFd<'_>,
    users: BorrowedFd<'_>,
    recursive: bool,
) -> io::Result<()> {
    let users = u64::try_from(users.as_raw_fd()).map_err(io::Error::other)?;
    let attr = MountAttr { attr_set: MOUNT_ATTR_IDMAP, userns_fd: users, ..MountAttr::default() };
    mount_setattr(tree, &attr, recursive)
}

/// Sets which later mounts show up in or from `tree`.
pub(super) fn set_propagation(tree: BorrowedFd<'_>, propagation: Propagation) -> io::Result<()> {
    let propagation = match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
    };
    mount_setattr(tree, &MountAttr { propagation, ..MountAttr::default() }, true)
}

#[expect(unsafe_code, reason = "no library wraps mount_setattr")]
fn mount_setattr(tree: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> io::Result<()> {
    let empty = 0;
    let flags = if recursive { AT_RECURSIVE } else { 0 };
    let flags = flags | libc::AT_EMPTY_PATH.cast_unsigned();
    // SAFETY: the descriptor is open, the path is an empty C string, and `attr` is a live
    // structure of the kernel's layout whose size is passed; the kernel writes to none of them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            std::ptr::from_ref::<libc::c_char>(&empty),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from 3 on to be closed when another program is run.
#[expect(unsafe_code, reason = "close_range has no safe form")]
pub(super) fn close_on_exec_from_3() -> io::Result<()> {
    // SAFETY: no memory is passed, and with this flag no descriptor is closed now.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from 3 on.
#[expect(unsafe_code, reason = "close_range has no safe form")]
pub(super) fn close_from_3() {
    // SAFETY: no memory is passed. The caller is a child that uses none of its owned descriptors
    // again and ends without dropping them.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Gives every signal its default action and lets all of them through.
#[expect(unsafe_code, reason = "changing signal actions has no safe form")]
pub(super) fn reset_signals() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
    for number in Signal::iterator() {
        if !matches!(number, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: the default action runs no code of this process.
            unsafe { signal(number, SigHandler::SigDfl) }?;
        }
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Has the kernel reap children that nobody waits for.
#[expect(unsafe_code, reason = "changing signal actions has no safe form")]
pub(super) fn ignore_children() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: ignoring a signal runs no code of this process.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    Ok(())
}

/// Makes `fd` this session's terminal.
#[expect(unsafe_code, reason = "the request has no safe form")]
pub(super) fn set_controlling_terminal(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: the descriptor is open and the request takes a plain number.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs another program in this process. Returns only when that fails.
pub(super) fn execute(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    match nix::unistd::execve(path, args, env) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}
