//! How long provisioners take, as far as it can be seen from here: from when a claim or a volume
//! waits for one until it is bound, or gone.
//!
//! Upstream: `OperationStartTimeCache` in `pkg/controller/volume/persistentvolume/metrics`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::metrics::BinderMetrics;

/// What provisioners do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Provision,
    Delete,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Delete => "delete",
        }
    }
}

/// Those that are under way, by uid of the claim or volume. There is at most one of each object
/// that exists.
pub(super) struct Operations {
    counts: BinderMetrics,
    begun: Mutex<HashMap<(Operation, String), Begun>>,
}

struct Begun {
    provisioner: String,
    at: Instant,
}

impl Operations {
    pub(super) fn new(counts: BinderMetrics) -> Self {
        Self { counts, begun: Mutex::default() }
    }

    /// One begins, if it has not begun.
    pub(super) fn begin(&self, what: Operation, uid: &str, provisioner: &str, now: Instant) {
        let begun = || Begun { provisioner: provisioner.to_owned(), at: now };
        self.begun().entry((what, uid.to_owned())).or_insert_with(begun);
    }

    /// One has ended, if it had begun.
    pub(super) fn end(&self, what: Operation, uid: &str, now: Instant) {
        if let Some(begun) = self.begun().remove(&(what, uid.to_owned())) {
            let took = now.saturating_duration_since(begun.at);
            self.counts.took(what.as_str(), &begun.provisioner, took);
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&self, what: Operation, uid: &str) {
        self.begun().remove(&(what, uid.to_owned()));
    }

    /// One has failed, and goes on: what it takes is counted when it succeeds.
    pub(super) fn fail(&self, what: Operation, provisioner: &str) {
        self.counts.failed(what.as_str(), provisioner);
    }

    fn begun(&self) -> MutexGuard<'_, HashMap<(Operation, String), Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
