//! A pod whose users are not the node's: its user namespace, and processes in it.
//!
//! ```text
//!   shim (node's users) ── fork ─▶ between: opens and mounts what only the node may
//!     │                               │ enters the pod's users, makes a process namespace
//!     └──────── parent of ────────────┴─▶ sibling: the container's first process
//! ```
//!
//! The shim stays with the node's users, since it opens the node's files and cgroups. What belongs
//! to the pod is made by processes that have entered its users, so that they own it.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sandbox::set_up;
use super::step::{Step, StepError};
use super::sys;
use crate::protocol;
use crate::spec::{SandboxSpec, UserMappings};

/// Opening the node's files takes milliseconds; a disk that hangs must not hang the pod.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pod's user namespace.
pub(super) struct Users {
    namespace: OwnedFd,
    /// Who the pod's root is on the node.
    root: (u32, u32),
}

/// What the other process says: that it is done, or why it failed.
type Told<T> = Result<T, String>;

impl Users {
    /// Makes the namespaces of a sandbox, owned by its users, and enters all but theirs.
    pub(super) fn make(spec: &SandboxSpec, mappings: &UserMappings) -> Result<Self, StepError> {
        let name = || "making the user namespace".to_owned();
        let (ours, theirs) = UnixStream::pair().step(name)?;
        ours.set_read_timeout(Some(PATIENCE)).step(name)?;
        let Some(holder) = sys::fork().step(name)? else {
            drop(ours);
            hold(spec, &theirs);
        };
        drop(theirs);
        let made = Self::take(spec, mappings, holder, &ours);
        // Its namespaces live on with whoever has entered or opened them.
        kill(holder, Signal::SIGKILL).ok();
        waitpid(holder, None).ok();
        made
    }

    fn take(
        spec: &SandboxSpec,
        mappings: &UserMappings,
        holder: Pid,
        holding: &UnixStream,
    ) -> Result<Self, StepError> {
        hear::<()>(holding)?;
        for (file, ranges) in [("uid_map", &mappings.uids), ("gid_map", &mappings.gids)] {
            let lines = ranges.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.length));
            fs::write(format!("/proc/{holder}/{file}"), lines.collect::<String>())
                .step(|| format!("writing {file} of the user namespace"))?;
        }
        say(holding, &Ok(())).step(|| "making the user namespace".to_owned())?;
        hear::<()>(holding)?;
        let open = |kind: &str| -> Result<OwnedFd, StepError> {
            let file = File::open(format!("/proc/{holder}/ns/{kind}"));
            Ok(file.step(|| "opening namespaces".to_owned())?.into())
        };
        let enter = |kind: &str, flag| setns(open(kind)?, flag).step(|| format!("entering {kind}"));
        let namespace = open("user")?;
        if spec.own_network {
            enter("net", CloneFlags::CLONE_NEWNET)?;
            enter("uts", CloneFlags::CLONE_NEWUTS)?;
        }
        if spec.own_ipc {
            enter("ipc", CloneFlags::CLONE_NEWIPC)?;
        }
        let root = (outside_root(&mappings.uids)?, outside_root(&mappings.gids)?);
        Ok(Self { namespace, root })
    }

    /// For mounts that show files with the pod's owners.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Who the pod's root is on the node: user and group.
    pub(super) fn root(&self) -> (u32, u32) {
        self.root
    }

    /// Forks a child of this process that is among the pod's users, and in the process namespace
    /// that `place` enters. `prepare` runs before, with the rights of the node.
    ///
    /// The answer is what was prepared in the child, and the child's number here.
    pub(super) fn fork<T>(
        &self,
        prepare: impl FnOnce() -> Result<T, StepError>,
        place: impl FnOnce() -> Result<(), StepError>,
    ) -> Result<Forked<T>, StepError> {
        let name = || "fork".to_owned();
        let (ours, theirs) = UnixStream::pair().step(name)?;
        ours.set_read_timeout(Some(PATIENCE)).step(name)?;
        if let Some(between) = sys::fork().step(name)? {
            drop(theirs);
            let told = hear::<i32>(&ours);
            // It has ended, or hangs.
            kill(between, Signal::SIGKILL).ok();
            waitpid(between, None).ok();
            return told.map(|pid| Forked::Parent(Pid::from_raw(pid)));
        }
        drop(ours);
        let forked = prepare().and_then(|prepared| {
            self.become_root()?;
            place()?;
            let forked = sys::fork_sibling().step(name)?;
            Ok((prepared, forked))
        });
        let told = match forked {
            Ok((prepared, None)) => return Ok(Forked::Child(prepared)),
            Ok((_, Some(pid))) => Ok(pid.as_raw()),
            Err(error) => Err(error.to_string()),
        };
        // Nobody to tell means that nobody waits.
        say(&theirs, &told).ok();
        std::process::exit(0)
    }

    fn become_root(&self) -> Result<(), StepError> {
        setns(&self.namespace, CloneFlags::CLONE_NEWUSER)
            .step(|| "entering the user namespace".to_owned())?;
        become_root().step(|| "becoming root of the pod".to_owned())
    }
}

/// Which of the two a process is after [`Users::fork`].
pub(super) enum Forked<T> {
    Parent(Pid),
    Child(T),
}

fn outside_root(ranges: &[crate::spec::IdRange]) -> Result<u32, StepError> {
    let of_root = ranges.iter().find(|range| range.inside == 0);
    let missing = || StepError::plain("the pod's root is nobody on the node");
    Ok(of_root.ok_or_else(missing)?.outside)
}

fn become_root() -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(setgroups(&[])?)
}

/// The process that makes the namespaces. It waits to be killed.
fn hold(spec: &SandboxSpec, holding: &UnixStream) -> ! {
    let Err(error) = held(spec, holding);
    say::<()>(holding, &Err(error.to_string())).ok();
    std::process::exit(1)
}

fn held(spec: &SandboxSpec, holding: &UnixStream) -> Result<Infallible, StepError> {
    use rustix::process::{Signal, set_parent_process_death_signal};
    let name = || "making the user namespace".to_owned();
    set_parent_process_death_signal(Some(Signal::KILL)).step(name)?;
    unshare(CloneFlags::CLONE_NEWUSER).step(name)?;
    say(holding, &Ok(())).step(name)?;
    hear::<()>(holding)?;
    become_root().step(name)?;
    set_up(spec)?;
    say(holding, &Ok(())).step(name)?;
    loop {
        nix::unistd::pause();
    }
}

fn say<T: Serialize>(to: &UnixStream, told: &Told<T>) -> io::Result<()> {
    protocol::send(to, told, &[])
}

fn hear<T: DeserializeOwned>(from: &UnixStream) -> Result<T, StepError> {
    match protocol::receive::<Told<T>>(from) {
        Ok(Some((Ok(told), _))) => Ok(told),
        Ok(Some((Err(why), _))) => Err(StepError::plain(why)),
        Ok(None) => Err(StepError::plain("making the user namespace: the process has ended")),
        Err(error) => Err(error).step(|| "making the user namespace".to_owned()),
    }
}
