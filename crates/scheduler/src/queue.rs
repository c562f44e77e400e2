//! Which pod is tried next.
//!
//! A waiting pod is in one of these places:
//!
//! ```text
//!            add                       pop                  bound, deleted
//!  (gated) ───────▶ Active ─────────────────▶ InFlight ───────────────────▶ gone
//!                     ▲  ▲                      │    │
//!      back-off over, │  │ helpful event,       │    │ rejected
//!      or idle        │  │ back-off over        │    ▼
//!                   Backoff ◀───────────────────┘  Unschedulable
//!                       ▲            error           │
//!                       └────────────────────────────┘ helpful event
//! ```
//!
//! Nothing happens between a decision and its rejection: whoever pops a pod to try it holds the
//! queue until it has said so.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::framework::{ClusterEvent, Plugin};
use crate::pod_info::PodInfo;

/// Back-off of a pod: upstream's defaults.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// After this time a rejected pod is tried again whatever happened: upstream's repair for events
/// that nobody foresaw.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Held back by a gate; only a change of the pod lets it out.
    Gated,
    /// Waits to be tried.
    Active,
    /// Waits for a time; `early` when an idle scheduler may try it before.
    Backoff { until: Instant, early: bool },
    /// Waits for an event, or for the repair.
    Unschedulable { since: Instant },
    /// Is being tried or bound.
    InFlight,
}

struct Waiting {
    pod: Arc<PodInfo>,
    place: Place,
    /// Order of arrival among pods of one priority.
    turn: u64,
    attempts: u32,
    first_seen: Instant,
    rejected_by: BTreeSet<&'static str>,
}

/// The pods that wait for a node.
///
/// Invariant: a pod is in the set of its place and in no other; gated ones and those in flight are
/// in none. There may be a hundred thousand that wait, so nothing looks at all of them.
#[derive(Default)]
pub struct Queue {
    pods: HashMap<String, Waiting>,
    active: BTreeSet<(Reverse<i32>, u64, String)>,
    backoff: BTreeSet<(Instant, String)>,
    unschedulable: BTreeSet<(Instant, String)>,
    /// How many are in flight.
    in_flight: usize,
    next_turn: u64,
}

/// A pod to try.
pub struct Popped {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// This try included.
    pub attempts: u32,
    /// When it came into the queue.
    pub first_seen: Instant,
}

/// How many pods wait in each place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// To be tried.
    pub active: usize,
    /// For a time.
    pub backoff: usize,
    /// For an event.
    pub unschedulable: usize,
    /// For a gate.
    pub gated: usize,
}

impl Queue {
    /// Adds a pod, or takes over a change of it. A changed pod is tried again.
    pub fn add(&mut self, pod: Arc<PodInfo>, gated: bool, now: Instant) {
        let uid = pod.uid.clone();
        match self.pods.get_mut(&uid) {
            None => {
                self.next_turn += 1;
                let waiting = Waiting {
                    pod,
                    place: Place::Gated,
                    turn: self.next_turn,
                    attempts: 0,
                    first_seen: now,
                    rejected_by: BTreeSet::new(),
                };
                self.pods.insert(uid.clone(), waiting);
                if !gated {
                    self.put(&uid, Place::Active);
                }
            }
            Some(waiting) => {
                let place = waiting.place;
                // The key of the active queue holds the priority: take it out before it changes.
                self.take_out(&uid);
                if let Some(waiting) = self.pods.get_mut(&uid) {
                    waiting.pod = pod;
                }
                let place = match place {
                    Place::Gated if !gated => Place::Active,
                    place => place,
                };
                self.put(&uid, place);
            }
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) {
        self.take_out(uid);
        self.pods.remove(uid);
    }

    /// Whether the pod waits here, or is being tried.
    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The pod to try now.
    pub fn pop(&mut self, now: Instant) -> Option<Popped> {
        self.release_due(now);
        let uid = match self.active.first() {
            Some((_, _, uid)) => uid.clone(),
            None => self.early()?,
        };
        self.put(&uid, Place::InFlight);
        let waiting = self.pods.get_mut(&uid)?;
        waiting.attempts += 1;
        Some(Popped {
            pod: Arc::clone(&waiting.pod),
            attempts: waiting.attempts,
            first_seen: waiting.first_seen,
        })
    }

    /// No node took the pod: it waits for an event that may help.
    pub fn rejected(&mut self, uid: &str, by: BTreeSet<&'static str>, now: Instant) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.rejected_by = by;
        self.put(uid, Place::Unschedulable { since: now });
    }

    /// Something else went wrong: the pod is tried again after back-off.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        let Some(waiting) = self.pods.get(uid) else { return };
        let until = now + waiting.backoff();
        self.put(uid, Place::Backoff { until, early: false });
    }

    /// Moves the pods that the event may help. `true` when one can be tried.
    pub fn happened(
        &mut self,
        event: ClusterEvent,
        plugins: &[Box<dyn Plugin>],
        now: Instant,
    ) -> bool {
        let is_helped =
            |uid: &str| self.pods.get(uid).is_some_and(|waiting| waiting.is_helped(event, plugins));
        let uids = self.unschedulable.iter().map(|(_, uid)| uid);
        let helped: Vec<String> = uids.filter(|uid| is_helped(uid)).cloned().collect();
        for uid in &helped {
            self.retry(uid, now);
        }
        !helped.is_empty()
    }

    /// When something becomes due although nothing happens.
    pub fn next_due(&self) -> Option<Instant> {
        let backoff = self.backoff.first().map(|(until, _)| *until);
        let repair = self.unschedulable.first().map(|(since, _)| *since + UNSCHEDULABLE_MAX);
        repair.into_iter().chain(backoff).min()
    }

    /// How many wait where.
    pub fn depths(&self) -> Depths {
        let (active, backoff) = (self.active.len(), self.backoff.len());
        let unschedulable = self.unschedulable.len();
        let elsewhere = active + backoff + unschedulable + self.in_flight;
        Depths { active, backoff, unschedulable, gated: self.pods.len() - elsewhere }
    }

    /// Something may help a pod that was rejected: it is tried again when its back-off is over.
    pub fn retry(&mut self, uid: &str, now: Instant) {
        let Some(waiting) = self.pods.get(uid) else { return };
        let Place::Unschedulable { since } = waiting.place else { return };
        let until = since + waiting.backoff();
        if until <= now {
            self.put(uid, Place::Active);
        } else {
            self.put(uid, Place::Backoff { until, early: true });
        }
    }

    fn release_due(&mut self, now: Instant) {
        while let Some((until, uid)) = self.backoff.first().cloned() {
            if until > now {
                break;
            }
            self.put(&uid, Place::Active);
        }
        while let Some((since, uid)) = self.unschedulable.first().cloned() {
            if since + UNSCHEDULABLE_MAX > now {
                break;
            }
            self.put(&uid, Place::Active);
        }
    }

    /// An idle scheduler need not let a pod wait: upstream `SchedulerPopFromBackoffQ`.
    fn early(&self) -> Option<String> {
        let early = |uid: &str| {
            let place = self.pods.get(uid).map(|waiting| waiting.place);
            matches!(place, Some(Place::Backoff { early: true, .. }))
        };
        self.backoff.iter().map(|(_, uid)| uid).find(|uid| early(uid)).cloned()
    }

    fn put(&mut self, uid: &str, place: Place) {
        self.take_out(uid);
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.place = place;
        match place {
            Place::Active => {
                let key = (Reverse(waiting.pod.priority), waiting.turn, uid.to_owned());
                self.active.insert(key);
            }
            Place::Backoff { until, .. } => {
                self.backoff.insert((until, uid.to_owned()));
            }
            Place::Unschedulable { since } => {
                self.unschedulable.insert((since, uid.to_owned()));
            }
            Place::InFlight => self.in_flight += 1,
            Place::Gated => {}
        }
    }

    fn take_out(&mut self, uid: &str) {
        let Some(waiting) = self.pods.get(uid) else { return };
        match waiting.place {
            Place::Active => {
                let key = (Reverse(waiting.pod.priority), waiting.turn, uid.to_owned());
                self.active.remove(&key);
            }
            Place::Backoff { until, .. } => {
                self.backoff.remove(&(until, uid.to_owned()));
            }
            Place::Unschedulable { since } => {
                self.unschedulable.remove(&(since, uid.to_owned()));
            }
            Place::InFlight => self.in_flight -= 1,
            Place::Gated => {}
        }
    }
}

impl Waiting {
    fn backoff(&self) -> Duration {
        let doubled = BACKOFF_FIRST.saturating_mul(1 << self.attempts.saturating_sub(1).min(10));
        doubled.min(BACKOFF_MAX)
    }

    fn is_helped(&self, event: ClusterEvent, plugins: &[Box<dyn Plugin>]) -> bool {
        // A pod that no plugin rejected failed for want of nodes.
        self.rejected_by.is_empty()
            || plugins
                .iter()
                .any(|plugin| self.rejected_by.contains(plugin.name()) && plugin.may_help(event))
    }
}

#[cfg(test)]
mod tests;
