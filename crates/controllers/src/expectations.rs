//! What a controller has asked for and not yet seen: upstream `ControllerExpectations`.
//!
//! A controller that created pods must not create them again because its cache is behind.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use meta::ObjectKey;

/// After this time a missing event is taken for lost: upstream `ExpectationsTimeout`.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Expectations per owner.
#[derive(Default)]
pub(crate) struct Expectations {
    by_owner: Mutex<HashMap<ObjectKey, Expected>>,
}

struct Expected {
    creations: usize,
    deletions: BTreeSet<String>,
    since: Instant,
}

impl Expectations {
    /// Whether everything asked for has been seen, or will not be.
    pub(crate) fn are_met(&self, owner: &ObjectKey, now: Instant) -> bool {
        self.lock().get(owner).is_none_or(|expected| {
            let seen = expected.creations == 0 && expected.deletions.is_empty();
            seen || now.duration_since(expected.since) > TIMEOUT
        })
    }

    /// How long to wait for what has not been seen. Nobody else comes back then: a pod that is
    /// gone before a list comes that replaces a watch is never seen.
    pub(crate) fn wait(&self, owner: &ObjectKey, now: Instant) -> Option<Duration> {
        if self.are_met(owner, now) {
            return None;
        }
        let since = self.lock().get(owner)?.since;
        Some(TIMEOUT.saturating_sub(now.duration_since(since)) + Duration::from_millis(1))
    }

    /// So many pods will appear.
    pub(crate) fn expect_creations(&self, owner: &ObjectKey, count: usize, now: Instant) {
        let expected = Expected { creations: count, deletions: BTreeSet::new(), since: now };
        self.lock().insert(owner.clone(), expected);
    }

    /// These pods will go.
    pub(crate) fn expect_deletions(&self, owner: &ObjectKey, uids: BTreeSet<String>, now: Instant) {
        let expected = Expected { creations: 0, deletions: uids, since: now };
        self.lock().insert(owner.clone(), expected);
    }

    /// So many pods will appear, and these will go.
    pub(crate) fn expect(
        &self,
        owner: &ObjectKey,
        creations: usize,
        deletions: BTreeSet<String>,
        now: Instant,
    ) {
        let expected = Expected { creations, deletions, since: now };
        self.lock().insert(owner.clone(), expected);
    }

    /// A pod appeared, or could not be created.
    pub(crate) fn created(&self, owner: &ObjectKey) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.creations = expected.creations.saturating_sub(1);
        }
    }

    /// A pod is going, or could not be deleted.
    pub(crate) fn deleted(&self, owner: &ObjectKey, uid: &str) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.deletions.remove(uid);
        }
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, owner: &ObjectKey) {
        self.lock().remove(owner);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectKey, Expected>> {
        self.by_owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use clock::Clock;

    use super::*;

    #[test]
    fn what_is_never_seen_is_given_up_in_time() {
        let (expectations, owner) = (Expectations::default(), ObjectKey::new("n", "a"));
        let now = clock::SystemClock.monotonic();
        assert_eq!(expectations.wait(&owner, now), None);
        expectations.expect_creations(&owner, 1, now);
        let wait = expectations.wait(&owner, now + Duration::from_secs(100)).unwrap();
        assert_eq!(wait.as_secs(), 200);
        let later = now + Duration::from_secs(100) + wait;
        assert!(expectations.are_met(&owner, later));
        assert_eq!(expectations.wait(&owner, later), None);
    }
}
