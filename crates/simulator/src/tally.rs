//! How often what went wrong, and for whom.

use std::collections::BTreeMap;
use std::fmt;

use crate::accounts::ACCOUNTS;

/// Something that goes wrong, and what shows that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A request.
    Request,
    /// One of them that is not only to read.
    Write,
    /// One of these that is about something that is there.
    Change,
    /// A request never arrived.
    Lost,
    /// The server was too busy.
    Busy,
    /// A write took effect, and its answer never arrived.
    Unanswered,
    /// A write was refused as if somebody else had been faster.
    Conflict,
    /// A write was refused because what its writer knew was old.
    Stale,
    /// A request took seconds.
    Slow,
    /// The program died between a request and its answer.
    Died,
    /// The program lost its lease before a request arrived.
    Deposed,
    /// A request by a program whose clock was wrong.
    WrongClock,
    /// An event came seconds late.
    Late,
    /// A watch ended.
    WatchEnds,
    /// A watch expired.
    WatchExpires,
}

/// Counts by who it happened to: the account of a controller, or a collection that is watched.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<String, BTreeMap<Event, u64>>);

impl Tally {
    /// Counts one.
    pub(crate) fn add(&mut self, whom: &str, event: Event) {
        if !self.0.contains_key(whom) {
            self.0.insert(whom.to_owned(), BTreeMap::new());
        }
        if let Some(counts) = self.0.get_mut(whom) {
            *counts.entry(event).or_default() += 1;
        }
    }

    /// How many of these there were.
    pub(crate) fn count(&self, whom: &str, event: Event) -> u64 {
        self.0.get(whom).and_then(|counts| counts.get(&event)).copied().unwrap_or(0)
    }
}

/// Lines for `cargo xtask simulate` to add up: for each controller what went wrong with its requests
/// and with the watches that it depends on.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WATCHES: [Event; 3] = [Event::Late, Event::WatchEnds, Event::WatchExpires];
        const REQUESTS: [Event; 12] = [
            Event::Request,
            Event::Write,
            Event::Change,
            Event::Lost,
            Event::Busy,
            Event::Unanswered,
            Event::Conflict,
            Event::Stale,
            Event::Slow,
            Event::Died,
            Event::Deposed,
            Event::WrongClock,
        ];
        let is_new = |whom: &&String| {
            self.count(whom, Event::Request) > 0
                && ACCOUNTS.iter().all(|(account, _)| account != whom)
        };
        // Those that are not known yet are told of, too: they have no watches.
        let new = self.0.keys().filter(is_new).map(|whom| (whom.as_str(), [].as_slice()));
        for (account, collections) in ACCOUNTS.into_iter().chain(new) {
            for event in REQUESTS {
                writeln!(f, "count {account} {event:?} {}", self.count(account, event))?;
            }
            for event in WATCHES {
                let of = collections.iter().map(|collection| self.count(collection, event));
                writeln!(f, "count {account} {event:?} {}", of.sum::<u64>())?;
            }
        }
        Ok(())
    }
}
