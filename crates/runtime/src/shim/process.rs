//! A container as its shim sees it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pipe::{PipeFlags, pipe_with};

use super::launch::{self, Launched};
use super::log::Log;
use super::output::Output;
use super::sandbox::Namespaces;
use super::step::{Step, StepError};
use super::{now, now_nanoseconds};
use crate::protocol::Stream;
use crate::spec::{ContainerSpec, PidNamespace, ProcessState};

/// Rounds of killing, for processes that fork meanwhile.
const KILL_ROUNDS: usize = 16;

/// A container that was started.
pub(super) struct Process {
    pub(super) spec: ContainerSpec,
    pub(super) state: ProcessState,
    pub(super) outputs: Vec<Output>,
    pub(super) log: Log,
    /// The writing end of its input, or the controlling end of its terminal.
    input: Option<OwnedFd>,
    state_path: PathBuf,
}

impl Process {
    /// Starts the container whose directory is given.
    pub(super) fn start(namespaces: &Namespaces, directory: &Path) -> Result<Self, StepError> {
        let spec =
            fs::read(directory.join("spec.json")).step(|| "reading the container".to_owned())?;
        let spec: ContainerSpec =
            serde_json::from_slice(&spec).step(|| "parsing the container".to_owned())?;
        let log = Log::open(spec.log_path.clone())
            .step(|| format!("failed to open {:?}", spec.log_path))?;
        let (streams, mut sources, mut input) = if spec.tty {
            (None, Vec::new(), None)
        } else {
            let (child, sources, input) = pipes(spec.stdin).step(|| "making pipes".to_owned())?;
            (Some(child), sources, input)
        };
        let launched = launch::start(namespaces, &spec, streams)?;
        if let Some(master) = launched.terminal.as_ref() {
            let copy = master.try_clone().step(|| "copying the terminal".to_owned())?;
            let output = Output::new(Stream::Stdout, copy);
            sources.push(output.step(|| "reading the terminal".to_owned())?);
            input = launched
                .terminal
                .as_ref()
                .map(|m| m.as_fd())
                .and_then(|m| m.try_clone_to_owned().ok());
        }
        let Launched { pid, user, .. } = launched;
        let state = ProcessState {
            id: spec.id.clone(),
            pid: pid.as_raw(),
            started_at: now_nanoseconds(),
            user,
            ..ProcessState::default()
        };
        let state_path = directory.join("state.json");
        let process = Self { spec, state, outputs: sources, log, input, state_path };
        process.save();
        Ok(process)
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.state.pid)
    }

    pub(super) fn is_running(&self) -> bool {
        !self.state.is_finished()
    }

    /// Notes that the first process ended.
    pub(super) fn finish(&mut self, exit_code: i32, buffer: &mut [u8]) {
        if self.spec.pid != PidNamespace::Own {
            // Nothing else ends what it left running.
            self.kill_all();
        }
        for output in &mut self.outputs {
            output.drain(buffer, now(), &mut self.log);
        }
        self.input = None;
        self.state.exit_code = exit_code;
        self.state.oom_killed = self.was_oom_killed();
        self.state.finished_at = now_nanoseconds();
        self.save();
    }

    /// Sends a signal to the first process.
    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::try_from(signal).map_err(io::Error::from)?;
        Ok(kill(self.pid(), signal)?)
    }

    /// Kills every process of the container.
    pub(super) fn kill_all(&self) {
        if self.is_running() {
            // One that is gone already needs no killing.
            kill(self.pid(), Signal::SIGKILL).ok();
        }
        let Some(procs) = self.spec.cgroup_procs.first() else { return };
        for _ in 0..KILL_ROUNDS {
            let text = fs::read_to_string(procs).unwrap_or_default();
            let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
    }

    /// Something to write the container's input to.
    pub(super) fn attach_input(&mut self) -> io::Result<Option<OwnedFd>> {
        let copy = self.input.as_ref().map(OwnedFd::try_clone).transpose()?;
        if self.spec.stdin_once && !self.spec.tty {
            // The client has the last writing end, so its leaving ends the input.
            self.input = None;
        }
        Ok(copy)
    }

    fn was_oom_killed(&self) -> bool {
        let text = fs::read_to_string(&self.spec.oom_file).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix("oom_kill "))
            .any(|count| count.trim() != "0")
    }

    /// The agent reads it when there is no shim to ask.
    fn save(&self) {
        let Ok(bytes) = serde_json::to_vec(&self.state) else { return };
        let sibling = self.state_path.with_extension("tmp");
        // Without it the agent only knows less about a container whose shim was killed.
        if fs::write(&sibling, bytes).is_ok() {
            fs::rename(&sibling, &self.state_path).ok();
        }
    }
}

type Pipes = ([OwnedFd; 3], Vec<Output>, Option<OwnedFd>);

fn pipes(stdin: bool) -> io::Result<Pipes> {
    let (out, out_child) = pipe_with(PipeFlags::CLOEXEC)?;
    let (err, err_child) = pipe_with(PipeFlags::CLOEXEC)?;
    let (in_child, input) = if stdin {
        let (child, input) = pipe_with(PipeFlags::CLOEXEC)?;
        (child, Some(input))
    } else {
        (OwnedFd::from(File::open("/dev/null")?), None)
    };
    let outputs = vec![Output::new(Stream::Stdout, out)?, Output::new(Stream::Stderr, err)?];
    Ok(([in_child, out_child, err_child], outputs, input))
}
