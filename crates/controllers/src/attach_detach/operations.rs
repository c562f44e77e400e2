//! How long it takes to attach volumes and to detach them, of those that this process began with.
//!
//! Upstream: `GenerateAttachVolumeFunc` and `GenerateDetachVolumeFunc` in
//! `pkg/volume/util/operationexecutor/operation_generator.go`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use client::Change;
use clock::SharedClock;
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::csi::{self, is_attached};
use super::plan;
use crate::metrics::StorageMetrics;

/// What is done about an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Attach,
    Detach,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Attach => "volume_attach",
            Self::Detach => "volume_detach",
        }
    }
}

/// Those that are under way, by the name of the attachment. There are at most two of each that
/// exists.
pub(super) struct Operations {
    counts: StorageMetrics,
    clock: SharedClock,
    begun: Mutex<HashMap<(String, Operation), Instant>>,
}

impl Operations {
    pub(super) fn new(counts: StorageMetrics, clock: SharedClock) -> Self {
        Self { counts, clock, begun: Mutex::default() }
    }

    /// One begins, if it has not begun.
    pub(super) fn begin(&self, what: Operation, attachment: &str) {
        let now = self.clock.monotonic();
        self.begun().entry((attachment.to_owned(), what)).or_insert(now);
    }

    /// One that has begun did not come to its end as it should; it goes on.
    fn fail(&self, what: Operation, attachment: &str, driver: &str) {
        if self.end(what, attachment, driver, false) {
            self.begin(what, attachment);
        }
    }

    /// An attachment does not come in time; each time it is waited for anew counts once.
    pub(super) fn time_out(&self, attachment: &str, driver: &str) {
        let begun = self.begun().get(&(attachment.to_owned(), Operation::Attach)).copied();
        let now = self.clock.monotonic();
        let is_over =
            |begun| now.saturating_duration_since(begun) >= plan::ATTACH_MAX.unsigned_abs();
        if begun.is_some_and(is_over) {
            self.fail(Operation::Attach, attachment, driver);
        }
    }

    /// One could not even begin.
    pub(super) fn give_up(&self, what: Operation, attachment: &str, driver: &str) {
        self.end(what, attachment, driver, false);
    }

    /// There is nothing to be done any more.
    pub(super) fn forget(&self, what: Operation, attachment: &str) {
        self.begun().remove(&(attachment.to_owned(), what));
    }

    /// Follows an attachment.
    pub(super) fn follow(&self, change: &Change<'_, VolumeAttachment>) {
        let name = |one: &VolumeAttachment| one.metadata.name.clone().unwrap_or_default();
        match change {
            Change::Added(_) => {}
            Change::Updated { old, new } => {
                let (name, driver) = (name(new), &new.spec.attacher);
                if is_attached(new) && !is_attached(old) {
                    self.end(Operation::Attach, &name, driver, true);
                } else if csi::errors(new).is_some_and(|error| csi::errors(old) != Some(error)) {
                    self.fail(Operation::Attach, &name, driver);
                }
                let is_new = |error| csi::detach_errors(old) != Some(error);
                if csi::detach_errors(new).is_some_and(is_new) {
                    self.fail(Operation::Detach, &name, driver);
                }
            }
            Change::Deleted(gone) => {
                let name = name(gone);
                self.end(Operation::Detach, &name, &gone.spec.attacher, true);
                self.forget(Operation::Attach, &name);
            }
        }
    }

    fn end(&self, what: Operation, attachment: &str, driver: &str, is_ok: bool) -> bool {
        let begun = self.begun().remove(&(attachment.to_owned(), what));
        if let Some(begun) = begun {
            let took = self.clock.monotonic().saturating_duration_since(begun);
            let plugin = format!("kubernetes.io/csi:{driver}");
            self.counts.took(&plugin, what.as_str(), is_ok, took);
        }
        begun.is_some()
    }

    fn begun(&self) -> MutexGuard<'_, HashMap<(String, Operation), Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
