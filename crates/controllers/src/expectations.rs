//! What a controller has asked for and not yet seen: upstream `ControllerExpectations`.
//!
//! A controller that created pods must not create them again because its cache is behind.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::Change;
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// After this time a missing event is taken for lost: upstream `ExpectationsTimeout`.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Expectations per owner, by its uid: another one of its name knows nothing of its pods.
#[derive(Default)]
pub(crate) struct Expectations {
    by_owner: Mutex<HashMap<String, Expected>>,
}

struct Expected {
    creations: usize,
    deletions: BTreeSet<String>,
    since: Instant,
}

impl Expectations {
    /// Whether everything asked for has been seen, or will not be.
    pub(crate) fn are_met(&self, owner: &str, now: Instant) -> bool {
        self.lock().get(owner).is_none_or(|expected| {
            let seen = expected.creations == 0 && expected.deletions.is_empty();
            seen || now.duration_since(expected.since) > TIMEOUT
        })
    }

    /// How long to wait for what has not been seen. Nobody else comes back then: a pod that is
    /// gone before a list comes that replaces a watch is never seen.
    pub(crate) fn wait(&self, owner: &str, now: Instant) -> Option<Duration> {
        if self.are_met(owner, now) {
            return None;
        }
        let since = self.lock().get(owner)?.since;
        Some(TIMEOUT.saturating_sub(now.duration_since(since)) + Duration::from_millis(1))
    }

    /// So many pods will appear.
    pub(crate) fn expect_creations(&self, owner: &str, count: usize, now: Instant) {
        let expected = Expected { creations: count, deletions: BTreeSet::new(), since: now };
        self.lock().insert(owner.to_owned(), expected);
    }

    /// These pods will go.
    pub(crate) fn expect_deletions(&self, owner: &str, uids: BTreeSet<String>, now: Instant) {
        let expected = Expected { creations: 0, deletions: uids, since: now };
        self.lock().insert(owner.to_owned(), expected);
    }

    /// This pod will go, besides what is expected already.
    pub(crate) fn expect_deletion(&self, owner: &str, uid: &str, now: Instant) {
        let mut all = self.lock();
        let nothing = Expected { creations: 0, deletions: BTreeSet::new(), since: now };
        let expected = all.entry(owner.to_owned()).or_insert(nothing);
        expected.deletions.insert(uid.to_owned());
        expected.since = now;
    }

    /// So many pods will appear, and these will go.
    pub(crate) fn expect(
        &self,
        owner: &str,
        creations: usize,
        deletions: BTreeSet<String>,
        now: Instant,
    ) {
        let expected = Expected { creations, deletions, since: now };
        self.lock().insert(owner.to_owned(), expected);
    }

    /// A pod appeared, or could not be created.
    pub(crate) fn created(&self, owner: &str) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.creations = expected.creations.saturating_sub(1);
        }
    }

    /// A pod is going, or could not be deleted.
    pub(crate) fn deleted(&self, owner: &str, uid: &str) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.deletions.remove(uid);
        }
    }

    /// Forgets what an owner that is gone expected.
    pub(crate) fn owner_changed<K>(&self, change: &Change<'_, K>)
    where
        K: Metadata<Ty = ObjectMeta> + Send + Sync + 'static,
    {
        if let Change::Deleted(gone) = change
            && let Some(uid) = &gone.metadata().uid
        {
            self.lock().remove(uid);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Expected>> {
        self.by_owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use clock::Clock;

    use super::*;

    #[test]
    fn what_is_expected_one_after_the_other_adds_up() {
        let (expectations, owner) = (Expectations::default(), "uid");
        let now = clock::SystemClock.monotonic();
        expectations.expect_deletion(owner, "a", now);
        expectations.expect_deletion(owner, "b", now);
        expectations.deleted(owner, "b");
        assert!(!expectations.are_met(owner, now));
        expectations.deleted(owner, "a");
        assert!(expectations.are_met(owner, now));
    }

    #[test]
    fn what_is_never_seen_is_given_up_in_time() {
        let (expectations, owner) = (Expectations::default(), "uid");
        let now = clock::SystemClock.monotonic();
        assert_eq!(expectations.wait(owner, now), None);
        expectations.expect_creations(owner, 1, now);
        let wait = expectations.wait(owner, now + Duration::from_secs(100)).unwrap();
        assert_eq!(wait.as_secs(), 200);
        let later = now + Duration::from_secs(100) + wait;
        assert!(expectations.are_met(owner, later));
        assert_eq!(expectations.wait(owner, later), None);
    }
}
