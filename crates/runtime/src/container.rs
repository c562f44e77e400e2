//! A container as the agent sees it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cri::{ContainerEventType, ContainerId, ContainerState, SandboxId};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::record::ContainerRecord;
use crate::spec::ProcessState;

/// Upstream's exit code of a container nobody knows the end of.
const UNKNOWN_EXIT_CODE: i32 = 255;
/// Upstream's exit code of a container whose program could not be run.
const START_ERROR_EXIT_CODE: i32 = 128;

/// What is known about a container's process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) state: ContainerState,
    pub(crate) pid: i32,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) exit_code: i32,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) user: Option<(u32, u32, Vec<u32>)>,
}

/// A container. The status changes through [`Container::apply`] and its siblings only.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) sandbox_id: SandboxId,
    pub(crate) directory: PathBuf,
    /// Orders start, update and removal.
    pub(crate) operation: tokio::sync::Mutex<()>,
    record: Mutex<Arc<ContainerRecord>>,
    status: watch::Sender<Status>,
}

impl Container {
    pub(crate) fn new(
        id: ContainerId,
        sandbox_id: SandboxId,
        directory: PathBuf,
        record: ContainerRecord,
    ) -> Self {
        let status = match &record.start_error {
            None => Status::default(),
            Some(error) => start_failed(error.message.clone(), error.at),
        };
        Self {
            id,
            sandbox_id,
            directory,
            operation: tokio::sync::Mutex::default(),
            record: Mutex::new(Arc::new(record)),
            status: watch::Sender::new(status),
        }
    }

    pub(crate) fn record(&self) -> Arc<ContainerRecord> {
        Arc::clone(&self.lock())
    }

    /// Replaces the record, on disk first.
    pub(crate) fn set_record(&self, record: ContainerRecord) -> std::io::Result<()> {
        crate::record::save(&self.directory.join("container.json"), &record)?;
        *self.lock() = Arc::new(record);
        Ok(())
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Resolves when the container has ended.
    pub(crate) async fn ended(&self) {
        let mut changes = self.status.subscribe();
        // The sender lives as long as the container.
        changes.wait_for(|status| status.state == ContainerState::Exited).await.ok();
    }

    /// Takes over what the shim says. Answers what that is to those who watch.
    pub(crate) fn apply(&self, process: &ProcessState) -> Vec<ContainerEventType> {
        let mut events = Vec::new();
        self.status.send_if_modified(|status| {
            if status.state == ContainerState::Created {
                events.push(ContainerEventType::Started);
            }
            let ended = process.is_finished() && status.state != ContainerState::Exited;
            if ended {
                events.push(ContainerEventType::Stopped);
            }
            if !events.is_empty() {
                *status = running_or_exited(process);
            }
            !events.is_empty()
        });
        events
    }

    /// Notes that the program could not be run.
    pub(crate) fn fail(&self, message: String, at: Timestamp) {
        self.status.send_replace(start_failed(message, at));
    }

    /// Notes that the shim is gone, and with it the container. `last` is what it wrote down.
    pub(crate) fn lose(&self, last: Option<&ProcessState>, at: Timestamp) -> bool {
        if let Some(last) = last.filter(|last| last.is_finished()) {
            return !self.apply(last).is_empty();
        }
        self.status.send_if_modified(|status| {
            if status.state == ContainerState::Exited
                || (status.state == ContainerState::Created && last.is_none())
            {
                return false;
            }
            status.state = ContainerState::Exited;
            status.started_at = status.started_at.or_else(|| time(last?.started_at));
            status.finished_at = Some(at);
            status.exit_code = UNKNOWN_EXIT_CODE;
            status.reason = "Unknown";
            true
        })
    }

    fn lock(&self) -> MutexGuard<'_, Arc<ContainerRecord>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start_failed(message: String, at: Timestamp) -> Status {
    Status {
        state: ContainerState::Exited,
        finished_at: Some(at),
        exit_code: START_ERROR_EXIT_CODE,
        reason: "StartError",
        message,
        ..Status::default()
    }
}

fn running_or_exited(process: &ProcessState) -> Status {
    let finished = process.is_finished();
    Status {
        state: if finished { ContainerState::Exited } else { ContainerState::Running },
        pid: if finished { 0 } else { process.pid },
        started_at: time(process.started_at),
        finished_at: if finished { time(process.finished_at) } else { None },
        exit_code: process.exit_code,
        reason: match (finished, process.oom_killed, process.exit_code) {
            (false, ..) => "",
            (true, true, _) => "OOMKilled",
            (true, false, 0) => "Completed",
            (true, false, _) => "Error",
        },
        message: String::new(),
        user: process.user.clone(),
    }
}

fn time(nanoseconds: i64) -> Option<Timestamp> {
    if nanoseconds == 0 {
        return None;
    }
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Container {
        let record = ContainerRecord {
            config: cri::ContainerConfig::default(),
            created_at: Timestamp::UNIX_EPOCH,
            image_id: String::new(),
            image_ref: String::new(),
            cgroup: String::new(),
            log_path: String::new(),
            stop_signal: String::new(),
            start_error: None,
        };
        Container::new("c".into(), "s".into(), PathBuf::new(), record)
    }

    fn process(finished_at: i64, exit_code: i32) -> ProcessState {
        ProcessState { pid: 5, started_at: 1, finished_at, exit_code, ..ProcessState::default() }
    }

    #[test]
    fn every_change_is_told_once_and_in_order() {
        use ContainerEventType::{Started, Stopped};
        let c = container();
        assert_eq!(c.apply(&process(0, 0)), [Started]);
        assert_eq!(c.apply(&process(0, 0)), []);
        assert_eq!(c.apply(&process(9, 3)), [Stopped]);
        assert_eq!(c.apply(&process(0, 0)), [], "a late message does not revive it");
        assert_eq!((c.status().exit_code, c.status().reason), (3, "Error"));
        let quick = container();
        assert_eq!(quick.apply(&process(9, 0)), [Started, Stopped]);
        assert_eq!(quick.status().reason, "Completed");
    }

    #[test]
    fn a_container_whose_shim_is_gone_ended_somehow() {
        let now = Timestamp::UNIX_EPOCH;
        let c = container();
        assert!(!c.lose(None, now), "it never ran");
        assert!(c.lose(Some(&process(0, 0)), now));
        assert_eq!((c.status().exit_code, c.status().reason), (255, "Unknown"));
        let known = container();
        assert!(known.lose(Some(&process(7, 4)), now));
        assert_eq!(known.status().exit_code, 4);
    }
}
