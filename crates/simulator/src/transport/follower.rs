//! A watch that is late, ends, and expires.

use std::sync::Arc;
use std::time::Duration;

use client::ClientError;
use meta::WatchEvent;

use super::{Life, expired};
use crate::api::{Commit, Selection, Stored, Target};
use crate::strikes::Blow;
use crate::tally::Event;
use crate::world::World;

/// How long an event takes at most, and one that is slow.
const LAG: Duration = Duration::from_millis(50);
const SLOW_LAG: Duration = Duration::from_secs(5);

/// One watch.
pub(super) struct Follower {
    pub(super) world: Arc<World>,
    pub(super) life: Arc<Life>,
    pub(super) target: Target,
    pub(super) collection: String,
    /// Whether what it tells is in the caches that the controllers share.
    pub(super) informs: bool,
    /// Whether it is in the view of its life.
    pub(super) is_seen: bool,
    pub(super) selection: Selection,
    /// The place in the log of the collection of the next change to look at.
    pub(super) at: usize,
    pub(super) ends: tokio::time::Instant,
    pub(super) is_over: bool,
}

impl Follower {
    /// The next event; none when the watch has ended.
    pub(super) async fn next(&mut self) -> Option<Result<WatchEvent, ClientError>> {
        if self.is_over {
            return None;
        }
        let mut grown = self.world.subscribe(&self.collection);
        loop {
            if self.life.is_over() {
                std::future::pending::<()>().await;
            }
            grown.borrow_and_update();
            if let Some((commit, event)) = self.find() {
                // What has been forgotten meanwhile can no longer be told.
                if self.world.api().is_forgotten(commit.version) {
                    self.is_over = true;
                    self.world.count(&self.collection, Event::WatchExpires);
                    return Some(Err(expired().into()));
                }
                return self.deliver(&commit, event).await;
            }
            tokio::select! {
                biased;
                _ = grown.changed() => {}
                () = tokio::time::sleep_until(self.ends) => return None,
            }
        }
    }

    /// The next change that is about what is watched.
    fn find(&mut self) -> Option<(Arc<Commit>, WatchEvent)> {
        let world = Arc::clone(&self.world);
        let api = world.api();
        while let Some(commit) = api.log_of(&self.collection).get(self.at) {
            self.at += 1;
            if let Some(event) = self.event(commit) {
                return Some((Arc::clone(commit), event));
            }
        }
        None
    }

    fn event(&self, commit: &Commit) -> Option<WatchEvent> {
        let (_, namespace, _) = &commit.key;
        if !(self.target.namespace.is_empty() || *namespace == self.target.namespace) {
            return None;
        }
        let is_in = |stored: &Option<Arc<Stored>>| {
            stored.as_ref().is_some_and(|stored| self.selection.matches(&stored.value))
        };
        let object = Arc::clone(&commit.last.object);
        match (is_in(&commit.old), is_in(&commit.new)) {
            (false, true) => Some(WatchEvent::Added(object)),
            (true, true) => Some(WatchEvent::Modified(object)),
            (true, false) => Some(WatchEvent::Deleted(object)),
            (false, false) => None,
        }
    }

    async fn deliver(
        &mut self,
        commit: &Commit,
        event: WatchEvent,
    ) -> Option<Result<WatchEvent, ClientError>> {
        self.world.step().await;
        let watched = [Blow::Late, Blow::WatchEnds, Blow::WatchExpires];
        let struck = self.world.strike(&self.collection, |blow| watched.contains(&blow));
        let (lag, ends, expires) = {
            let faults = self.world.faults();
            let mut dice = self.world.dice();
            let is_slow = dice.chance(faults.slow) || struck == Some(Blow::Late);
            let lag = dice.within(if is_slow { SLOW_LAG } else { LAG });
            let fate = (
                dice.chance(faults.watch_ends) || struck == Some(Blow::WatchEnds),
                dice.chance(faults.watch_expires) || struck == Some(Blow::WatchExpires),
            );
            let events =
                [(is_slow, Event::Late), (fate.0, Event::WatchEnds), (fate.1, Event::WatchExpires)];
            for (_, event) in events.iter().filter(|(happens, _)| *happens) {
                self.world.count(&self.collection, *event);
            }
            (lag, fate.0, fate.1)
        };
        tokio::time::sleep_until(commit.at + lag).await;
        if self.life.is_over() {
            std::future::pending::<()>().await;
        }
        self.is_over = ends || expires;
        if expires {
            return Some(Err(expired().into()));
        }
        if ends {
            return None;
        }
        if self.informs {
            self.world.api().checks.told(&self.collection, &commit.last.value);
        }
        if self.is_seen {
            let is_gone = matches!(event, WatchEvent::Deleted(_));
            let stored = (!is_gone).then_some(&commit.last);
            self.life.view().told(&commit.key, stored);
        }
        Some(Ok(event))
    }
}
