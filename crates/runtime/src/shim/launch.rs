//! Starts processes in containers and learns whether their programs run.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::child::{Child, Report};
use super::rootfs;
use super::sandbox::Namespaces;
use super::step::{Step, StepError};
use super::sys;
use super::users::Forked;
use crate::protocol;
use crate::spec::{ContainerSpec, PidNamespace};

/// Putting a container together takes milliseconds; a disk that hangs must not hang the pod.
const REPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// A process whose program runs.
pub(super) struct Launched {
    pub(super) pid: Pid,
    /// The controlling end of its terminal.
    pub(super) terminal: Option<OwnedFd>,
    /// User, group, further groups.
    pub(super) user: Option<(u32, u32, Vec<u32>)>,
}

/// Starts a container's first process.
pub(super) fn start(
    namespaces: &Namespaces,
    spec: &ContainerSpec,
    streams: Option<[OwnedFd; 3]>,
) -> Result<Launched, StepError> {
    let target = match spec.pid {
        PidNamespace::Own => Target::New,
        PidNamespace::Node => Target::Same,
        PidNamespace::Sandbox => match namespaces.init {
            Some(init) => Target::Of(open_namespace(init, "pid")?),
            None => return Err(StepError::plain("the pod has no process namespace")),
        },
        PidNamespace::Of(pid) => Target::Of(open_namespace(Pid::from_raw(pid), "pid")?),
    };
    let (parent, reports) = UnixStream::pair().step(|| "making a socket".to_owned())?;
    let child = Child { spec, args: &spec.args, streams, reports };
    let pid = match &namespaces.users {
        Some(users) => {
            let gather = || {
                child.join_cgroups(users.root())?;
                rootfs::gather(spec, users, namespaces)
            };
            match users.fork(gather, || enter_pid(&target))? {
                Forked::Child(gathered) => child.start_among_users(gathered),
                Forked::Parent(pid) => pid,
            }
        }
        None => match fork_into(namespaces, &target)? {
            None => child.start(namespaces),
            Some(pid) => pid,
        },
    };
    drop(child);
    await_program(pid, &parent)
}

/// Starts another process beside a container's first one, `init`.
pub(super) fn join(
    namespaces: &Namespaces,
    spec: &ContainerSpec,
    init: Pid,
    args: &[String],
    streams: Option<[OwnedFd; 3]>,
) -> Result<Launched, StepError> {
    let mount = open_namespace(init, "mnt")?;
    let cgroup = match spec.cgroup_mounts.contains_key("") {
        true => Some(open_namespace(init, "cgroup")?),
        false => None,
    };
    let target = Target::Of(open_namespace(init, "pid")?);
    let (parent, reports) = UnixStream::pair().step(|| "making a socket".to_owned())?;
    let child = Child { spec, args, streams, reports };
    let pid = match &namespaces.users {
        Some(users) => {
            match users.fork(|| child.join_cgroups(users.root()), || enter_pid(&target))? {
                Forked::Child(()) => child.join_among_users(&mount, cgroup.as_ref()),
                Forked::Parent(pid) => pid,
            }
        }
        None => match fork_into(namespaces, &target)? {
            None => child.join(&mount, cgroup.as_ref()),
            Some(pid) => pid,
        },
    };
    drop(child);
    await_program(pid, &parent)
}

/// The process namespace that a child is to be in.
enum Target {
    New,
    Same,
    Of(OwnedFd),
}

fn open_namespace(pid: Pid, kind: &str) -> Result<OwnedFd, StepError> {
    File::open(format!("/proc/{pid}/ns/{kind}"))
        .map(OwnedFd::from)
        .step(|| "opening the container's namespaces".to_owned())
}

/// Only children enter a process namespace, so the shim points there, forks, and points back.
fn fork_into(namespaces: &Namespaces, target: &Target) -> Result<Option<Pid>, StepError> {
    let name = || "making the process namespace".to_owned();
    enter_pid(target)?;
    let forked = sys::fork();
    if let Ok(None) = forked {
        return Ok(None);
    }
    if !matches!(target, Target::Same) {
        setns(&namespaces.own_pid, CloneFlags::CLONE_NEWPID).step(name)?;
    }
    forked.step(|| "fork".to_owned())
}

/// Has the children to come be in a process namespace.
fn enter_pid(target: &Target) -> Result<(), StepError> {
    let name = || "making the process namespace".to_owned();
    match target {
        Target::New => unshare(CloneFlags::CLONE_NEWPID).step(name),
        Target::Same => Ok(()),
        Target::Of(namespace) => setns(namespace, CloneFlags::CLONE_NEWPID).step(name),
    }
}

/// The child's end of the socket closes when the program starts, or with a report why not.
fn await_program(pid: Pid, reports: &UnixStream) -> Result<Launched, StepError> {
    let mut launched = Launched { pid, terminal: None, user: None };
    let failure = loop {
        match next_report(reports) {
            Ok(None) => return Ok(launched),
            Ok(Some((Report::Identity { uid, gid, groups }, _))) => {
                launched.user = Some((uid, gid, groups));
            }
            Ok(Some((Report::Terminal, fds))) => launched.terminal = fds.into_iter().next(),
            Ok(Some((Report::Failed { message }, _))) => break StepError::plain(message),
            Err(error) => break StepError::plain(format!("waiting for the process: {error}")),
        }
    };
    kill(pid, Signal::SIGKILL).ok();
    // Reaped here, so that the exit is not taken for that of a program.
    waitpid(pid, None).ok();
    Err(failure)
}

fn next_report(reports: &UnixStream) -> io::Result<Option<(Report, Vec<OwnedFd>)>> {
    reports.set_read_timeout(Some(REPORT_TIMEOUT))?;
    protocol::receive(reports)
}
