//! Pseudo terminals of containers.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use super::sys;

/// The device number of the multiplexer.
const PTMX: u64 = 5 << 8 | 2;

/// Opens a terminal of the container this process is in: the controlling end, and the other.
pub(super) fn open() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = openat(CWD, "/dev/pts/ptmx", flags, Mode::empty())?;
    // The container may have put anything in its place.
    let file = std::fs::File::from(master);
    if file.metadata()?.rdev() != PTMX {
        return Err(io::Error::other("/dev/pts/ptmx is not the terminal multiplexer"));
    }
    let master = OwnedFd::from(file);
    unlockpt(&master)?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, peer)?;
    Ok((master, slave))
}

/// Makes a terminal the one of this process's new session, and its standard streams.
pub(super) fn adopt(slave: &OwnedFd) -> io::Result<()> {
    sys::set_controlling_terminal(slave)?;
    standard_streams([slave, slave, slave])
}

/// Makes three descriptors the standard streams.
pub(super) fn standard_streams(fds: [&OwnedFd; 3]) -> io::Result<()> {
    nix::unistd::dup2_stdin(fds[0])?;
    nix::unistd::dup2_stdout(fds[1])?;
    nix::unistd::dup2_stderr(fds[2])?;
    Ok(())
}
