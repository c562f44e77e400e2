//! The namespaces of a pod, which this process is in so that its children are too.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Pid, chdir, pivot_root, sethostname};

use super::step::{Step, StepError};
use super::sys;
use super::tree::copy_of;
use super::users::{Forked, Users};
use crate::spec::SandboxSpec;

/// Upstream's size of a pod's shared memory.
const SHM_OPTIONS: &str = "mode=1777,size=67108864";

/// What a container's start needs of the sandbox.
pub(super) struct Namespaces {
    /// The process namespace of the shim.
    pub(super) own_pid: OwnedFd,
    /// The mount namespace of the shim, which is the node's.
    own_mount: OwnedFd,
    /// A mount namespace with nothing but the pod's shared memory.
    shm: Option<OwnedFd>,
    /// The first process of the pod's shared process namespace.
    pub(super) init: Option<Pid>,
    /// The pod's users, unless they are the node's.
    pub(super) users: Option<Users>,
}

impl Namespaces {
    /// Makes the pod's namespaces and enters them.
    pub(super) fn enter(spec: &SandboxSpec, directory: &Path) -> Result<Self, StepError> {
        let users = match &spec.users {
            None => set_up(spec).map(|()| None)?,
            Some(mappings) => Some(Users::make(spec, mappings)?),
        };
        let own = |kind: &str| {
            open(&format!("/proc/self/ns/{kind}")).step(|| "opening namespaces".to_owned())
        };
        let (own_pid, own_mount) = (own("pid")?, own("mnt")?);
        let mut namespaces = Self { own_pid, own_mount, shm: None, init: None, users };
        if spec.own_ipc {
            let shm = namespaces.make_shm(directory);
            namespaces.shm = Some(shm.step(|| "making shared memory".to_owned())?);
        }
        if spec.shared_pid {
            namespaces.init = Some(namespaces.start_init()?);
        }
        Ok(namespaces)
    }

    /// A copy of the pod's shared memory, to be mounted. Ends in the node's mount namespace.
    pub(super) fn copy_shm(&self) -> io::Result<Option<OwnedFd>> {
        let Some(shm) = &self.shm else { return Ok(None) };
        setns(shm, CloneFlags::CLONE_NEWNS)?;
        let copy = copy_of(Path::new("/"), false);
        setns(&self.own_mount, CloneFlags::CLONE_NEWNS)?;
        copy.map(Some)
    }

    /// The mount must not be seen by the node, and must not keep the node's mounts busy: so it
    /// gets a namespace of its own in which it is the root.
    fn make_shm(&self, directory: &Path) -> io::Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let made = mount_alone(directory);
        setns(&self.own_mount, CloneFlags::CLONE_NEWNS)?;
        chdir("/")?;
        made
    }

    /// Starts a process that does nothing but be the first one.
    fn start_init(&self) -> Result<Pid, StepError> {
        let name = || "making the process namespace".to_owned();
        if let Some(users) = &self.users {
            let place = || unshare(CloneFlags::CLONE_NEWPID).step(name);
            match users.fork(|| Ok(()), place)? {
                Forked::Parent(pid) => return Ok(pid),
                Forked::Child(()) => run_init(),
            }
        }
        unshare(CloneFlags::CLONE_NEWPID).step(name)?;
        let forked = sys::fork();
        if let Ok(None) = forked {
            run_init();
        }
        setns(&self.own_pid, CloneFlags::CLONE_NEWPID).step(name)?;
        forked.step(name)?.ok_or_else(|| StepError::plain("the child does not return"))
    }
}

/// Makes the namespaces that are the pod's own, in this process, and puts into them what they are
/// to have.
pub(super) fn set_up(spec: &SandboxSpec) -> Result<(), StepError> {
    let mut flags = CloneFlags::empty();
    if spec.own_network {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    if spec.own_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    unshare(flags).step(|| "making namespaces".to_owned())?;
    if spec.own_network && !spec.hostname.is_empty() {
        sethostname(&spec.hostname).step(|| "setting the hostname".to_owned())?;
    }
    for (name, value) in &spec.sysctls {
        fs::write(sysctl_path(name)?, value)
            .step(|| format!("setting sysctl {name:?} to {value:?}"))?;
    }
    Ok(())
}

/// Names are written with dots, or with slashes when an interface's name holds dots.
fn sysctl_path(name: &str) -> Result<PathBuf, StepError> {
    let path = match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name.to_owned(),
        _ => name.chars().map(|c| if c == '.' { '/' } else { c }).collect(),
    };
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(StepError::plain(format!("invalid sysctl {name:?}")));
    }
    Ok(Path::new("/proc/sys").join(path))
}

fn mount_alone(directory: &Path) -> io::Result<OwnedFd> {
    let none = None::<&Path>;
    let namespace = open("/proc/self/ns/mnt")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), directory, Some("tmpfs"), flags, Some(SHM_OPTIONS))?;
    chdir(directory)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(namespace)
}

fn open(path: &str) -> io::Result<OwnedFd> {
    Ok(File::open(path)?.into())
}

/// Never returns. Children that nobody else waits for are reaped by the kernel.
fn run_init() -> ! {
    let prepared =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(io::Error::from)
            .and_then(|()| sys::reset_signals())
            .and_then(|()| sys::ignore_children())
            .and_then(|()| {
                let null = OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?);
                super::terminal::standard_streams([&null, &null, &null])
            });
    if prepared.is_err() {
        std::process::exit(1);
    }
    sys::close_from_3();
    rustix::thread::set_name(c"pause").ok();
    loop {
        nix::unistd::pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_stay_below_their_directory() {
        let path = |name| sysctl_path(name).map(|path| path.display().to_string()).ok();
        assert_eq!(path("net.core.somaxconn").unwrap(), "/proc/sys/net/core/somaxconn");
        assert_eq!(path("net/ipv4/conf/eth0.1/x").unwrap(), "/proc/sys/net/ipv4/conf/eth0.1/x");
        for bad in ["", "/etc/passwd", "a/../../b", "a..b"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }
}
