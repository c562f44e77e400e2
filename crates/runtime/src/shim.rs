//! One small process per pod: it is in the pod's namespaces, is the parent of its containers,
//! keeps their logs, and outlives the agent.
//!
//! It has one thread and waits in one place, [`Shim::run`]. It can therefore fork at any time,
//! and nothing in it needs a lock.

mod io_loop;
mod process;
mod requests;

mod child;
mod device;
mod identity;
mod launch;
mod log;
mod output;
mod rootfs;
mod sandbox;
mod seccomp;
mod step;
mod sys;
mod terminal;
mod tree;
mod users;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;

use jiff::Timestamp;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use self::process::Process;
use self::sandbox::Namespaces;
use self::step::{Step, StepError};
use crate::spec::SandboxSpec;

/// Runs a shim: `args` is what follows `shim` on the command line, the sandbox's directory.
///
/// The listening socket is standard input, so that it exists before the shim does.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(directory) = args.into_iter().next() else {
        report("usage: shim DIRECTORY");
        return ExitCode::from(2);
    };
    match Shim::open(directory.into()).and_then(Shim::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Tells whoever started the shim; it goes to the sandbox's `shim.log`.
fn report(text: &str) {
    // There is nowhere else to say that this failed.
    writeln!(io::stderr(), "{text}").ok();
}

/// A command run by `Exec`.
struct Exec {
    pid: Pid,
    stream: UnixStream,
    kill_on_disconnect: bool,
}

struct Shim {
    directory: PathBuf,
    listener: UnixListener,
    signals: SignalFd,
    namespaces: Namespaces,
    processes: Vec<Process>,
    execs: Vec<Exec>,
    subscribers: Vec<UnixStream>,
    /// Who asked for the end, once somebody did.
    ending: Option<UnixStream>,
    buffer: Box<[u8]>,
}

impl Shim {
    fn open(directory: PathBuf) -> Result<Self, StepError> {
        let spec = fs::read(directory.join("spec.json")).step(|| "reading spec.json".to_owned())?;
        let spec: SandboxSpec =
            serde_json::from_slice(&spec).step(|| "parsing spec.json".to_owned())?;
        let listener = io::stdin().as_fd().try_clone_to_owned().step(starting)?;
        let null = OwnedFd::from(File::open("/dev/null").step(starting)?);
        nix::unistd::dup2_stdin(&null).step(starting)?;
        nix::unistd::setsid().step(starting)?;
        rustix::thread::set_name(c"ironclad-shim").ok();
        // Children are in a container before they run its program. Until then the container must
        // not reach this program's file or descriptors through /proc.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).step(starting)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).step(starting)?;
        let namespaces = Namespaces::enter(&spec, &directory.join("shm"))?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block().step(starting)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags).step(starting)?;
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true).step(starting)?;
        Ok(Self {
            directory,
            listener,
            signals,
            namespaces,
            processes: Vec::new(),
            execs: Vec::new(),
            subscribers: Vec::new(),
            ending: None,
            buffer: vec![0; 32 * 1024].into_boxed_slice(),
        })
    }
}

fn starting() -> String {
    "starting the shim".to_owned()
}

/// The time of day.
fn now() -> Timestamp {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let nanoseconds = i32::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp::new(time.tv_sec, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The time of day in nanoseconds since 1970.
fn now_nanoseconds() -> i64 {
    i64::try_from(now().as_nanosecond()).unwrap_or(i64::MAX)
}
