//! What a controller has written for its objects, and whether its caches have seen that.
//!
//! A sync that goes by a cache older than its own last write would do things twice, or take them
//! back: it is put off. The event of the write brings it back, and a few tries of its own in case
//! that a list has replaced the event.
//!
//! Upstream: `pkg/controller/util/consistency`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client::ClientError;
use clock::SharedClock;
use meta::{ObjectKey, ResourceVersion};
use prometheus::IntCounterVec;
use serde_json::Value;

use crate::pod_control::Owner;

/// Group and resource of what was written.
pub(crate) type Written = (&'static str, &'static str);
pub(crate) const PODS: Written = ("", "pods");

/// After this time a write is taken for one that no cache will see, as those of a store that was
/// restored: as long as for expectations.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The newest writes of one controller, by the object that they were for.
pub(crate) struct Writes {
    is_on: bool,
    clock: SharedClock,
    skips: IntCounterVec,
    /// Those that may not have been seen; what has been is forgotten.
    by_owner: Mutex<HashMap<ObjectKey, Record>>,
}

struct Record {
    uid: String,
    newest: BTreeMap<Written, ResourceVersion>,
    since: Instant,
}

impl Writes {
    /// Counts syncs that are put off; where the gate is not open, none is.
    pub(crate) fn new(is_on: bool, clock: SharedClock, skips: IntCounterVec) -> Self {
        Self { is_on, clock, skips, by_owner: Mutex::default() }
    }

    /// Something was written for an owner, and has this version since.
    pub(crate) fn wrote(&self, owner: &Owner, what: Written, version: Option<&str>) {
        // Versions that are no numbers cannot be compared.
        let version = version.and_then(|text| text.parse().ok()).map(ResourceVersion);
        let Some(version) = version.filter(|_| self.is_on) else { return };
        let since = self.clock.monotonic();
        let new = || Record { uid: owner.uid.clone(), newest: BTreeMap::new(), since };
        let mut all = self.lock();
        let record = all.entry(owner.key.clone()).or_insert_with(new);
        if record.uid != owner.uid {
            *record = new();
        }
        let newest = record.newest.entry(what).or_insert(version);
        *newest = version.max(*newest);
        record.since = since;
    }

    /// The status of an owner was written, or the owner was gone.
    ///
    /// # Errors
    /// Any other answer than these two.
    pub(crate) fn wrote_status(
        &self,
        owner: &Owner,
        what: Written,
        answer: Result<Value, ClientError>,
    ) -> Result<(), ClientError> {
        match answer {
            Ok(written) => {
                self.wrote(owner, what, written["metadata"]["resourceVersion"].as_str());
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether a sync has to be put off, as a cache has not seen what was written for the object.
    /// `seen` is the newest version that each cache has seen.
    pub(crate) fn are_unseen(
        &self,
        owner: &ObjectKey,
        seen: &[(Written, ResourceVersion)],
    ) -> bool {
        let mut all = self.lock();
        let Some(record) = all.get(owner) else { return false };
        let is_lost = self.clock.monotonic().duration_since(record.since) > TIMEOUT;
        let is_behind = |(what, seen): &&(Written, ResourceVersion)| {
            record.newest.get(what).is_some_and(|newest| newest > seen)
        };
        match seen.iter().find(is_behind).filter(|_| !is_lost) {
            Some(((group, resource), _)) => {
                self.skips.with_label_values(&[group, resource]).inc();
                true
            }
            None => {
                all.remove(owner);
                false
            }
        }
    }

    /// Forgets an owner that is gone.
    pub(crate) fn forget(&self, owner: &ObjectKey) {
        self.lock().remove(owner);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Record>> {
        self.by_owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clock::ManualClock;
    use jiff::Timestamp;
    use prometheus::Opts;

    use super::*;

    const SETS: Written = ("apps", "replicasets");

    fn writes(is_on: bool) -> (Writes, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let skips = IntCounterVec::new(Opts::new("skips", "Skips."), &["group", "resource"]);
        (Writes::new(is_on, clock.clone(), skips.unwrap()), clock)
    }

    fn owner(uid: &str) -> Owner {
        let key = ObjectKey::new("n", "s");
        Owner { api_version: "apps/v1", kind: "ReplicaSet", key, uid: uid.to_owned() }
    }

    fn seen(sets: u64, pods: u64) -> [(Written, ResourceVersion); 2] {
        [(SETS, ResourceVersion(sets)), (PODS, ResourceVersion(pods))]
    }

    #[test]
    fn a_sync_waits_for_every_cache() {
        let (writes, _) = writes(true);
        let owner = owner("u");
        assert!(!writes.are_unseen(&owner.key, &seen(0, 0)));
        writes.wrote(&owner, SETS, Some("9"));
        writes.wrote(&owner, PODS, Some("12"));
        writes.wrote(&owner, PODS, Some("11"));
        writes.wrote(&owner, PODS, Some("x"));
        assert!(writes.are_unseen(&owner.key, &seen(8, 20)));
        assert!(writes.are_unseen(&owner.key, &seen(9, 11)));
        assert!(!writes.are_unseen(&owner.key, &seen(9, 12)));
        let count = |group, resource| writes.skips.with_label_values(&[group, resource]).get();
        assert_eq!((count("apps", "replicasets"), count("", "pods")), (1, 1));
        assert!(writes.lock().is_empty(), "what has been seen is forgotten");
    }

    #[test]
    fn nothing_is_waited_for_that_does_not_come() {
        let (writes, clock) = writes(true);
        let (first, second) = (owner("first"), owner("second"));
        writes.wrote(&first, PODS, Some("9"));
        writes.wrote(&second, PODS, Some("7"));
        assert!(!writes.are_unseen(&first.key, &seen(0, 7)), "another one has its name");
        writes.wrote(&first, PODS, Some("9"));
        writes.forget(&first.key);
        assert!(!writes.are_unseen(&first.key, &seen(0, 0)));
        writes.wrote(&first, PODS, Some("9"));
        clock.advance(TIMEOUT);
        assert!(writes.are_unseen(&first.key, &seen(0, 8)));
        clock.advance(Duration::from_secs(1));
        assert!(!writes.are_unseen(&first.key, &seen(0, 8)));
        assert!(writes.lock().is_empty());
    }

    #[test]
    fn nothing_waits_behind_a_closed_gate() {
        let (writes, _) = writes(false);
        writes.wrote(&owner("u"), PODS, Some("9"));
        assert!(!writes.are_unseen(&owner("u").key, &seen(0, 0)));
    }
}
