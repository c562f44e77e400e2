//! What happens between the fork and a container's program, in the child.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, chdir, fchdir, fchown, pivot_root, setsid};
use rustix::fs::{Access, CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use super::identity::{self, Identity};
use super::rootfs::{self, Gathered};
use super::sandbox::Namespaces;
use super::step::{Step, StepError};
use super::sys;
use super::terminal;
use super::tree::{Root, attach, copy_of};
use crate::protocol;
use crate::spec::ContainerSpec;

/// Linux's lowest and highest value.
const OOM_SCORE_ADJ: std::ops::RangeInclusive<i64> = -1000..=1000;

/// What the child tells the shim before it becomes the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Who it will run as.
    Identity { uid: u32, gid: u32, groups: Vec<u32> },
    /// It has a terminal, whose other end this carries.
    Terminal,
    /// There will be no program.
    Failed { message: String },
}

/// What the child gets from its parent.
pub(super) struct Child<'a> {
    pub(super) spec: &'a ContainerSpec,
    /// The program and its arguments.
    pub(super) args: &'a [String],
    /// Standard streams; `None` asks for a terminal.
    pub(super) streams: Option<[OwnedFd; 3]>,
    /// Where reports go; closed by the program's start.
    pub(super) reports: UnixStream,
}

impl Child<'_> {
    /// Becomes a new container's first process.
    pub(super) fn start(self, namespaces: &Namespaces) -> ! {
        let result = self.prepare().and_then(|()| {
            let shm = if self.spec.node_ipc { None } else { shm(namespaces)? };
            unshare(CloneFlags::CLONE_NEWNS).step(|| "making the mount namespace".to_owned())?;
            if self.spec.cgroup_mounts.contains_key("") {
                unshare(CloneFlags::CLONE_NEWCGROUP).step(|| "making namespaces".to_owned())?;
            }
            let root = rootfs::assemble(self.spec, shm)?;
            enter(&root)?;
            self.run(&root, Console::Mounted)
        });
        self.fail(result)
    }

    /// Becomes a new container's first process, in a process namespace of the pod's users.
    pub(super) fn start_among_users(self, gathered: Gathered) -> ! {
        let result = self.begin().and_then(|()| {
            let mut flags = CloneFlags::CLONE_NEWNS;
            if self.spec.cgroup_mounts.contains_key("") {
                flags |= CloneFlags::CLONE_NEWCGROUP;
            }
            unshare(flags).step(|| "making the mount namespace".to_owned())?;
            let root = rootfs::assemble_gathered(self.spec, gathered)?;
            enter(&root)?;
            self.run(&root, Console::Mounted)
        });
        self.fail(result)
    }

    /// Becomes a further process of a container of the pod's users.
    pub(super) fn join_among_users(self, mount: &OwnedFd, cgroup: Option<&OwnedFd>) -> ! {
        let result = self.begin().and_then(|()| self.enter_container(mount, cgroup));
        self.fail(result)
    }

    /// Becomes a further process of the container whose mount namespace is `mount`.
    pub(super) fn join(self, mount: &OwnedFd, cgroup: Option<&OwnedFd>) -> ! {
        let result = self.prepare().and_then(|()| self.enter_container(mount, cgroup));
        self.fail(result)
    }

    fn enter_container(
        &self,
        mount: &OwnedFd,
        cgroup: Option<&OwnedFd>,
    ) -> Result<std::convert::Infallible, StepError> {
        if let Some(cgroup) = cgroup {
            setns(cgroup, CloneFlags::CLONE_NEWCGROUP).step(|| "joining".to_owned())?;
        }
        setns(mount, CloneFlags::CLONE_NEWNS).step(|| "joining the container".to_owned())?;
        let root = Root::open(Path::new("/")).step(|| "opening /".to_owned())?;
        self.run(&root, Console::None)
    }

    fn fail(&self, result: Result<std::convert::Infallible, StepError>) -> ! {
        let Err(error) = result;
        let report = Report::Failed { message: error.to_string() };
        // Without the report the shim still sees that the child ended.
        protocol::send(&self.reports, &report, &[]).ok();
        std::process::exit(1)
    }

    fn prepare(&self) -> Result<(), StepError> {
        self.begin()?;
        self.limit()
    }

    /// Joins the container's cgroups before this process is among the pod's users, who may not; and
    /// gives the standard streams to `root`, who the pod's root is on the node.
    pub(super) fn join_cgroups(&self, root: (u32, u32)) -> Result<(), StepError> {
        self.limit()?;
        for stream in self.streams.iter().flatten() {
            // Not everything can be owned.
            fchown(stream, Some(Uid::from_raw(root.0)), Some(Gid::from_raw(root.1))).ok();
        }
        Ok(())
    }

    fn begin(&self) -> Result<(), StepError> {
        use rustix::process::{Signal, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::KILL))
            .step(|| "set parent death signal".to_owned())?;
        setsid().step(|| "setsid".to_owned())?;
        sys::reset_signals().step(|| "resetting signals".to_owned())?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        Ok(())
    }

    fn limit(&self) -> Result<(), StepError> {
        for procs in &self.spec.cgroup_procs {
            fs::write(procs, "0").step(|| format!("joining cgroup {}", procs.display()))?;
        }
        set_oom_score(self.spec.oom_score_adj)
    }

    /// The last steps, inside the container.
    fn run(&self, root: &Root, console: Console) -> Result<std::convert::Infallible, StepError> {
        let identity = identity::look_up(root, &self.spec.user)?;
        let groups = identity.groups.clone();
        let report = Report::Identity { uid: identity.uid, gid: identity.gid, groups };
        protocol::send(&self.reports, &report, &[]).step(|| "reporting".to_owned())?;
        self.connect(&identity, console)?;
        sys::close_on_exec_from_3().step(|| "closing descriptors".to_owned())?;
        let entered = chdir(Path::new(&self.spec.cwd));
        if self.spec.seccomp && !self.spec.no_new_privs {
            // Without no_new_privs only an administrator may load a filter.
            self.filter()?;
        }
        identity::assume(&identity, self.spec.capabilities, self.spec.no_new_privs)?;
        if entered.is_err() {
            // Some directories can be entered by the user only, as on network file systems.
            chdir(Path::new(&self.spec.cwd))
                .step(|| format!("chdir to cwd ({:?}) set in config.json failed", self.spec.cwd))?;
        }
        check_directory()?;
        if self.spec.seccomp && self.spec.no_new_privs {
            self.filter()?;
        }
        let env = environment(self.spec, &identity);
        let program = find_program(&self.args[0], &env)?;
        let strings = |texts: &[String]| {
            texts
                .iter()
                .map(|text| CString::new(text.as_str()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| StepError::plain("a string holds a zero byte"))
        };
        let (args, env) = (strings(self.args)?, strings(&env)?);
        let path = strings(std::slice::from_ref(&program))?.remove(0);
        let error = sys::execute(&path, &args, &env);
        Err(error).step(|| format!("exec {program}"))
    }

    fn filter(&self) -> Result<(), StepError> {
        super::seccomp::apply(self.spec.capabilities.bounding)
            .step(|| "unable to init seccomp".to_owned())
    }

    /// Connects the standard streams.
    fn connect(&self, identity: &Identity, console: Console) -> Result<(), StepError> {
        let name = || "connecting standard streams".to_owned();
        match &self.streams {
            Some([stdin, stdout, stderr]) => {
                terminal::standard_streams([stdin, stdout, stderr]).step(name)?;
            }
            None => {
                let name = || "opening a terminal".to_owned();
                let (master, slave) = terminal::open().step(name)?;
                protocol::send(&self.reports, &Report::Terminal, &[master.as_fd()]).step(name)?;
                if console == Console::Mounted {
                    mount_console(&slave).step(|| "mounting /dev/console".to_owned())?;
                }
                terminal::adopt(&slave).step(name)?;
            }
        }
        // So that /dev/stdout can be opened again by the user. Not everything can be owned.
        let uid = Some(Uid::from_raw(identity.uid));
        fchown(io::stdin(), uid, None::<Gid>).ok();
        fchown(io::stdout(), uid, None::<Gid>).ok();
        fchown(io::stderr(), uid, None::<Gid>).ok();
        Ok(())
    }
}

/// Whether the terminal is the container's console too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Console {
    Mounted,
    None,
}

fn shm(namespaces: &Namespaces) -> Result<Option<OwnedFd>, StepError> {
    namespaces.copy_shm().step(|| "copying shared memory".to_owned())
}

fn set_oom_score(wanted: i64) -> Result<(), StepError> {
    let path = "/proc/self/oom_score_adj";
    let wanted = wanted.clamp(*OOM_SCORE_ADJ.start(), *OOM_SCORE_ADJ.end());
    let current = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i64>().ok());
    if current == Some(wanted) {
        return Ok(());
    }
    match fs::write(path, wanted.to_string()) {
        // Lowering it takes a right that not every node has; the agent has warned.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other.step(|| "setting oom_score_adj".to_owned()),
    }
}

fn enter(root: &Root) -> Result<(), StepError> {
    let name = || "pivot_root".to_owned();
    let directory = openat(
        root.as_fd(),
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step(name)?;
    fchdir(&directory).step(name)?;
    // The old root ends up on top of the new one, and is then taken away.
    pivot_root(".", ".").step(name)?;
    umount2(".", MntFlags::MNT_DETACH).step(name)?;
    chdir("/").step(name)
}

fn mount_console(slave: &OwnedFd) -> io::Result<()> {
    let name = rustix::termios::ttyname(slave, Vec::new())?;
    let target = openat(
        CWD,
        "/dev/console",
        OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o666),
    )?;
    drop(target);
    let path = PathBuf::from(name.to_string_lossy().into_owned());
    let target = openat(CWD, "/dev/console", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(copy_of(&path, false)?, target)
}

/// A working directory such as `/proc/self/fd/9` must not lead out of the container.
fn check_directory() -> Result<(), StepError> {
    let directory = rustix::process::getcwd(Vec::new()).step(|| "getcwd".to_owned())?;
    if directory.as_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(StepError::plain("the working directory is outside of the container"))
}

fn environment(spec: &ContainerSpec, identity: &Identity) -> Vec<String> {
    let mut env = spec.env.clone();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    env
}

/// Where the program is, with Go's words for when it is nowhere.
fn find_program(name: &str, env: &[String]) -> Result<String, StepError> {
    if name.contains('/') {
        return check_program(name).map(|()| name.to_owned()).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                StepError::plain(format!("exec: {name:?}: stat {name}: no such file or directory"))
            }
            io::ErrorKind::IsADirectory => {
                StepError::plain(format!("exec: {name:?}: is a directory"))
            }
            _ => StepError::plain(format!("exec: {name:?}: permission denied")),
        });
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let found = path
        .split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| format!("{}/{name}", directory.trim_end_matches('/')))
        .find(|candidate| check_program(candidate).is_ok());
    found.ok_or_else(|| {
        StepError::plain(format!("exec: {name:?}: executable file not found in $PATH"))
    })
}

fn check_program(path: &str) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(rustix::fs::access(path, Access::EXEC_OK)?)
}
