//! Who is woken by which change, and how often many are.
//!
//! To wake a watcher costs about as much as to send it a dozen events. Few watchers are woken by
//! every change at once. A crowd is woken at the first change after a pause, and then no more often
//! than the machine can follow: what happens meanwhile arrives together. The pause grows with the
//! crowd, so that waking costs a bounded share of the machine however many watch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meta::Object;
use tokio::sync::Notify;

use super::{Change, node_of};

/// So many are no crowd.
pub(crate) const FEW: usize = 24;
/// What one watcher adds to the pause.
const PAUSE_EACH: Duration = Duration::from_micros(15);
/// The longest pause, also for very large crowds.
const PAUSE: Duration = Duration::from_millis(50);

/// Which changes wake a watcher. A watcher is under exactly one interest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Interest {
    /// Every change.
    All,
    /// Changes in a namespace.
    Namespace(String),
    /// The cache key of one object.
    Key(String),
    /// `spec.nodeName`.
    Node(String),
}

/// Whether a watcher is woken by every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// By every change, at once: the loops of this process, to whom an event costs little.
    AtOnce,
    /// With the others of a crowd.
    Crowd,
}

/// All watchers of one resource.
#[derive(Default)]
pub(crate) struct Interests {
    groups: HashMap<Interest, Group>,
    /// Groups that are to be woken when their pause is over.
    late: HashSet<Interest>,
}

/// The watchers of one interest.
#[derive(Default)]
struct Group {
    at_once: Vec<Arc<Notify>>,
    crowd: Vec<Arc<Notify>>,
    /// The end of the pause.
    rested: Option<Instant>,
}

impl Interests {
    pub(crate) fn add(&mut self, interest: &Interest, pace: Pace) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        let group = self.groups.entry(interest.clone()).or_default();
        group.of(pace).push(notify.clone());
        notify
    }

    pub(crate) fn remove(&mut self, interest: &Interest, pace: Pace, notify: &Arc<Notify>) {
        let Some(group) = self.groups.get_mut(interest) else { return };
        let waiting = group.of(pace);
        if let Some(place) = waiting.iter().position(|found| Arc::ptr_eq(found, notify)) {
            waiting.swap_remove(place);
        }
        if group.at_once.is_empty() && group.crowd.is_empty() {
            self.groups.remove(interest);
            self.late.remove(interest);
        }
    }

    /// Whom these changes wake now. The others are woken by [`Interests::rested`].
    pub(crate) fn touched(&mut self, changes: &[Change], now: Instant) -> Vec<Arc<Notify>> {
        let mut wake = Vec::new();
        if self.groups.is_empty() {
            return wake;
        }
        let mut seen = HashSet::new();
        for change in changes {
            for interest in interests_in(change) {
                if self.groups.contains_key(&interest) && !seen.contains(&interest) {
                    self.touch(&interest, now, &mut wake);
                    seen.insert(interest);
                }
            }
        }
        wake
    }

    fn touch(&mut self, interest: &Interest, now: Instant, wake: &mut Vec<Arc<Notify>>) {
        let Some(group) = self.groups.get_mut(interest) else { return };
        wake.extend(group.at_once.iter().cloned());
        if group.rested.is_some_and(|rested| now < rested) {
            self.late.insert(interest.clone());
        } else {
            group.wake_crowd(now, wake);
        }
    }

    /// Whom to wake as their pause is over, and when to ask again.
    pub(crate) fn rested(&mut self, now: Instant) -> (Vec<Arc<Notify>>, Option<Instant>) {
        let (mut wake, mut next) = (Vec::new(), None::<Instant>);
        let groups = &mut self.groups;
        self.late.retain(|interest| {
            let Some(group) = groups.get_mut(interest) else { return false };
            match group.rested {
                Some(rested) if now < rested => {
                    next = Some(next.map_or(rested, |next| next.min(rested)));
                    true
                }
                _ => {
                    group.wake_crowd(now, &mut wake);
                    false
                }
            }
        });
        (wake, next)
    }

    /// Everybody.
    pub(crate) fn all(&self) -> Vec<Arc<Notify>> {
        let both = |group: &Group| [group.at_once.clone(), group.crowd.clone()].concat();
        self.groups.values().flat_map(both).collect()
    }
}

impl Group {
    fn of(&mut self, pace: Pace) -> &mut Vec<Arc<Notify>> {
        match pace {
            Pace::AtOnce => &mut self.at_once,
            Pace::Crowd => &mut self.crowd,
        }
    }

    fn wake_crowd(&mut self, now: Instant, wake: &mut Vec<Arc<Notify>>) {
        wake.extend(self.crowd.iter().cloned());
        let count = self.crowd.len();
        let pause = PAUSE_EACH.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)).min(PAUSE);
        self.rested = (count > FEW).then(|| now + pause);
    }
}

/// The interests that a change falls under.
fn interests_in(change: &Change) -> impl Iterator<Item = Interest> + use<> {
    let namespace = change.key.split_once('/').map(|(namespace, _)| namespace.to_owned());
    let node = |object: &Option<Arc<Object>>| node_of(object.as_ref()?).map(str::to_owned);
    let (before, after) = (node(&change.before), node(&change.after));
    let left = before.filter(|before| after.as_ref() != Some(before));
    [Interest::All, Interest::Key(change.key.to_string())]
        .into_iter()
        .chain(namespace.map(Interest::Namespace))
        .chain(left.map(Interest::Node))
        .chain(after.map(Interest::Node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str) -> Vec<Change> {
        vec![Change { revision: 1, key: key.into(), before: None, after: None }]
    }

    fn now() -> Instant {
        clock::Clock::monotonic(&clock::SystemClock)
    }

    fn rested(interests: &mut Interests, now: Instant) -> (usize, Option<Instant>) {
        let (woken, next) = interests.rested(now);
        (woken.len(), next)
    }

    #[test]
    fn few_watchers_are_woken_by_every_change() {
        let mut interests = Interests::default();
        let kept: Vec<_> = (0..FEW).map(|_| interests.add(&Interest::All, Pace::Crowd)).collect();
        let now = now();
        for _ in 0..3 {
            assert_eq!(interests.touched(&change("n/a"), now).len(), kept.len());
        }
        assert_eq!(rested(&mut interests, now), (0, None));
    }

    #[test]
    fn a_crowd_gets_what_happens_in_its_pause_together() {
        let mut interests = Interests::default();
        let crowd: Vec<_> = (0..100).map(|_| interests.add(&Interest::All, Pace::Crowd)).collect();
        let _first = interests.add(&Interest::All, Pace::AtOnce);
        let (begin, pause) = (now(), PAUSE_EACH * 100);
        assert_eq!(interests.touched(&change("n/a"), begin).len(), 101, "the first change");
        assert_eq!(interests.touched(&change("n/b"), begin + pause / 2).len(), 1, "in the pause");
        assert_eq!(interests.touched(&change("n/c"), begin + pause / 2).len(), 1, "in the pause");
        assert_eq!(rested(&mut interests, begin + pause / 2), (0, Some(begin + pause)));
        assert_eq!(rested(&mut interests, begin + pause), (crowd.len(), None));
        assert_eq!(rested(&mut interests, begin + pause * 2), (0, None), "nothing since");
        assert_eq!(interests.touched(&change("n/d"), begin + pause * 3).len(), 101);
    }

    #[test]
    fn the_pause_of_one_crowd_is_not_that_of_others() {
        let mut interests = Interests::default();
        let _crowd: Vec<_> = (0..100).map(|_| interests.add(&Interest::All, Pace::Crowd)).collect();
        let mine = Interest::Key("n/a".to_owned());
        let notify = interests.add(&mine, Pace::Crowd);
        let now = now();
        interests.touched(&change("n/b"), now);
        let woken = interests.touched(&change("n/a"), now);
        assert!(woken.len() == 1 && Arc::ptr_eq(&woken[0], &notify));
    }

    #[test]
    fn who_has_left_is_not_woken() {
        let mut interests = Interests::default();
        let crowd: Vec<_> = (0..100).map(|_| interests.add(&Interest::All, Pace::Crowd)).collect();
        let now = now();
        interests.touched(&change("n/a"), now);
        interests.touched(&change("n/a"), now);
        for notify in &crowd {
            interests.remove(&Interest::All, Pace::Crowd, notify);
        }
        assert_eq!(rested(&mut interests, now + PAUSE), (0, None));
        assert!(interests.groups.is_empty() && interests.late.is_empty());
    }
}
