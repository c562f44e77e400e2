//! How often what went wrong, and for whom.

use std::collections::BTreeMap;
use std::fmt;

/// Something that goes wrong, and what shows that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A request.
    Request,
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
pub(crate) struct Tally(BTreeMap<(String, Event), u64>);

impl Tally {
    /// Counts one.
    pub(crate) fn add(&mut self, whom: &str, event: Event) {
        *self.0.entry((whom.to_owned(), event)).or_default() += 1;
    }
}

/// Lines for `cargo xtask simulate` to add up.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((whom, event), count) in &self.0 {
            writeln!(f, "count {whom} {event:?} {count}")?;
        }
        Ok(())
    }
}
